"""The texts that `distrain prepare` works on: read, labelled, and split into training and test.

Decides: which rows are held out, the class number of a row, and the process that works on a row. Never: how a file is
read, or how a vectorizer learns.

    inputs = find_inputs(config, group)
    check_inputs(config, inputs)
    training = read_training(config, inputs, targets, store, held_out, display)      # fills the store, and `held_out`
    block = next(read_test(config, inputs, training.learnt, Tally(), display, group, block_rows))

Without test rows a fixed part of the training rows is held out, by a hash of (seed, row) that needs no memory. The
first row of each class is always trained on, because a model can learn nothing about a class without rows. Held-out
texts wait in a scratch file, so that the input is read once.

Every process of a group reads all rows, so that all processes find the same classes, row numbers and errors. Each
process works on its own blocks of rows, chosen by number.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distrain.cluster.process_group import ProcessGroup
from distrain.config import PrepareConfig
from distrain.errors import ConfigurationError, DataError
from distrain.prepare.display import Display, ReadingDisplay
from distrain.prepare.spacing import SpacingSample
from distrain.prepare.targets import LearntTargets, RowTargets, header_hint
from distrain.remote.path import text_of, to_path
from distrain.text.ragged import RaggedFile
from distrain.text.readers.blocks import LabelledBlock
from distrain.text.readers.columns import ColumnLayout
from distrain.text.readers.input_files import InputFiles, find_files
from distrain.text.readers.label_lists import is_list
from distrain.text.readers.labels import KNOWN_SETS
from distrain.text.readers.several_files import check_columns, read_all_blocks
from distrain.text.readers.tally import Bounds, Tally
from distrain.text.readers.texts import Texts
from distrain.text.vectorizers.token_store import TokenStore

_ROWS_IN_MEMORY = 16  # the longest row may take memory / 16, because a reader holds a few copies of a row


class TextBlock(NamedTuple):
    """Texts, with labels as shards hold them, and weights; no weights if rows have none."""

    texts: Texts
    labels: np.ndarray
    weights: np.ndarray | None


class Inputs(NamedTuple):
    """What `distrain prepare` reads.

    Attributes:
        train: the training text.
        test: the test text, or None if training rows are held out.
    """

    train: InputFiles
    test: InputFiles | None


class Training(NamedTuple):
    """Results of reading the training text.

    Attributes:
        learnt: what labels mean.
        first_label: label number in the store of the first row.
        hint: sentence for messages if the first row may be a header, else empty.
        tally: counts of read rows, held-out rows included.
        sample: characters of some rows, to see whether words have spaces between them.
    """

    learnt: LearntTargets
    first_label: int
    hint: str
    tally: Tally
    sample: SpacingSample


class HeldOut:
    """Rows that this process keeps for the test part, on disk.

    Args:
        directory: an existing folder.
        rank: rank of this process, for the names of the files.
        dtype: dtype of the numbers.

    Attributes:
        block_rows: number of rows of each added block.
    """

    def __init__(self, directory: Path, rank: int, dtype: Any = np.int32) -> None:
        self.block_rows: list[int] = []
        self._texts = RaggedFile(directory, f"held-out-texts-{rank}", np.uint8)
        self._numbers = RaggedFile(directory, f"held-out-numbers-{rank}", dtype)
        self._weights = RaggedFile(directory, f"held-out-weights-{rank}", np.float32)
        self._dtype = dtype

    def add(self, texts: Texts, numbers: np.ndarray, weights: np.ndarray | None) -> None:
        """Append a block: texts, the label number in the store of each text, and weights if rows have them."""
        contents = [texts.raw[start:end] for start, end in zip(texts.starts.tolist(), texts.ends.tolist(), strict=True)]
        splits = np.cumsum([0, *map(len, contents)])
        self._texts.append(splits, np.frombuffer(b"".join(contents), np.uint8))
        self._numbers.append(np.arange(len(numbers) + 1), numbers)
        if weights is not None:
            self._weights.append(np.arange(len(weights) + 1), weights)
        self.block_rows.append(len(numbers))

    def blocks(self, learnt: LearntTargets) -> Iterator[TextBlock]:
        """Yield all rows in order, in blocks of any size."""
        numbers = np.concatenate([np.empty(0, self._dtype), *(values for _, values in self._numbers.blocks())])
        weights = np.concatenate([np.empty(0, np.float32), *(values for _, values in self._weights.blocks())])
        done = 0
        for splits, octets in self._texts.blocks():
            rows = len(splits) - 1
            texts, own = Texts(octets.tobytes(), splits[:-1], splits[1:]), slice(done, done + rows)
            yield TextBlock(texts, learnt.final(numbers[own]), weights[own] if len(weights) else None)
            done += rows


def find_inputs(config: PrepareConfig, group: ProcessGroup) -> Inputs:
    """Return the files that rank 0 finds, so that all processes read the same files in the same order.

    Raises:
        DataError: a folder or a pattern cannot be read as a list of files.
        ConfigurationError: a file is given twice, or `config.out` lies inside a folder that is read.
    """
    found = []
    if group.is_chief:
        for option, given in (("--train", config.train), ("--test", config.test)):
            for path in given or ():
                if isinstance(path, Path) and path.is_dir() and config.out.resolve().is_relative_to(path.resolve()):
                    raise ConfigurationError(
                        f"--out {config.out} lies inside the input {path}. Choose a folder elsewhere."
                    )
            found.append(find_files(given, option) if given else None)
    content = json.dumps([[list(map(text_of, one.paths)), one.notes] if one else None for one in found])
    train, test = (
        InputFiles(tuple(map(to_path, one[0])), tuple(one[1])) if one else None
        for one in json.loads(group.broadcast(content.encode()))
    )
    assert train is not None
    return Inputs(train, test)


def check_inputs(config: PrepareConfig, inputs: Inputs) -> tuple[PrepareConfig, list[str]]:
    """Read the first rows of each input, so that a wrong path or column fails before any file is created.

    Returns:
        The settings with the task, which lists of labels decide if the user does not; and messages for the user.
    """
    task = config.task or ("classification" if config.label_separator is None else "multilabel")
    notes: list[str] = []
    for files in filter(None, inputs):
        tally = Tally(bounds=bounds_of(config))
        check_columns(files.paths, _layout(config), tally, max_row_bytes=_max_row_bytes(config))
        notes += [*files.notes, *tally.notes]
        block = next(_read(config, files, Tally(bounds=bounds_of(config))))
        if config.task is None and config.dataset is None and any(map(is_list, block.labels)):
            task = "multilabel"
    if inputs.test is not None:
        shared = set(inputs.train.paths) & set(inputs.test.paths)
        if shared and len(shared) < len(inputs.train.paths):
            notes.append(f"{min(shared)} is training text and test text, so test figures are too good.")
    return replace(config, task=task), notes


def read_training(
    config: PrepareConfig,
    inputs: Inputs,
    targets: RowTargets,
    store: TokenStore,
    held_out: HeldOut,
    display: Display,
) -> Training:
    """Read the training text: fill `store` with training rows and `held_out` with test rows of this process."""
    tally, sample = Tally(bounds=bounds_of(config)), SpacingSample()
    first_label, hint, has_weight = 0, "", config.weight_column is None
    for block_number, block in enumerate(_read_shown(config, inputs.train, tally, display)):
        sample.add(block.texts)
        numbers, new = targets.learn(block)
        if block_number == 0:
            first_label, hint = int(numbers[0]), header_hint(block)
        has_weight = has_weight or _has_weight(block)
        if block_number % store.group.size == store.group.rank:
            out = np.zeros(len(numbers), np.bool_)
            if config.test is None:
                before = tally.rows - len(numbers)
                out[:] = [is_held_out(before + index, config.holdout, config.seed) for index in range(len(numbers))]
                out[new] = False
                held_out.add(block.texts.select(out), numbers[out], _of_rows(block.weights, out))
            kept = block.texts.select(~out) if out.any() else block.texts
            store.add(kept, numbers[~out], _of_rows(block.weights, ~out))
            targets.trained(block_number, numbers[~out])
    store.finish()
    if not has_weight:
        raise _no_weight(inputs.train, "learn")
    return Training(targets.finish(store.group), first_label, hint, tally, sample)


def _has_weight(block: LabelledBlock) -> bool:
    return block.weights is not None and bool(block.weights.any())


def _no_weight(files: InputFiles, purpose: str) -> DataError:
    return DataError(f"{files.title}: all weights are 0, so there is nothing to {purpose}. Check --weight-column.")


def _of_rows(weights: np.ndarray | None, rows: np.ndarray) -> np.ndarray | None:
    return None if weights is None else weights[rows]


def is_held_out(index: int, fraction: float, seed: int) -> bool:
    """Return whether row `index` (from 0) is in the held-out `fraction` of the rows, by a hash of (seed, index)."""
    digest = hashlib.blake2b(f"{seed} {index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < fraction * 2**64


def read_test(
    config: PrepareConfig,
    inputs: Inputs,
    learnt: LearntTargets,
    tally: Tally,
    display: Display,
    group: ProcessGroup,
    block_rows: list[int],
) -> Iterator[TextBlock]:
    """Yield this process's blocks of the test text, and append each block's size to `block_rows`."""
    assert inputs.test is not None
    has_weight = config.weight_column is None
    for block_number, block in enumerate(_read_shown(config, inputs.test, tally, display)):
        labels = learnt.of_test(block)
        has_weight = has_weight or _has_weight(block)
        if block_number % group.size == group.rank:
            block_rows.append(len(labels))
            yield TextBlock(block.texts, labels, block.weights)
    if not has_weight:
        raise _no_weight(inputs.test, "test on")


def _layout(config: PrepareConfig) -> ColumnLayout:
    escaped = config.dataset is not None and KNOWN_SETS[config.dataset].escaped_newlines
    has_numbers = config.task == "regression"
    return ColumnLayout(config.label_column, config.text_columns, escaped, config.weight_column, has_numbers)


def bounds_of(config: PrepareConfig) -> Bounds:
    """Return the bounds of each input."""
    return Bounds(config.max_rows, config.max_text_gib, config.max_expansion)


def _max_row_bytes(config: PrepareConfig) -> int:
    return config.memory_mib * 2**20 // _ROWS_IN_MEMORY


def _read(config: PrepareConfig, files: InputFiles, tally: Tally) -> Iterator[LabelledBlock]:
    exact = config.tokens == "char"  # words need no characters between them
    return read_all_blocks(files.paths, _layout(config), tally, max_row_bytes=_max_row_bytes(config), exact=exact)


def _read_shown(config: PrepareConfig, files: InputFiles, tally: Tally, display: Display) -> Iterator[LabelledBlock]:
    name = files.paths[0].name if len(files.paths) == 1 else f"{len(files.paths):,} files"
    bar = ReadingDisplay(display, name, files.size)
    for block in _read(config, files, tally):
        bar.update(tally.rows, tally.num_bytes)
        yield block
    bar.update(tally.rows, tally.num_bytes)
    display.finish()
