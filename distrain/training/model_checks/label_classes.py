"""The classes that a model's labels may have, where a loss takes class numbers.

Decides: which losses of a compiled model read which labels as class numbers. Never: reads or checks labels.

    job = with_checked_labels(job, task, sample)       # reading a wrong label then is a DataError
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import keras
import tensorflow as tf

from distrain.batch import Batch
from distrain.data.labels.label_range import LabelRange, with_label_ranges
from distrain.data.nests import leaves
from distrain.keras_backend.private_names import replace_losses
from distrain.training.jobs.job import TrainingJob
from distrain.training.steps.losses import ShareLoss
from distrain.training.steps.task import TrainableModel, compute_loss, given, model_inputs


def with_checked_labels(job: TrainingJob, task: TrainableModel, sample: Batch) -> TrainingJob:
    """Return the job with examples whose labels are checked against the model's classes as they are read."""
    ranges = label_ranges(task, sample)
    if not ranges:
        return job
    validation = None if job.validation is None else with_label_ranges(job.validation, ranges)
    return replace(job, train=with_label_ranges(job.train, ranges), validation=validation)


def label_ranges(task: TrainableModel, sample: Batch) -> dict[str, LabelRange]:
    """Return the range of each label that sparse categorical cross-entropy reads, by the name of the label."""
    tensors = tf.nest.map_structure(tf.constant, sample)
    model, inputs = task.model, model_inputs(task.model, tensors.features, task.num_columns)
    ranges: dict[int, LabelRange] = {}

    class Noting(keras.losses.Loss):
        def __init__(self, loss: Any) -> None:
            super().__init__(name=loss.name)
            self.loss = loss

        def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            own = self.loss.loss if isinstance(self.loss, ShareLoss) else self.loss
            if _takes_class_numbers(own):
                ignored = own.get_config().get("ignore_class")
                allowed = frozenset() if ignored is None else frozenset({int(ignored)})
                ranges[id(y_true)] = LabelRange(int(y_pred.shape[-1]), allowed)
            return self.loss(y_true, y_pred, sample_weight)

    labels, weights = given(tensors.labels), given(tensors.weights)
    replace_losses(model, Noting)
    try:
        with task.metrics.scope():  # a layer or a loss may update metrics, which must stay in their initial states
            compute_loss(model, inputs, labels, model(inputs, training=False), weights, training=False)
    finally:
        replace_losses(model, lambda noting: noting.loss)
    return {name: ranges[id(label)] for name, label in leaves(labels) if id(label) in ranges}


def _takes_class_numbers(loss: Any) -> bool:
    """Whether the loss is Keras' sparse categorical cross-entropy, by name, as a function, or as an object."""
    unchanged = getattr(type(loss), "call", None) is keras.losses.SparseCategoricalCrossentropy.call
    return unchanged and getattr(loss, "fn", None) is keras.losses.sparse_categorical_crossentropy
