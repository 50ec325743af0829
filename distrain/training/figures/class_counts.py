"""Counts of right and wrong predictions by class, over one pass through examples.

Decides: which class an output predicts, and how examples are counted. Never: how counts become figures
(`class_figures.py`).

    figures = validation_figures(setup, step_flags)          # on all ranks, at the end of a run
    step = make_count_step(task, replicas, specs, counting)
    counts = step(batches).sums[0]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from distrain.batch import Batch
from distrain.training.feed import open_evaluation
from distrain.training.figures.class_figures import MAX_CONFUSION_CLASSES, class_figures, label_figures
from distrain.training.figures.evaluation import evaluate_all
from distrain.training.jobs.job import class_names
from distrain.training.loop.step_flags import StepFlags
from distrain.training.run_setup import RunSetup

if TYPE_CHECKING:
    from distrain.training.steps.step import Replicas, Step
    from distrain.training.steps.task import TrainableModel


def validation_figures(setup: RunSetup, step_flags: StepFlags) -> dict[str, Any] | None:
    """Return the figures of each class on the validation data, the same on all ranks.

    Returns:
        See `class_figures`; None if the data has no names of classes, if the model predicts no class, or if a request
        to stop interrupted.
    """
    names = class_names(setup.job.metadata)
    if setup.job.validation is None:
        return None
    counting = choose_counting(setup.trainable, setup.validation_sample, len(names))
    if counting is None:
        return None
    from distrain.training.steps.task import batch_specs

    accumulation_steps = setup.config.accumulation_steps
    specs = batch_specs(setup.validation_sample)
    step = make_count_step(setup.trainable, setup.distribution, specs, counting, accumulation_steps=accumulation_steps)
    _, batches = open_evaluation(setup, step_flags, setup.job.validation)
    return evaluate_all(
        batches,
        step_flags.around(step),
        lambda sums: counting.figures(sums[0], names),
        interrupted=step_flags.stop_is_agreed,
    )


@dataclass(frozen=True)
class Counting:
    """How predictions are counted.

    Attributes:
        num_classes: number of classes or labels.
        figures: counts and names -> figures.
        counts: the function that counts a batch.
    """

    num_classes: int
    figures: Callable[[np.ndarray, Sequence[str]], dict[str, Any]]
    counts: Callable[[TrainableModel, Batch, int], Any]


def choose_counting(task: TrainableModel, sample: Batch, num_classes: int) -> Counting | None:
    """Return how the model's predictions are counted, or None if they are neither classes nor sets of labels.

    Classes need one output each, or one output for two of them, and labels that are class numbers. Sets of labels need
    one output for each label, and labels that are 0 or 1 for each.

    Args:
        task: the model.
        sample: a batch of one or two examples.
        num_classes: number of classes.
    """
    import tensorflow as tf

    labels = sample.labels
    if not isinstance(labels, np.ndarray):
        return None
    are_sets = labels.dtype == np.uint8 and labels.shape[1:] == (num_classes,)
    if not are_sets and (num_classes < 2 or labels.size != len(labels) or labels.dtype.kind != "i"):
        return None
    outputs = _outputs(task, tf.nest.map_structure(tf.constant, sample))
    if tf.nest.is_nested(outputs) or len(outputs) != len(labels) or len(outputs.shape) > 2:
        return None
    width = int(tf.size(outputs)) // len(labels)
    if are_sets:
        return Counting(num_classes, label_figures, _label_counts) if width == num_classes else None
    if width == num_classes or (width == 1 and num_classes == 2):
        return Counting(num_classes, class_figures, _class_counts)
    return None


def make_count_step(
    task: TrainableModel, replicas: Replicas, specs: Any, counting: Counting, *, accumulation_steps: int = 1
) -> Step:
    """Compile a step whose only sum is the counts that `counting.figures` takes.

    Args:
        task: the model.
        replicas: the distribution that sums.
        specs: a `Batch` of `tf.TensorSpec`.
        counting: see `choose_counting`.
        accumulation_steps: microbatches of each replica in a step.
    """
    import tensorflow as tf

    from distrain.training.steps.outcome import outcomes, summed_flags

    def replica_step(batches: Sequence[Batch]) -> list[Any]:
        counts = tf.add_n([counting.counts(task, batch, counting.num_classes) for batch in batches])
        return replicas.sum([], [counts, summed_flags(replicas, batches, tf.zeros(()))])[1]

    num_batches = accumulation_steps * replicas.replicas_per_device
    count = outcomes(replicas, replica_step, specs, num_batches=num_batches)
    return lambda batches: next(count([batches]))


def _label_counts(task: TrainableModel, batch: Batch, num_labels: int) -> Any:
    """Return float32 counts of the labels of one batch, which are exact below 2**24 examples."""
    import tensorflow as tf

    counted = tf.cast(tf.range(tf.shape(batch.labels)[0]) < batch.num_rows, tf.float32)[:, None]
    labels = counted * tf.cast(batch.labels, tf.float32)
    predicted = counted * tf.cast(_outputs(task, batch) > _middle(task), tf.float32)
    return tf.stack([tf.reduce_sum(values, axis=0) for values in (labels * predicted, predicted, labels)])


def _class_counts(task: TrainableModel, batch: Batch, num_classes: int) -> Any:
    """Return float32 counts of one batch, which are exact below 2**24 examples."""
    import tensorflow as tf

    labels = tf.cast(tf.reshape(batch.labels, [-1]), tf.int64)
    predicted = _predicted(task, _outputs(task, batch), num_classes)
    counted = tf.cast(tf.range(tf.size(labels)) < batch.num_rows, tf.float32)
    if num_classes <= MAX_CONFUSION_CLASSES:
        return tf.math.confusion_matrix(labels, predicted, num_classes, weights=counted, dtype=tf.float32)
    right = counted * tf.cast(labels == predicted, tf.float32)
    pairs = ((right, labels), (counted, predicted), (counted, labels))
    return tf.stack([tf.math.unsorted_segment_sum(values, classes, num_classes) for values, classes in pairs])


def _predicted(task: TrainableModel, outputs: Any, num_classes: int) -> Any:
    """Return the number of each predicted class: the largest output, or a single output against its middle."""
    import tensorflow as tf

    if len(outputs.shape) == 2 and outputs.shape[1] == num_classes:
        return tf.argmax(outputs, axis=1)
    return tf.cast(tf.reshape(outputs, [-1]) > _middle(task), tf.int64)


def _middle(task: TrainableModel) -> float:
    """Return the output at which a label, or the second of two classes, is as probable as not."""
    return 0.0 if gives_logits(task.model) else 0.5


def gives_logits(model: Any) -> bool:
    """Return whether the model's only loss takes logits, so that outputs are no probabilities yet."""
    import keras

    losses = [loss for loss in keras.tree.flatten(model.loss) if loss is not None]
    return len(losses) == 1 and bool(getattr(losses[0], "from_logits", False))


def _outputs(task: TrainableModel, batch: Batch) -> Any:
    from distrain.training.steps.task import model_inputs

    return task.model(model_inputs(task.model, batch.features, task.num_columns), training=False)
