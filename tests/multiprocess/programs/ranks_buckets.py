"""Sums in many small buckets, and sums whose tensors are ready in another order in each step.

with small_buckets():
    distribution.compile(...)                  # buckets of 64 bytes, in place of 25 MiB
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from distrain.distribution import multi_process
from distrain.distribution.base import Distribution
from distrain.distribution.buckets import buckets
from distrain.distribution.collectives import device_all_reduce

NUM_STEPS = 20


@contextlib.contextmanager
def small_buckets() -> Iterator[None]:
    """Let every distribution make buckets of 64 bytes."""
    modules = (multi_process, device_all_reduce)
    for module in modules:
        module.buckets = partial(buckets, limit=64)
    try:
        yield
    finally:
        for module in modules:
            module.buckets = buckets


def digests_of_sums(distribution: Distribution) -> list[str]:
    """The distinct digests of one sum of six buckets in many steps, in which tensors are ready in any order."""
    rng = np.random.default_rng(distribution.group.rank)
    values = [(rng.normal(size=4000) * 10.0 ** rng.integers(-3, 4, 4000)).astype(np.float32) for _ in range(6)]
    delays = np.random.default_rng(100 + distribution.group.rank)

    def slowly(value: np.ndarray) -> np.ndarray:
        time.sleep(delays.uniform(0, 0.004))
        return value

    def replica_step(batches: Sequence[Any]) -> list[Any]:
        with tf.init_scope():
            constants = [tf.constant(value) for value in values]
        late = [tf.py_function(slowly, [value], tf.float32) for value in constants]
        gradients = [tf.ensure_shape(tensor, value.shape) for tensor, value in zip(late, values, strict=True)]
        return distribution.sum(gradients, [])[0]

    step = distribution.compile(replica_step, [tf.TensorSpec((), tf.float32)])
    found = set()
    for _ in range(NUM_STEPS):
        outputs = step([[np.float32(0)]])
        found.add(hashlib.sha256(b"".join(output.numpy().tobytes() for output in outputs)).hexdigest())
    return sorted(found)
