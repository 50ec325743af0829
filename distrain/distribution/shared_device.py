"""Several replicas on one device, one after the other.

Decides: that replicas take turns where TensorFlow cannot make a device for each. Never: what a replica computes.

    SharedDevice(2).compile(replica_step, specs, num_batches=2)(batches_of_both_replicas)

TensorFlow fixes its devices at their first use, as by a Keras optimizer that a script makes before `distrain.fit`.
Replicas in turn train the same model as replicas on devices of their own, in the time of one.
"""

from __future__ import annotations

from distrain.distribution.single import SingleDevice


class SharedDevice(SingleDevice):
    """N replicas of this process that compute in turn, as microbatches of an accumulated step do.

    Args:
        num_replicas: number of replicas.
        prefetches: see `base.Distribution`.
    """

    name = "mirrored"

    def __init__(self, num_replicas: int, *, prefetches: bool = True) -> None:
        super().__init__(prefetches=prefetches)
        self.num_replicas = num_replicas
        self.local_replicas = range(num_replicas)
        self.replicas_per_device = num_replicas
