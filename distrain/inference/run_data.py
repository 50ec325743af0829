"""The part of some data that a finished run evaluates or predicts.

Decides: which part is meant, and whether data belongs to a run. Never: loads a model, or computes an output.

    part = open_part(finished, Path("data"), TO_EVALUATE)
    part.examples, part.classes

Prepared text must be the text of the run, because the columns of other text mean something else. Arrays and the data of
a function may be new.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distrain.data.array_folders.folder import is_array_folder, open_array_folder
from distrain.data.examples import Examples
from distrain.data.prepared.dataset_index import open_dataset
from distrain.data.sources import part_examples
from distrain.errors import ConfigurationError, DataError
from distrain.inference.finished_run import FinishedRun
from distrain.training.jobs.given_data import class_names_of
from distrain.training.jobs.job import class_names
from distrain.training.jobs.named_data import load_named_data, names_function

_LOG = logging.getLogger(__name__)

TO_EVALUATE = ("test", "validation")  # in the order of preference
TO_PREDICT = (*TO_EVALUATE, "train")


@dataclass(frozen=True)
class RunPart:
    """A part of some data.

    Attributes:
        name: "train", "validation" or "test".
        examples: the examples.
        classes: names of the classes or labels by number; empty if nobody named them.
    """

    name: str
    examples: Examples
    classes: tuple[str, ...] = ()


def open_part(run: FinishedRun, data: Path, wanted: Sequence[str], *, compares: bool = False) -> RunPart:
    """Open the first part of `wanted` that the data has.

    Args:
        run: the run whose model sees the examples.
        data: prepared text, a folder of arrays, or a named function.
        wanted: names of parts, in the order of preference.
        compares: whether a warning is due if the run was trained on other arrays.

    Raises:
        ConfigurationError: the data has none of these parts, or the function fails.
        DataError: the data is missing or damaged, or is not the text of the run.
    """
    is_function = names_function(data)
    if is_function or is_array_folder(data):
        if run.is_of_text:
            raise DataError(f"{run.path} was trained on prepared text, which {data} is not. Give that run's folder.")
        return _named_part(run, data, wanted, compares) if is_function else _array_part(run, data, wanted, compares)
    dataset = open_dataset(data)
    if run.settings.get("data_digest") != dataset.digest:
        raise DataError(
            f"{data} is not the data that {run.path} was trained on: its columns may mean something else. Give the "
            "folder of that run, or prepare and train again."
        )
    part = _first(data, wanted, list(dataset.parts))
    examples = part_examples(dataset.parts[part], **run.row_layout)
    return RunPart(part, examples, dataset.classes)


def _named_part(run: FinishedRun, data: Path, wanted: Sequence[str], compares: bool) -> RunPart:
    named = load_named_data(str(data))
    part = _first(data, wanted, list(named.parts))
    if compares and "train" in named.parts:
        _compare(run, data, named.examples("train", seed=run.config.seed, augments=True).digest)
    names, trained = class_names_of({part: named.parts[part]}), class_names(run.settings)
    if names and trained and names != trained:
        raise DataError(
            f"{data} numbers the classes of its {part} part otherwise than {run.path}: equal numbers mean different "
            "classes. Give it the class_names of the training data."
        )
    return RunPart(part, named.examples(part, seed=run.config.seed), trained or names)


def _array_part(run: FinishedRun, data: Path, wanted: Sequence[str], compares: bool) -> RunPart:
    parts = open_array_folder(data)
    part = _first(data, wanted, list(parts))
    if compares and "train" in parts:
        _compare(run, data, parts["train"].digest)
    return RunPart(part, parts[part], class_names(run.settings))


def _first(data: Path, wanted: Sequence[str], parts: Sequence[str]) -> str:
    for part in wanted:
        if part in parts:
            return part
    have = f"it has {' and '.join(parts)}" if parts else "it has no part at all"
    raise ConfigurationError(f"{data} has no {' or '.join(wanted)} part: {have}.")


def _compare(run: FinishedRun, data: Path, digest: str) -> None:
    """Warn if the run was trained on another training part, as far as digests can tell."""
    trained = str(run.settings.get("data_digest")).partition("|")[0].removeprefix("train:")
    if run.config.model is not None and digest != trained:
        _LOG.warning(
            f"{data} has other training data than {run.path}, or the same data in another form. The figures are of "
            f"the examples of {data}."
        )
