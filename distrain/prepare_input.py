"""The texts that `distrain prepare` works on: read, labelled, and parted into training and test.

Decides: which rows are trained on and which are held out, and which number a row's class has. Never: how a
file is read, what is learnt.

    training = read_training(config, store, scratch / "held-out.jsonl", display)      # fills the store
    texts, labels = next(read_test(config, training.classes, Tally(), display))

Without test rows a share of the training rows is held out, by a hash of (seed, row): nothing is kept in
memory. But the first row of each class is always trained on, as nothing could be learnt about its class
otherwise. Held-out texts wait in a scratch file, so that the input is read once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import numpy as np

from distrain.config import PrepareConfig
from distrain.data.labels import KNOWN_SETS, Classes, LabelLearner, known_classes
from distrain.data.layout import LabelledText, Layout
from distrain.data.lines import Tally
from distrain.data.sources import read_rows, size_on_disk
from distrain.data.tokens import TokenStore
from distrain.errors import ConfigurationError, DataError
from distrain.prepare_display import Display, ReadingDisplay

BLOCK_ROWS = 4096
BLOCK_CHARACTERS = 2**20
_ROWS_IN_MEMORY = 16  # the longest row may take this part of the memory: 4 bytes a character, a few copies
_ROWS_PER_UPDATE = 1024

TextBlock = tuple[list[str], np.ndarray]  # texts, and the class number of each (int32)


class Training(NamedTuple):
    """What reading the training file found.

    Attributes:
        classes: all classes.
        class_numbers: class number of each number in the store, int32.
        first: the first row.
        tally: counts, held-out rows included.
        num_held_out: rows that were held out.
    """

    classes: Classes
    class_numbers: np.ndarray
    first: LabelledText
    tally: Tally
    num_held_out: int


def check_inputs(config: PrepareConfig) -> None:
    """Look at the first row of each input, so that a wrong path or column shows before anything is made."""
    for path in filter(None, (config.train, config.test)):
        if path.is_dir() and config.out.resolve().is_relative_to(path.resolve()):
            raise ConfigurationError(f"--out {config.out} lies inside the input {path}. Choose a folder elsewhere.")
        next(_read(config, path, Tally()))


def read_training(config: PrepareConfig, store: TokenStore, held_out: Path, display: Display) -> Training:
    """Fill the store with the training rows, and `held_out` with those that are not to be trained on."""
    learner = LabelLearner()
    classes = known_classes(KNOWN_SETS[config.dataset]) if config.dataset else None
    number_of = classes.number if classes else learner.number
    tally = Tally()
    rows = _read_shown(config, config.train, tally, display)
    first = next(rows)
    num_held_out = 0

    def trained_on() -> Iterator[tuple[str, int]]:
        nonlocal num_held_out
        seen: set[int] = set()
        with held_out.open("w", encoding="ascii") as file:
            for index, row in enumerate(chain([first], rows)):
                number = _number(row, number_of)
                if config.test is None and number in seen and is_held_out(index, config.holdout, config.seed):
                    file.write(json.dumps([row.text, number]) + "\n")
                    num_held_out += 1
                else:
                    seen.add(number)
                    yield row.text, number

    for texts, numbers in _blocks(trained_on()):
        store.add(texts, numbers)
    if classes is None:
        classes, class_numbers = learner.finish()
    else:
        class_numbers = np.arange(len(classes.names), dtype=np.int32)
    return Training(classes, class_numbers, first, tally, num_held_out)


def is_held_out(index: int, share: float, seed: int) -> bool:
    """Whether row `index` (from 0) belongs to the held-out `share`, by a hash of (seed, index)."""
    digest = hashlib.blake2b(f"{seed} {index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < share * 2**64


def read_held_out(held_out: Path, class_numbers: np.ndarray) -> Iterator[TextBlock]:
    """What `read_training` held out, in blocks."""
    with held_out.open(encoding="ascii") as file:
        for texts, numbers in _blocks(map(json.loads, file)):
            yield texts, class_numbers[numbers]


def read_test(config: PrepareConfig, classes: Classes, tally: Tally, display: Display) -> Iterator[TextBlock]:
    """The rows of `config.test` in blocks."""
    assert config.test is not None
    rows = _read_shown(config, config.test, tally, display)
    return _blocks((row.text, _number(row, classes.number)) for row in rows)


def _read(config: PrepareConfig, path: Path, tally: Tally) -> Iterator[LabelledText]:
    escaped = config.dataset is not None and KNOWN_SETS[config.dataset].escaped_newlines
    layout = Layout(config.label_column, config.text_columns, escaped)
    return read_rows(path, layout, tally, max_row_bytes=config.memory_mib * 2**20 // _ROWS_IN_MEMORY)


def _read_shown(config: PrepareConfig, path: Path, tally: Tally, display: Display) -> Iterator[LabelledText]:
    bar = ReadingDisplay(display, path, size_on_disk(path))
    for row in _read(config, path, tally):
        if tally.rows % _ROWS_PER_UPDATE == 1:
            bar.update(tally.rows, tally.num_bytes)
        yield row
    bar.update(tally.rows, tally.num_bytes)
    display.finish()


def _number(row: LabelledText, number: Callable[[str], int]) -> int:
    try:
        return number(row.label)
    except DataError as error:
        raise DataError(f"{row.place}: {error}{header_hint(row)}") from None


def header_hint(first: LabelledText) -> str:
    """What to say of a first row that looks wrong."""
    if first.row != 1 or first.line != 1:
        return ""
    return " If this row is a header, name the columns with --label-column and --text-columns."


def _blocks(rows: Iterable[tuple[str, int]]) -> Iterator[TextBlock]:
    """Bounded blocks of (text, number)."""
    texts: list[str] = []
    numbers: list[int] = []
    characters = 0
    for text, number in rows:
        texts.append(text)
        numbers.append(number)
        characters += len(text)
        if len(texts) >= BLOCK_ROWS or characters >= BLOCK_CHARACTERS:
            yield texts, np.array(numbers, np.int32)
            texts, numbers, characters = [], [], 0
    if texts:
        yield texts, np.array(numbers, np.int32)
