"""Batches that lie on the device before a step needs them: the next batch is copied while the device computes.

Decides: which arrays of a batch are copied, and how far ahead. Never: what a batch contains.

    with placed_ahead(batches, ["GPU:0"]) as steps:          # in turn: the next step is placed while one computes
        for batches_of_the_local_replicas in steps: ...

A copy waits for the computations that the device has begun before the copy, so a copy that a step begins itself hides
nothing. Scalars and int32 stay on the host: TensorFlow reads the first there, and expects int32 arguments there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from distrain.batch import Batch
from distrain.distribution.zero_copy import as_tensor

HOST = "CPU:0"


@contextmanager
def placed_ahead(
    batches: AbstractContextManager[Iterator[list[Batch]]], devices: Sequence[str]
) -> Iterator[Iterator[list[Batch]]]:
    """Place the batches of one step more than the caller has asked for, in a thread that ends with the context.

    An error in `batches` reaches the caller at its step.

    Args:
        batches: context of the batches of each step, replica after replica.
        devices: the device of each replica.
    """
    with batches as steps, ThreadPoolExecutor(1, "distrain-place") as thread:

        def take() -> list[Batch] | None:
            step = next(steps, None)
            return None if step is None else placed(step, devices)

        ahead = thread.submit(take)

        def consume() -> Iterator[list[Batch]]:
            nonlocal ahead
            while (step := ahead.result()) is not None:
                ahead = thread.submit(take)
                yield step

        yield consume()


def placed(step: Sequence[Batch], devices: Sequence[str]) -> list[Batch]:
    """Return the batches of a step with their arrays on the devices of the replicas."""
    return [_on_device(batch, device) for batch, device in zip(step, device_of_each(step, devices), strict=True)]


def device_of_each(step: Sequence[Any], devices: Sequence[str]) -> list[str]:
    """Return the device of each batch of a step; the host for all batches if `devices` is empty."""
    return [devices[number * len(devices) // len(step)] if devices else HOST for number in range(len(step))]


def is_placed(rank: int | None, dtype: Any) -> bool:
    """Return whether arrays of this rank and dtype lie on the device of their replica."""
    return rank != 0 and dtype != np.int32


def _on_device(batch: Batch, device: str) -> Batch:
    def place(value: Any) -> Any:
        array = np.asarray(value)
        return tf.identity(as_tensor(array)) if is_placed(array.ndim, array.dtype) else value

    with tf.device(device):
        own = tf.nest.map_structure(place, batch)
    return own._replace(step_flags=batch.step_flags)  # the host changes the flags
