"""`distrain predict`: classes of new texts, from a run directory alone.

Decides: how texts become answers. Never: trains, or reads the data that the run was trained on.

    for line in predict_lines(Path("runs/1"), ["a text"]):
        print(line)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from distrain.data.batches import epoch_batches
from distrain.data.sources import rows_examples
from distrain.errors import CheckpointError
from distrain.file_names import VECTORIZER_NAME
from distrain.inference.answers import answers
from distrain.inference.finished_run import open_on_device
from distrain.runs.manifest import check_files
from distrain.text.vectorizers.load_vectorizer import load_vectorizer
from distrain.training.feed import evaluation_plan
from distrain.training.figures.class_counts import gives_logits

MAX_TEXTS = 1024  # texts per batch: bounds the memory of a long input


def predict_lines(
    run: Path,
    texts: Iterable[str],
    *,
    checkpoint: str | None = None,
    trust: bool = False,
    devices: str | None = None,
) -> Iterator[str]:
    """Yield one JSON object per text, as `answers` describes it.

    Args:
        run: the run directory.
        texts: the texts.
        checkpoint: name or path of a checkpoint to use in place of the best.
        trust: whether code that the run names may run.
        devices: "cpu", or "gpu:N" for one GPU; default: the first GPU, and the CPU if there is no GPU.

    Raises:
        CheckpointError: the run cannot be used.
        ConfigurationError: the model needs code and the run is not trusted, or a GPU is not usable.
        DataError: the run's vectorizer is damaged.
    """
    finished = open_on_device(run, checkpoint=checkpoint, trust=trust, devices=devices)
    import tensorflow as tf

    from distrain.training.steps.task import model_inputs

    metadata = finished.metadata
    if not (run / VECTORIZER_NAME).is_dir():
        raise CheckpointError(
            f"{run} has no {VECTORIZER_NAME} folder, which makes numbers of text. Copy the whole run."
        )
    check_files(run, VECTORIZER_NAME)
    vectorizer = load_vectorizer(run / VECTORIZER_NAME)
    layout = finished.row_layout
    model = None
    remaining = iter(texts)
    while block := list(islice(remaining, MAX_TEXTS)):
        rows = vectorizer.transform(block)
        examples = rows_examples(rows, kind=metadata.kind, num_features=metadata.num_features, **layout)
        if model is None:
            model = finished.load_network(examples)
            is_logits = gives_logits(model)
        plan, order = evaluation_plan(examples, 1, len(block))
        ((batch,),) = epoch_batches(examples, plan, order, replicas=range(1))
        features = tf.nest.map_structure(tf.constant, batch.features)
        outputs = model(model_inputs(model, features, examples.num_columns), training=False)
        for answer in answers(outputs.numpy(), metadata, is_logits=is_logits):
            yield json.dumps(answer, ensure_ascii=False)
