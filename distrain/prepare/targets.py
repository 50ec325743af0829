"""What the labels of rows become: classes, sets of labels, or numbers to predict.

Decides: how a label is read for a task, and the numbers that wait in the store for it. Never: reads a file, or decides
what a class is named (`labels.py`).

    targets = row_targets(config)
    numbers, first_rows = targets.learn(block)               # for each block of training rows, in order
    learnt = targets.finish(group)
    learnt.final(numbers), learnt.of_test(block)             # as shards hold labels; see `Rows`

A set of labels has one number in the store, like a class, and becomes a bit for each label at the end. Numbers are
float32. Mean and deviation of the training targets are summed in the order of blocks, whatever the processes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np

from distrain.cluster.process_group import ProcessGroup
from distrain.config import PrepareConfig
from distrain.errors import DataError
from distrain.text.readers.blocks import LabelledBlock
from distrain.text.readers.label_lists import is_list, split_labels
from distrain.text.readers.labels import KNOWN_SETS, Classes, LabelLearner, known_classes
from distrain.text.readers.numbers import MAX_FLOAT32, parse_number
from distrain.text.vectorizers.feature_tests import RowGroups, RowNumbers, Targets

MAX_LABELS = 8_192  # of a multi-label data set: each row takes a bit for each, and a batch a number
_SET_BYTES = 960  # memory for each distinct set of labels, about three times what it takes
_LABEL_BYTES = 16  # the same for each label in a set
_BITS_ROWS = 512  # rows whose labels become bits at a time, because each row may have thousands of labels


@dataclass(frozen=True)
class LearntTargets:
    """What labels mean, after the training rows.

    Attributes:
        task: as in `PrepareConfig`.
        names: names of the classes or labels; empty for numbers.
        final: numbers of the store -> labels as shards hold them.
        of_test: a block of test rows -> labels as shards hold them.
        features: what the numbers of the store are, for the choice of n-grams; None if each is a class.
        is_known: whether a published data set fixes the classes.
    """

    task: str
    names: tuple[str, ...]
    final: Callable[[np.ndarray], np.ndarray]
    of_test: Callable[[LabelledBlock], np.ndarray]
    features: Targets | None = None
    is_known: bool = False


class RowTargets(Protocol):
    """Reads the labels of training rows."""

    dtype: Any  # of the numbers

    def learn(self, block: LabelledBlock) -> tuple[np.ndarray, np.ndarray]:
        """Return the number of each row, and the indices of rows that must be trained on, since they are first."""

    def trained(self, block_number: int, numbers: np.ndarray) -> None:
        """Note the numbers of rows of this process that are trained on."""

    def finish(self, group: ProcessGroup) -> LearntTargets:
        """Return what labels mean; all processes have learnt the same rows."""


def row_targets(config: PrepareConfig) -> RowTargets:
    """Return the reader of labels for the task of `config`."""
    if config.task == "regression":
        return _Numbers()
    if config.task == "multilabel":
        return _LabelSets(config.label_separator, config.memory_mib * 2**20)
    return _Classes(known_classes(KNOWN_SETS[config.dataset]) if config.dataset else None)


class _Classes:
    dtype = np.int32

    def __init__(self, known: Classes | None) -> None:
        self._known, self._learner = known, LabelLearner()
        self._seen: set[int] = set()

    def learn(self, block: LabelledBlock) -> tuple[np.ndarray, np.ndarray]:
        numbers = _by_label(block, self._known.number if self._known else self._learner.number, np.int32)
        found, first_rows = np.unique(numbers, return_index=True)
        new = [row for number, row in zip(found.tolist(), first_rows.tolist(), strict=True) if number not in self._seen]
        self._seen.update(found.tolist())
        return numbers, np.array(new, np.int64)

    def trained(self, block_number: int, numbers: np.ndarray) -> None:
        pass

    def finish(self, group: ProcessGroup) -> LearntTargets:
        if self._known:
            classes, order = self._known, np.arange(len(self._known.names), dtype=np.int32)
        else:
            classes, order = self._learner.finish()
        of_test = partial(_by_label, number=classes.number, dtype=np.int32)
        return LearntTargets("classification", classes.names, order.take, of_test, None, classes.known)


class _LabelSets:
    dtype = np.int32

    def __init__(self, separator: str | None, max_bytes: int) -> None:
        self._separator, self._bytes_left = separator, max_bytes
        self._learner = LabelLearner()
        self._numbers: dict[bytes, int] = {}

    def learn(self, block: LabelledBlock) -> tuple[np.ndarray, np.ndarray]:
        new: list[int] = []

        def number(label: str) -> int:
            known = len(self._learner)
            items = [self._learner.number(item) for item in split_labels(label, self._separator)]
            if len(self._learner) > MAX_LABELS:
                raise DataError(f"over {MAX_LABELS:,} labels differ. Is this the label column? See --label-column.")
            if len(self._learner) > known:
                new.append(int(np.argmax(block.label_of == block.labels.index(label))))
            one = np.unique(np.array(items, np.int32))
            if (key := one.tobytes()) not in self._numbers:
                self._bytes_left -= _SET_BYTES + _LABEL_BYTES * len(one)
                if self._bytes_left < 0:
                    raise DataError(
                        f"over {len(self._numbers):,} sets of labels differ, which fill the memory. A larger "
                        "--memory-mib allows more."
                    )
            return self._numbers.setdefault(key, len(self._numbers))

        return _by_label(block, number, np.int32), np.array(new, np.int64)

    def trained(self, block_number: int, numbers: np.ndarray) -> None:
        pass

    def finish(self, group: ProcessGroup) -> LearntTargets:
        classes, order = self._learner.finish()
        groups = _groups_of([order[np.frombuffer(key, np.int32)] for key in self._numbers], len(classes.names))

        def of_test(block: LabelledBlock) -> np.ndarray:
            sets: list[list[int]] = []

            def number(label: str) -> int:
                sets.append([classes.number(item) for item in split_labels(label, self._separator)])
                return len(sets) - 1

            numbers = _by_label(block, number, np.int32)
            return _bits(_groups_of(sets, len(classes.names)), numbers)

        return LearntTargets("multilabel", classes.names, partial(_bits, groups), of_test, groups)


class _Numbers:
    dtype = np.float32

    def __init__(self) -> None:
        self._moments: list[tuple[int, int, float, float]] = []  # of a block: its number, rows, mean, squares

    def learn(self, block: LabelledBlock) -> tuple[np.ndarray, np.ndarray]:
        return _by_label(block, _target, np.float32), np.empty(0, np.int64)

    def trained(self, block_number: int, numbers: np.ndarray) -> None:
        if len(numbers):
            exact = numbers.astype(np.float64)
            self._moments.append((block_number, len(exact), float(exact.mean()), float(exact.var() * len(exact))))

    def finish(self, group: ProcessGroup) -> LearntTargets:
        gathered = group.all_gather_bytes(json.dumps(self._moments).encode())
        rows, mean, squares = 0, 0.0, 0.0
        for _, own_rows, own_mean, own_squares in sorted(moment for part in gathered for moment in json.loads(part)):
            step, rows = own_mean - mean, rows + own_rows
            mean += step * own_rows / rows
            squares += own_squares + step * step * (rows - own_rows) * own_rows / rows
        deviation = math.sqrt(squares / max(rows, 1))
        return LearntTargets("regression", (), lambda numbers: numbers, _of_numbers, RowNumbers(mean, deviation))


def _of_numbers(block: LabelledBlock) -> np.ndarray:
    return _by_label(block, _target, np.float32)


def _target(label: str) -> float:
    if not label:
        raise DataError("the target is missing. Every row needs a number; add it or remove the row.")
    if is_list(label):
        raise DataError("the target is a list. Every row needs one number.")
    number = parse_number(label)
    if number is None or not abs(number) <= MAX_FLOAT32:
        raise DataError(f"the target {label[:60]!r} is not a finite number in float32. Correct it or remove the row.")
    return number


def _groups_of(sets: Sequence[Sequence[int] | np.ndarray], num_labels: int) -> RowGroups:
    """Return the labels of each set."""
    items = np.concatenate([np.empty(0, np.int32), *sets], dtype=np.int32, casting="unsafe")
    return RowGroups(np.cumsum([0, *map(len, sets)]), items, num_labels, are_classes=False)


def _bits(groups: RowGroups, numbers: np.ndarray) -> np.ndarray:
    """Return a bit for each label of each row, uint8 `[n, ceil(num_labels / 8)]`; `numbers` number the sets."""
    bits = np.zeros((len(numbers), -(-groups.num_groups // 8)), np.uint8)
    for first in range(0, len(numbers), _BITS_ROWS):
        own = numbers[first : first + _BITS_ROWS]
        starts, lengths = groups.splits[:-1][own], np.diff(groups.splits)[own]
        rows = np.repeat(np.arange(len(own)), lengths)
        before = np.cumsum(lengths) - lengths
        items = groups.items[np.repeat(starts - before, lengths) + np.arange(len(rows))]
        np.bitwise_or.at(bits[first:], (rows, items >> 3), (128 >> (items & 7)).astype(np.uint8))
    return bits


def _by_label(block: LabelledBlock, number: Callable[[str], float], dtype: Any) -> np.ndarray:
    """Return the number of each row's label; `number` numbers a label."""
    numbers = np.empty(len(block.labels), dtype)
    for index, label in enumerate(block.labels):
        try:
            numbers[index] = number(label)
        except DataError as error:
            row = int(np.argmax(block.label_of == index))
            raise DataError(f"{block.location(row)}: {error}{header_hint(block, row)}") from None
    return numbers[block.label_of]


def header_hint(block: LabelledBlock, row: int = 0) -> str:
    """Return a sentence for messages if `row` is the first row of a file, else an empty string."""
    if block.rows[row] != 1 or block.lines[row] != 1:
        return ""
    return " If this row is a header, name the columns with --label-column and --text-columns."
