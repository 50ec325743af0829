"""Predicts what more replicas would give, from one measured step and the links between replicas.

Decides: the formulas of step time on n replicas, and from where on more replicas do not pay. Never: measures anything.

    >>> from distrain.planning.links import Link
    >>> fast, step = Link(100e9, 0.0), MeasuredStep(seconds=0.1, batch_size=256, floor_seconds=0.0)
    >>> size = Size(num_replicas=8, batch_size=256, bytes_per_step=400_000_000, largest_bytes=1_000_000)
    >>> round(step_on(size, step, fast).exposed_seconds, 6)  # of 7 ms, all but the last bucket hides under backward
    0.000459

The step of a replica is a floor, which does not shrink with the batch, and computation in proportion to the batch. The
sum of gradients travels in buckets. Every bucket but the last travels while the backward pass computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from distrain.distribution.buckets import BUCKET_BYTES
from distrain.planning.links import Link
from distrain.planning.traffic import ring_seconds

BACKWARD = 2 / 3  # of the computation: a layer computes two products backward and one forward
LEAST_GAIN = 0.25  # of the speed that added replicas have ideally: twice as many must be 1.25 times as fast
FLOOR_SECONDS = 2.5e-3  # Python and the launches of 75 to 140 kernels; the lower end of an estimate, not measured


@dataclass(frozen=True)
class MeasuredStep:
    """A step of one replica without communication.

    Attributes:
        seconds: its duration.
        batch_size: examples in it.
        floor_seconds: part that would remain with a batch of no examples.
    """

    seconds: float
    batch_size: int
    floor_seconds: float

    def compute_seconds(self, batch_size: int) -> float:
        """Return the duration of a step with another batch."""
        floor = min(self.floor_seconds, self.seconds)
        return floor + (self.seconds - floor) * batch_size / self.batch_size


@dataclass(frozen=True)
class Size:
    """A number of replicas with what each does in a step.

    Attributes:
        num_replicas: copies of the model.
        batch_size: examples per replica.
        bytes_per_step: bytes of gradients that a replica all-reduces.
        largest_bytes: bytes of the largest gradient, which is not split. A model's first layer comes last.
    """

    num_replicas: int
    batch_size: int
    bytes_per_step: float
    largest_bytes: float


@dataclass(frozen=True)
class ScaledStep:
    """A predicted step on some replicas.

    Attributes:
        num_replicas: copies of the model.
        batch_size: examples per replica.
        compute_seconds: computation.
        all_reduce_seconds: the whole sum, hidden parts included.
        exposed_seconds: the part of the sum that nothing hides.
    """

    num_replicas: int
    batch_size: int
    compute_seconds: float
    all_reduce_seconds: float
    exposed_seconds: float

    @property
    def seconds(self) -> float:
        """Duration of the step."""
        return self.compute_seconds + self.exposed_seconds

    @property
    def samples_per_second(self) -> float:
        """Examples per second over all replicas."""
        return self.num_replicas * self.batch_size / self.seconds


def step_on(size: Size, measured: MeasuredStep, link: Link) -> ScaledStep:
    """Predict a step.

    Args:
        size: the replicas.
        measured: a step of one replica.
        link: what carries the sum between these replicas.
    """
    compute = measured.compute_seconds(size.batch_size)
    if size.num_replicas == 1:
        return ScaledStep(1, size.batch_size, compute, 0.0, 0.0)

    def travel(num_bytes: float) -> float:
        return ring_seconds(num_bytes, num_replicas=size.num_replicas, bytes_per_second=link.bytes_per_second)

    last = min(size.bytes_per_step, max(BUCKET_BYTES, size.largest_bytes))
    whole = travel(size.bytes_per_step)
    hidden = min(whole - travel(last), BACKWARD * compute)
    return ScaledStep(
        size.num_replicas,
        size.batch_size,
        compute,
        whole + link.latency_seconds,
        whole - hidden + link.latency_seconds,
    )


def verdict(steps: Sequence[ScaledStep]) -> str:
    """Say in a sentence how many replicas pay.

    Args:
        steps: predictions on 1, 2, 4 ... replicas.
    """
    most = steps[-1]
    paying = steps[0]
    for fewer, more in pairwise(steps):
        added = more.num_replicas / fewer.num_replicas - 1
        if more.samples_per_second < (1 + LEAST_GAIN * added) * fewer.samples_per_second:
            break
        paying = more
    if paying is most:
        speedup = most.samples_per_second / steps[0].samples_per_second
        return f"{most.num_replicas:,} replicas pay: they train {speedup:,.1f} times as fast as one."
    gain = most.samples_per_second / paying.samples_per_second
    share = most.exposed_seconds / most.seconds
    return (
        f"More than {_replicas(paying.num_replicas)} do not pay: {most.num_replicas:,} train {gain:.2g} times as fast. "
        f"With {most.num_replicas:,}, each replica has {most.batch_size:,} examples in a step, and waits for the sum "
        f"in {share:.0%} of its time. A larger batch per replica uses more replicas, if the model still learns."
    )


def _replicas(number: int) -> str:
    return "1 replica" if number == 1 else f"{number:,} replicas"
