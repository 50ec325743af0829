"""A finished run at work: `distrain evaluate` and `distrain predict`.

Decides: how the best checkpoint becomes a model again. Never: trains.

    figures = evaluate_run(Path("runs/1"), Path("data"))
    for line in predict_lines(Path("runs/1"), ["a text"]):
        print(line)

The model is built from the run's own settings and its arrays are loaded; nothing that is read can run code. `predict`
needs the run directory alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from distrain.config import TrainConfig
from distrain.data.batches import epoch_batches, sample_batch
from distrain.data.dataset_index import open_dataset
from distrain.data.examples import Examples
from distrain.data.plan import EpochPlan
from distrain.data.prefetch import prefetched
from distrain.data.shuffle import epoch_order
from distrain.data.sources import part_examples, rows_examples
from distrain.errors import CheckpointError, DataError
from distrain.keras_backend import require_tensorflow
from distrain.runs.checkpoint import Checkpoint
from distrain.runs.directory import VECTORIZER_NAME, config_of, open_finished
from distrain.text.vectorizers.load_vectorizer import load_vectorizer
from distrain.training.job import TextMetadata, model_builder, row_layout
from distrain.training.loop import evaluate_all

TEXTS_AT_ONCE = 1024  # texts vectorized and predicted together


def evaluate_run(run: Path, data: Path) -> dict[str, Any]:
    """Metrics of a run's best checkpoint on the test part of its data.

    Returns:
        `loss` and the metrics; `examples`: how many were judged; `step` of the checkpoint.

    Raises:
        CheckpointError: the run cannot be used.
        DataError: the data is missing, damaged, or not what the run was trained on.
    """
    require_tensorflow()
    from distrain.training.task import batch_specs

    settings, checkpoint = open_finished(run)
    dataset = open_dataset(data)
    if settings.get("data_digest") != dataset.digest:
        raise DataError(
            f"{data} is not the data that {run} was trained on: its columns may mean something else. Give the folder "
            "of that run, or prepare and train again."
        )
    config = config_of(settings)
    examples = part_examples(dataset.parts["test"], **row_layout(config, _facts(run, settings)))
    task, steps = _task(settings, checkpoint, examples)
    plan, order = _in_data_order(examples, config.replica_batch_size(1))
    batches = prefetched(epoch_batches(examples, plan, order, replicas=range(1)))
    step = steps.make_evaluate_step(task, _single(), batch_specs(sample_batch(examples)))
    figures = evaluate_all(batches, lambda fed: step(fed).sums, lambda sums: steps.figures(sums, task.metrics))
    assert figures is not None
    return {**figures, "examples": examples.num_examples, "step": checkpoint.state["global_step"]}


def predict_lines(run: Path, texts: Iterable[str]) -> Iterator[str]:
    """One JSON object per text: `label` (class name) and `probability`.

    Raises:
        CheckpointError: the run cannot be used.
        DataError: its vectorizer is damaged.
    """
    require_tensorflow()
    import tensorflow as tf

    from distrain.training.step import model_inputs

    settings, checkpoint = open_finished(run)
    facts = _facts(run, settings)
    if not (run / VECTORIZER_NAME).is_dir():
        raise CheckpointError(
            f"{run} has no {VECTORIZER_NAME} folder, which makes numbers of text. Copy the whole run."
        )
    vectorizer = load_vectorizer(run / VECTORIZER_NAME)
    layout = row_layout(config_of(settings), facts)
    task = None
    waiting = iter(texts)
    while block := list(islice(waiting, TEXTS_AT_ONCE)):
        rows = vectorizer.transform(block)
        examples = rows_examples(rows, kind=facts.kind, num_features=facts.num_features, **layout)
        if task is None:
            task, _ = _task(settings, checkpoint, examples)
        plan, order = _in_data_order(examples, len(block))
        ((batch,),) = epoch_batches(examples, plan, order, replicas=range(1))
        features = tf.nest.map_structure(tf.constant, batch.features)
        outputs = task.model(model_inputs(task.model, features, task.num_columns), training=False).numpy()
        if outputs.shape[1] == 1:
            outputs = np.concatenate([1 - outputs, outputs], axis=1)
        for row in outputs:
            best = int(row.argmax())
            result = {"label": facts.classes[best], "probability": round(float(row[best]), 6)}
            yield json.dumps(result, ensure_ascii=False)


def _task(settings: dict[str, Any], checkpoint: Checkpoint, examples: Examples) -> tuple[Any, Any]:
    from distrain.models.state import ModelState
    from distrain.training import step as steps
    from distrain.training.task import make_task

    config: TrainConfig = config_of(settings)
    build = model_builder(config, _facts(config.run, settings))
    task = make_task(build, sample_batch(examples), scope=_single().scope(), num_columns=examples.num_columns)
    ModelState(task.model).restore(checkpoint)
    return task, steps


def _facts(run: Path, settings: dict[str, Any]) -> TextMetadata:
    try:
        facts = settings["text"]
        classes = tuple(str(name) for name in facts["classes"])
        return TextMetadata(facts["kind"], int(facts["num_features"]), facts["max_length"], classes)
    except (KeyError, TypeError, ValueError):
        raise CheckpointError(f"{run} was not trained on prepared text, which this command needs.") from None


def _single() -> Any:
    from distrain.distribution.single import SingleDevice

    return SingleDevice()


def _in_data_order(examples: Examples, batch_size: int) -> tuple[EpochPlan, Any]:
    plan = EpochPlan(examples.num_examples, 1, batch_size)
    return plan, epoch_order(plan.num_examples, seed=0, epoch=0, shuffle=False)
