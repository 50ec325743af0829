"""The training text as integers on disk: read and tokenized once, walked as often as a learner needs.

Decides: how word numbers are spilled, and how rows are cut into blocks. Never: what a word is (`tokenizer.py`),
which words are kept (`vocabulary.py`), what the data set holds.

    store = TokenStore(scratch, memory_mib=1024)       # scratch: an existing, empty folder
    for texts, labels in blocks:                       # a few thousand rows each
        store.add(texts, labels)
    store.finish()
    store.num_rows, store.median_words_per_row()
    vectorizer, rows = learn_ngrams(store, top_k=20_000)       # rows: the training rows, walked once

Words are numbered with one dictionary after another. When a dictionary of distinct words has filled its part of the
memory, the store writes the dictionary to disk. The next row begins a new dictionary. Each process of a group
has a store for some of the rows; `finish` sums counts over all stores.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from distrain.cluster.process_group import ProcessGroup, SingleProcess
from distrain.errors import DataError
from distrain.text.ragged import BLOCK_VALUES, RaggedFile, append_array, read_array
from distrain.text.readers.texts import Texts
from distrain.text.vectorizers.spilled_words import CountedWords, load_run, save_run, table_words
from distrain.text.vectorizers.tokenizer import WordTable, random_key

Progress = Callable[[str, float], None]  # (current phase, fraction done: 0..1), called repeatedly
NO_WORDS = (
    "No training text has a word (two or more letters or digits), so there is nothing to learn from. "
    "Check the text columns."
)
_MAX_ROWS = 2**31 - 2  # a row number and a count share an int64
_MAX_RUN_WORDS = 2**30  # occurrences in a run are counted in 32 bits
_TABLE_DIVISOR = 4  # a dictionary may take memory / 4, and memory / 2 while the dictionary grows


class TokenBlock(NamedTuple):
    """A block of consecutive training rows.

    Attributes:
        first_row: number of the first row, counted within this store.
        row_splits: int64 `[n + 1]`, from 0.
        ids: int32 `[row_splits[-1]]`: word numbers in text order, or the values of another file for the same rows.
        labels: int32 `[n]`: number of each row's label; or float32 `[n]`: the target of each row.
        weights: float32 `[n]`: weight of each row; None if rows have no weights.
    """

    first_row: int
    row_splits: np.ndarray
    ids: np.ndarray
    labels: np.ndarray
    weights: np.ndarray | None = None


class TokenStore:
    """The training rows of this process as word numbers, spilled to `scratch`.

    Args:
        scratch: an existing, empty folder for temporary files, the same on all processes. It grows to about two thirds
            of the text's size, and three times as much while n-grams are learnt. With the tokens "char" it grows to
            four times the text's size, and three times as much for n-grams. The caller removes the folder.
        memory_mib: bound in MiB on the memory of a learner, besides the kept words and n-grams.
        group: the processes that divide the rows.
        tokens: "word", or "char" if each character is a word.
        label_dtype: int32 for numbers of labels from 0, or float32 for targets.
        has_weights: whether rows have weights.

    Attributes:
        block_rows: number of rows of each added block.
        tokens: as given.
        num_rows: number of rows in all stores of the group, set by `finish`.
        num_words: number of words in all rows of the group, set by `finish`.
        longest_row: number of words in the longest row of the group, set by `finish`.
        class_sizes: int64 `[largest label + 1]`: rows of each label number; `finish` sums them over the group.
    """

    def __init__(
        self,
        scratch: Path,
        *,
        memory_mib: int,
        group: ProcessGroup | None = None,
        tokens: str = "word",
        label_dtype: Any = np.int32,
        has_weights: bool = False,
    ) -> None:
        self.tokens = tokens
        self.scratch = Path(scratch)
        self.memory_bytes = memory_mib * 2**20
        self.group: ProcessGroup = group or SingleProcess()
        self.block_rows: list[int] = []
        self.num_rows = self.num_words = self.longest_row = 0
        self.class_sizes = np.zeros(0, np.int64)
        self._own_rows = self._run_words = 0
        self._rows_by_length: dict[int, int] = {}
        self._tables: list[WordTable | Path] = []  # words of each run: in memory, or the stem of their files
        self._tokens: list[RaggedFile] = []
        self._ranks: list[np.ndarray] = []
        self._part_key = np.frombuffer(self.group.broadcast(random_key().tobytes()), np.uint64)[0]
        self._labels = self.scratch / f"labels-{self.group.rank}"
        self._labels.write_bytes(b"")
        self._label_dtype = label_dtype
        self._weights = self.scratch / f"weights-{self.group.rank}" if has_weights else None
        if self._weights is not None:
            self._weights.write_bytes(b"")

    def add(self, texts: Texts, labels: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Tokenize and append a block of rows.

        Args:
            texts: one text for each row; a text may be empty.
            labels: `[texts.num_rows]`: numbers of labels from 0, or targets.
            weights: `[texts.num_rows]`, if rows have weights.

        Raises:
            ValueError: a label is negative, or texts and labels differ in number.
            DataError: more than 2**31 - 2 rows in all.
        """
        labels = np.ascontiguousarray(labels, self._label_dtype)
        are_numbers = labels.dtype == np.int32
        if labels.shape != (texts.num_rows,) or (are_numbers and len(labels) and labels.min() < 0):
            raise ValueError("labels must be one number from 0 for each text")
        if self._own_rows + texts.num_rows > _MAX_ROWS:
            raise DataError(
                f"The training part has over {_MAX_ROWS:,} rows, the most that can be learnt from; use fewer."
            )
        table = self._open_run()
        for row_splits, ids in table.chunks(texts, add=True, first_row=self._own_rows):
            self._tokens[-1].append(row_splits, ids)
            self._run_words += len(ids)
            lengths, num_rows = np.unique(np.diff(row_splits), return_counts=True)
            for length, rows in zip(lengths.tolist(), num_rows.tolist(), strict=True):
                self._rows_by_length[length] = self._rows_by_length.get(length, 0) + rows
        append_array(self._labels, labels)
        if self._weights is not None:
            append_array(self._weights, np.ascontiguousarray(weights, np.float32))
        if are_numbers:
            self.class_sizes = _sum([self.class_sizes, np.bincount(labels)])
        self.block_rows.append(texts.num_rows)
        self._own_rows += texts.num_rows

    def finish(self) -> None:
        """End the input, and sum counts over the group."""
        if self.group.size > 1 or len(self._tables) > 1:
            self._spill_words()
        own = {"lengths": sorted(self._rows_by_length.items()), "classes": self.class_sizes.tolist()}
        totals = [json.loads(content) for content in self.group.all_gather_bytes(json.dumps(own).encode())]
        self.class_sizes = _sum([np.array(total["classes"], np.int64) for total in totals])
        self._rows_by_length = {}
        for total in totals:
            for length, rows in total["lengths"]:
                self._rows_by_length[length] = self._rows_by_length.get(length, 0) + rows
        self.num_rows = sum(self._rows_by_length.values())
        self.num_words = sum(length * rows for length, rows in self._rows_by_length.items())
        self.longest_row = max(self._rows_by_length, default=0)

    def median_words_per_row(self) -> float:
        """Return the exact median number of words per row, or 0 without rows."""
        if not self.num_rows:
            return 0.0
        lengths = np.array(sorted(self._rows_by_length), np.int64)
        rows_up_to = np.array([self._rows_by_length[length] for length in lengths.tolist()], np.int64).cumsum()
        middle = np.array([(self.num_rows - 1) // 2, self.num_rows // 2])
        return float(lengths[np.searchsorted(rows_up_to, middle, side="right")].mean())

    @property
    def only_run(self) -> CountedWords | None:
        """All words of the group if one process holds them in one dictionary in memory, else None."""
        only = self._tables[0] if len(self._tables) == 1 else None
        return table_words(only) if isinstance(only, WordTable) else None

    def runs(self) -> Iterator[CountedWords]:
        """Yield the words of each run of this store."""
        for table in self._tables:
            yield table_words(table) if isinstance(table, WordTable) else load_run(table)

    def run_stems(self) -> list[Path]:
        """Return the file stems of all dictionaries of the group, for `spilled_words.load_parts`."""
        counts = self.group.all_gather_bytes(str(len(self._tables)).encode())
        return [self._stem(rank, run) for rank, count in enumerate(counts) for run in range(int(count))]

    def renumber(self, ranks: list[np.ndarray]) -> None:
        """Replace the number of word `i` of run `r` by `ranks[r][i]` (int32) in all later walks."""
        self._ranks = ranks
        self._tables = []

    def blocks(self, other: RaggedFile | None = None, *, at_once: int = BLOCK_VALUES) -> Iterator[TokenBlock]:
        """Yield all rows of this store in order, renumbered.

        Args:
            other: a file with a row for each row of this store; its values replace the word numbers.
            at_once: largest number of words in a block; a longer row is a block of its own.
        """
        first_row = 0
        with self._labels.open("rb") as labels_file, ExitStack() as stack:
            weights_file = stack.enter_context(self._weights.open("rb")) if self._weights else None
            for row_splits, ids in other.blocks(at_once) if other else self._ranked(at_once):
                rows = len(row_splits) - 1
                labels = read_array(labels_file, self._label_dtype, rows)
                weights = read_array(weights_file, np.float32, rows) if weights_file else None
                yield TokenBlock(first_row, row_splits, ids, labels, weights)
                first_row += rows

    def reported_blocks(
        self, doing: str, progress: Progress | None, other: RaggedFile | None = None, *, at_once: int = BLOCK_VALUES
    ) -> Iterator[TokenBlock]:
        """Yield from `blocks`, and call `progress(doing, fraction of the rows walked)`."""
        for block in self.blocks(other, at_once=at_once):
            if progress:
                progress(doing, block.first_row / self._own_rows)
            yield block
        if progress:
            progress(doing, 1.0)

    def _ranked(self, at_once: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for tokens, ranks in zip(self._tokens, self._ranks, strict=True):
            for row_splits, ids in tokens.blocks(at_once):
                yield row_splits, ranks[ids]

    def _open_run(self) -> WordTable:
        """Return the table for the next rows, and begin a new run if the table is full."""
        table = self._tables[-1] if self._tables else None
        if isinstance(table, WordTable):
            if table.num_bytes <= self.memory_bytes // _TABLE_DIVISOR and self._run_words < _MAX_RUN_WORDS:
                return table
            self._spill_words()
        self._tokens.append(RaggedFile(self.scratch, f"tokens-{self.group.rank}-{len(self._tables)}"))
        table = WordTable(tokens=self.tokens)
        self._tables.append(table)
        self._run_words = 0
        return table

    def _spill_words(self) -> None:
        """Write the last run's words to disk."""
        if self._tables and isinstance(self._tables[-1], WordTable):
            stem = self._stem(self.group.rank, len(self._tables) - 1)
            save_run(stem, table_words(self._tables[-1]), self._part_key)
            self._tables[-1] = stem

    def _stem(self, rank: int, run: int) -> Path:
        return self.scratch / f"words-{rank}-{run}"


def _sum(counts: list[np.ndarray]) -> np.ndarray:
    """Return the sum of arrays of different lengths, int64."""
    total = np.zeros(max(map(len, counts)), np.int64)
    for count in counts:
        total[: len(count)] += count
    return total
