"""A check at the start: whether a model's loss and metrics add up over shares of a batch.

Decides: which losses and metrics distrain refuses to divide, and which metrics count per step. Never: trains.

    task = check_shares(task, probe_of(examples, seed=0, shuffle=True))

A few examples are evaluated as one batch and as several shares. Keras' own losses and metrics are sums or means, and
add up. A loss that compares examples with each other does not, nor does a metric whose state is a maximum.

Data may be sorted by label, and may have more classes than the probe has examples. So the probe is taken from the first
step of the run, and some examples get the label of another one. Else a loss over pairs of a class would be zero.

Runs of the shipped models leave the check out: a unit test makes it for each of their losses and metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from distrain.batch import Batch, current_batch
from distrain.data.batches import epoch_batches
from distrain.data.examples import Examples
from distrain.data.plan import EpochPlan
from distrain.data.shuffle import epoch_order
from distrain.data.split import chosen_examples
from distrain.distribution.single import SingleDevice
from distrain.errors import ConfigurationError
from distrain.keras_backend.private_names import mask_of, masked
from distrain.training.steps.metrics import MetricStates, leaf_metrics
from distrain.training.steps.step import Step, make_evaluate_step
from distrain.training.steps.task import TrainableModel, batch_specs

NUM_EXAMPLES = 8
MIN_EXAMPLES = 4
SHARE_SIZE = 5  # two uneven shares
LABELS_OF = (0, 1, 0, 3, 4, 1, 6, 7)  # whose label each example of the probe gets: a pair in a share, a pair across
RELATIVE_TOLERANCE = 1e-3  # rounding is far smaller, and a loss that does not divide differs far more


Sums = Callable[[Sequence[Batch]], list[np.ndarray]]  # of loss, count and metrics' states over shares of a step


def probe_of(examples: Examples, *, seed: int, shuffle: bool) -> Examples:
    """Return the first examples of a run's first epoch, which its first step reads too."""
    order = examples.order(seed=seed, epoch=0, shuffle=shuffle)
    return chosen_examples(examples, order.examples(range(min(NUM_EXAMPLES, examples.num_examples))))


def check_shares(task: TrainableModel, probe: Examples) -> TrainableModel:
    """Return the task; metrics that count each step as one are marked as such.

    Args:
        task: the model.
        probe: a few examples; see `probe_of`.

    Raises:
        ConfigurationError: the loss or a metric does not add up over shares.
    """
    num_examples = probe.num_examples
    if num_examples < MIN_EXAMPLES:
        return task
    share_size = min(SHARE_SIZE, num_examples - 1)
    whole = _relabelled(shares_of(probe, num_examples, num_examples))
    shares = _relabelled(shares_of(probe, num_examples, share_size))
    sums = _make_sums(task, whole[0])
    expected, found = sums(whole), sums(shares)
    if not _close(found[0], expected[0]):
        raise ConfigurationError(
            f"The loss of {num_examples} examples is {expected[0] / expected[1]:.6g}, but their shares of {share_size} "
            f"and {num_examples - share_size} examples give {found[0] / found[1]:.6g}: it does not divide among "
            "replicas. Return one loss per example, as keras.losses.Loss.call does, and give add_loss a mean over the "
            "examples; a model whose loss compares examples with each other can train by model.fit on one device."
        )
    metrics = leaf_metrics(task.model)
    odd = [metric for metric in metrics if not _agree(task, metric, expected, found)]
    if odd:
        task = replace(task, metrics=MetricStates(task.model, per_step=odd))
        sums = _make_sums(task, whole[0])
        expected, found = sums(whole), sums(shares)
        odd = [metric for metric in odd if not _agree(task, metric, expected, found)]
    odd += _remembering(task, shares, sums)
    if odd:
        raise ConfigurationError(
            f"The state of the metric {odd[0].name!r} does not add up over the examples, so it cannot be exact on "
            "several replicas. Use a metric whose state is a sum over the examples, as keras.metrics.Mean has it."
        )
    return task


def _remembering(task: TrainableModel, shares: Sequence[Batch], sums: Sums) -> list[Any]:
    """Return the metrics whose update depends on earlier updates; no metric of Keras does."""
    own = [metric for metric in leaf_metrics(task.model) if not type(metric).__module__.startswith("keras.")]
    if not own:
        return []
    alone = [share._replace(global_rows=share.num_rows) for share in shares]
    first, second = (sums([share]) for share in alone)
    later = _make_sums(replace(task, metrics=task.metrics.after(first[2:])), shares[0])(alone[1:])
    return [metric for metric in own if not _agree(task, metric, second, later)]


def shares_of(examples: Examples, num_examples: int, batch_size: int) -> list[Batch]:
    """Return the first examples as the shares of one step."""
    plan = EpochPlan(num_examples, -(-num_examples // batch_size), batch_size)
    order = epoch_order(num_examples, seed=0, epoch=0, shuffle=False)
    return next(epoch_batches(examples, plan, order, replicas=range(plan.num_replicas)))


def _relabelled(shares: Sequence[Batch]) -> list[Batch]:
    """Return the shares with labels in the order of `LABELS_OF`."""
    labels = tf.nest.map_structure(lambda *parts: np.concatenate(parts), *(share.labels for share in shares))
    labels_of, stops = np.array(LABELS_OF), np.cumsum([share.num_rows for share in shares])
    return [
        share._replace(labels=tf.nest.map_structure(lambda all_labels, rows=rows: all_labels[rows], labels))
        for share, rows in zip(shares, np.split(labels_of[: stops[-1]], stops[:-1]), strict=True)
    ]


def _make_sums(task: TrainableModel, sample: Batch) -> Sums:
    """Return a function that sums over the shares of a step.

    All shares use the graph of one share, as to trace and optimize a graph takes most of a short run's start. A loss
    that divides by a number of all shares needs them in one graph.
    """

    @cache
    def step_of(num_shares: int) -> Step:
        return make_evaluate_step(
            task, SingleDevice(), batch_specs(sample), accumulation_steps=num_shares, of_outputs=_varied
        )

    def sums(shares: Sequence[Batch]) -> list[np.ndarray]:
        groups = [shares] if task.has_divisors else [[share] for share in shares]
        of_groups = [step_of(len(group))(group).sums for group in groups]
        return [np.sum(parts, axis=0) for parts in zip(*of_groups, strict=True)]

    return sums


def _agree(task: TrainableModel, metric: Any, expected: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> bool:
    pairs = zip(task.metrics.of(metric, expected[2:]), task.metrics.of(metric, found[2:]), strict=True)
    return all(_close(of_shares, of_whole) for of_whole, of_shares in pairs)


def _close(found: np.ndarray, expected: np.ndarray) -> bool:
    return bool(np.allclose(found, expected, rtol=RELATIVE_TOLERANCE, atol=1e-6, equal_nan=True))


def _varied(outputs: Any) -> Any:
    """Change the outputs of a share by position, as a new model may give nearly the same outputs for all examples."""
    batch = current_batch()
    assert batch is not None
    first_position = tf.cast(batch.first_position, tf.float64)

    def vary(output: Any) -> Any:
        if not output.dtype.is_floating or output.shape.rank == 0:
            return output
        position = first_position + tf.range(tf.shape(output)[0], dtype=tf.float64)
        noise = tf.reshape(0.5 + 0.5 * tf.sin(12.9898 * position + 1), [-1, *[1] * (output.shape.rank - 1)])
        noise = tf.cast(noise, output.dtype)
        return masked(output * (0.3 + 0.3 * noise) + 0.35 * noise, mask_of(output))  # probabilities stay below 1

    return keras.tree.map_structure(vary, outputs)
