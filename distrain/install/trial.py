"""Tries a built Horovod: a sum over the processes of a launcher, or over a single GPU.

Decides: what must come out. Never: starts processes.

    $ mpirun -n 2 python -m distrain.install.trial 2 MPI Gloo  # two ranks, on two GPUs if there are two
    $ mpirun -n 1 python -m distrain.install.trial 1 NCCL gpu  # one rank, which must have a GPU: NCCL carries its sum
    2.21.0 sums over 1 rank(s) on a GPU
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def sum_over_ranks(size: int, libraries: Sequence[str], *, needs_gpu: bool = False) -> str:
    """Sum a tensor over all ranks, and return where it was.

    Args:
        size: number of ranks that must be there.
        libraries: "Gloo", "MPI" or "NCCL", with which Horovod must have been built.
        needs_gpu: whether a sum on the CPU is a failure.

    Raises:
        SystemExit: another sum came out, or another number of ranks, or the sum was elsewhere, or a library is missing.
    """
    import horovod.tensorflow as hvd  # imported here, because the documentation imports this module without them
    import tensorflow as tf

    is_built = {"Gloo": hvd.gloo_built, "MPI": hvd.mpi_built, "NCCL": hvd.nccl_built}
    if missing := [name for name in libraries if not is_built[name]()]:
        sys.exit(f"Horovod was built without {', '.join(missing)}")
    hvd.init()
    gpus = tf.config.list_physical_devices("GPU")
    own = gpus[hvd.local_rank() : hvd.local_rank() + 1] if len(gpus) >= size else []  # NCCL needs a GPU for each rank
    tf.config.set_visible_devices(own, "GPU")
    if needs_gpu and not own:
        sys.exit("TensorFlow sees no GPU for this rank: distrain doctor says why")
    with tf.device("/GPU:0" if own else "/CPU:0"):
        total = hvd.allreduce(tf.fill([1000], float(hvd.rank() + 1)), op=hvd.Sum)
    expected = size * (size + 1) / 2
    if hvd.size() != size:
        sys.exit(f"{size} rank(s) were started, but {hvd.size()} found each other")
    if not (total.numpy() == expected).all():
        sys.exit(f"the sum must be {expected} everywhere, but it is {total.numpy()}")
    if ("GPU" in total.device) != bool(own):
        sys.exit(f"the sum must be on {'a GPU' if own else 'the CPU'}, but it is on {total.device}")
    return f"{tf.__version__} sums over {size} rank(s) on {'a GPU' if own else 'the CPU'}"


if __name__ == "__main__":
    size, *words = sys.argv[1:]
    print(sum_over_ranks(int(size), [word for word in words if word != "gpu"], needs_gpu="gpu" in words))
