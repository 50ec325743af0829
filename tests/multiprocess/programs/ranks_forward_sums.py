"""Sums inside the forward pass, on parallel branches of a step: value and gradient, many steps.

arrays = forward_sums(distribution)                       # "totals", "gradients", ... of all steps
inputs(replica=1, step=0)                                 # what the judge computes with in NumPy
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from distrain.distribution.base import Distribution

CALLS, STEPS_PER_CALL = 30, 2


def inputs(*, replica: int, step: int) -> list[np.ndarray]:
    """Arrays of a replica: float64 `a` [4], float32 `b` [3], a weight; small whole numbers, whose sums are exact."""
    rng = np.random.default_rng([7, replica, step])
    a, b = rng.integers(-3, 4, 4), rng.integers(-3, 4, 3)
    return [a.astype(np.float64), b.astype(np.float32), np.float64(replica + 1)]


def forward_sums(distribution: Distribution) -> dict[str, np.ndarray]:
    """Return the totals of each branch, and the sums over replicas of (number of the replica) * gradient."""

    def one_step(batch: Sequence[Any]) -> list[Any]:
        a, b, weight = batch
        with tf.GradientTape() as tape:
            tape.watch([a, b])
            (cubes,) = distribution.forward_sum([b * b * b])  # a branch that waits for nothing
            squares, weights = distribution.forward_sum([a * a, weight])
            own = tf.reduce_sum(squares * a)
            (joint,) = distribution.forward_sum([own])  # a sum of what was summed
            loss = own + weight * joint * joint + tf.cast(tf.reduce_sum(cubes * b), tf.float64)
        gradients = tape.gradient(loss, [a, b])
        weighted = [tf.cast(weight, gradient.dtype) * gradient for gradient in gradients]
        (of_a, of_b), _ = distribution.sum(weighted, [loss])
        return [cubes, squares, weights, joint, of_a, of_b]

    def replica_step(batches: Sequence[Any]) -> list[Any]:
        return [output for batch in batches for output in one_step(batch)]

    specs = [tf.TensorSpec(array.shape, array.dtype) for array in inputs(replica=0, step=0)]
    step = distribution.compile(replica_step, specs, num_batches=STEPS_PER_CALL)
    outputs: list[np.ndarray] = []
    for first in range(0, CALLS * STEPS_PER_CALL, STEPS_PER_CALL):
        numbers = range(first, first + STEPS_PER_CALL)
        given = [inputs(replica=r, step=number) for r in distribution.local_replicas for number in numbers]
        outputs += [output.numpy() for output in step(given)]
    names = ("cubes", "squares", "weights", "joint", "gradient of a", "gradient of b")
    return {name: np.stack(outputs[index :: len(names)]) for index, name in enumerate(names)}


def expected_forward_sums(num_replicas: int) -> dict[str, np.ndarray]:
    """Return the same by NumPy: the loss over all replicas is sum(A * S) + W * sum(A * S)^2 + sum(B * T)."""
    steps = []
    for step in range(CALLS * STEPS_PER_CALL):
        of_replicas = [inputs(replica=replica, step=step) for replica in range(num_replicas)]
        a, b, weights = (np.stack(arrays) for arrays in zip(*of_replicas, strict=True))
        squares, cubes = (a**2).sum(0), (b**3).sum(0)
        joint = (squares * a.sum(0)).sum()
        by_a = (1 + 2 * weights.sum() * joint) * (2 * a * a.sum(0) + squares)
        by_b = 3 * b**2 * b.sum(0) + cubes
        own = np.arange(1, num_replicas + 1, dtype=np.float32)[:, np.newaxis]
        steps.append([cubes, squares, weights.sum(), joint, (own * by_a).sum(0), (own * by_b).sum(0)])
    names = ("cubes", "squares", "weights", "joint", "gradient of a", "gradient of b")
    return {name: np.stack(values) for name, values in zip(names, zip(*steps, strict=True), strict=True)}
