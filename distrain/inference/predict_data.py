"""`distrain predict --data`: outputs of a finished run's model for the examples of some data.

Decides: which columns a prediction has. Never: trains, or writes a file itself.

    predict_data(Path("runs/1"), Path("data"), out=Path("predictions.parquet"))

Columns of a row: `example`, the number of the example, and `prediction`, the output of the model. Several outputs have
a column each, `prediction_NAME`. If the only output is a score for each class, `label` and `probability` name the best.
A model of prepared text has the columns of its answers in their place.
Of rows with any number of labels, `prediction` holds the probability of each label.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from distrain.batch import Batch
from distrain.data.batches import epoch_batches, sample_batch
from distrain.data.nests import is_nest, leaves
from distrain.data.prefetch import prefetched
from distrain.errors import ConfigurationError
from distrain.inference.answers import answers
from distrain.inference.finished_run import open_on_device
from distrain.inference.prediction_files import check_prediction_file, json_lines, prediction_writer
from distrain.inference.probabilities import probabilities
from distrain.inference.run_data import TO_PREDICT, RunPart, open_part
from distrain.training.feed import evaluation_plan
from distrain.training.figures.class_counts import gives_logits
from distrain.training.jobs.job import TextMetadata

Columns = dict[str, np.ndarray]
Interpret = Callable[[Columns], Columns]  # outputs -> what they mean


def predict_data(
    run: Path,
    data: Path,
    *,
    out: Path | None = None,
    part: str | None = None,
    checkpoint: str | None = None,
    trust: bool = False,
    devices: str | None = None,
) -> Iterator[str]:
    """Predict the examples of a part, in the order of the data.

    Args:
        run: the run directory.
        data: the prepared text that the run was trained on, or a folder of arrays, or a function as module:function.
        out: a file that ends in .parquet or .jsonl; None yields each row as a JSON object.
        part: "test", "validation" or "train"; default: the first of these that the data has.
        checkpoint: name or path of a checkpoint to use in place of the best.
        trust: whether code that the run names may run.
        devices: "cpu", or "gpu:N" for one GPU; default: the first GPU, and the CPU if there is no GPU.

    Yields:
        Without `out` a JSON object for each example, else a sentence about the file.

    Raises:
        CheckpointError: the run cannot be used.
        ConfigurationError: the file cannot be written, or as `evaluate_run`.
        DataError: the data is missing or damaged.
    """
    if out is not None:
        check_prediction_file(out)
    finished = open_on_device(run, checkpoint=checkpoint, trust=trust, devices=devices)
    opened = open_part(finished, data, TO_PREDICT if part is None else (part,))
    model = finished.load_network(opened.examples)
    is_logits = gives_logits(model)
    if finished.is_of_text:
        interpret = partial(_text_columns, finished.metadata, is_logits)
    else:
        interpret = partial(_class_columns, opened.classes, is_logits, _scores_classes(model))
    rows = _predicted(model, opened, finished.config.replica_batch_size(1), interpret)
    if out is None:
        for columns in rows:
            yield from json_lines(columns)
        return
    with prediction_writer(out) as write:
        for columns in rows:
            write(columns)
    yield f"{opened.examples.num_examples:,} predictions of the {opened.name} part in {out}"


def _predicted(model: Any, part: RunPart, batch_size: int, interpret: Interpret) -> Iterator[Columns]:
    """Yield the columns of each batch."""
    import tensorflow as tf

    compute = _compiled(model, sample_batch(part.examples), part.examples.num_columns)
    plan, order = evaluation_plan(part.examples, 1, batch_size)
    with prefetched(epoch_batches(part.examples, plan, order, replicas=range(1))) as steps:
        for (batch,) in steps:
            outputs = _named(model, tf.nest.map_structure(_as_array, compute(batch.features)), int(batch.num_rows))
            numbers = np.arange(batch.first_position, batch.first_position + batch.num_rows)
            yield {"example": numbers, **interpret(outputs), **outputs}


def _compiled(model: Any, sample: Batch, num_columns: Any) -> Callable[[Any], Any]:
    import tensorflow as tf

    from distrain.training.steps.task import batch_specs, model_inputs

    return tf.function(
        lambda features: model(model_inputs(model, features, num_columns), training=False),
        input_signature=[batch_specs(sample).features],
        autograph=False,  # as in training
    )


def _as_array(tensor: Any) -> np.ndarray:
    array = tensor.numpy()
    return array.astype(np.float32) if array.dtype.kind not in "biuf" or array.dtype == np.float16 else array


def _named(model: Any, outputs: Any, num_rows: int) -> Columns:
    """Return each output under the name of its column."""
    if not is_nest(outputs):
        named = {"prediction": outputs}
    else:
        names = getattr(model, "output_names", None) or []
        found = leaves(outputs)
        is_list = not isinstance(outputs, dict) and len(names) == len(found)
        named = {f"prediction_{names[i] if is_list else name}": value for i, (name, value) in enumerate(found)}
    for name, value in named.items():
        if not value.ndim or len(value) != num_rows:
            raise ConfigurationError(
                f"The model's output {name!r} has shape {value.shape} for {num_rows} examples; it must have a row each."
            )
    # An output of one number is a number, as a label is.
    return {name: value[:, 0] if value.ndim == 2 and value.shape[1] == 1 else value for name, value in named.items()}


def _text_columns(metadata: TextMetadata, is_logits: bool, outputs: Columns) -> Columns:
    """Return what `distrain predict` answers for a text."""
    found = list(answers(outputs["prediction"], metadata, is_logits=is_logits))
    return {name: np.fromiter((answer[name] for answer in found), object, len(found)) for name in found[0]}


def _scores_classes(model: Any) -> bool:
    """Whether the only loss takes an output for each class."""
    import keras

    losses = [keras.losses.get(loss) for loss in keras.tree.flatten(model.loss) if loss is not None]
    of_classes = (keras.losses.sparse_categorical_crossentropy, keras.losses.categorical_crossentropy)
    return len(losses) == 1 and getattr(losses[0], "fn", losses[0]) in of_classes


def _class_columns(classes: Sequence[str], is_logits: bool, scores_classes: bool, outputs: Columns) -> Columns:
    """Return the best class and its probability, where the only output is a score for each class."""
    scores = outputs.get("prediction")
    if scores is None or scores.ndim > 2:
        return {}
    width = scores.shape[1] if scores.ndim == 2 else 1
    is_named = len(classes) >= 2 and (width == len(classes) or (width == 1 and len(classes) == 2))
    if not is_named and not (scores_classes and width > 1):
        return {}
    found = probabilities(scores, is_logits=is_logits)
    best = found.argmax(axis=1)
    labels = np.array(classes, object)[best] if is_named else best
    return {"label": labels, "probability": found[np.arange(len(best)), best]}
