"""The training text as integers on disk: read and tokenized once, walked as often as a learner needs.

Decides: how word numbers are spilled, and in what blocks they come back. Never: what a word is (`words.py`),
which words are kept, what is written to the data set.

    store = TokenStore(scratch, memory_mib=1024)       # scratch: an existing, empty folder
    for texts, labels in blocks:                       # a few thousand rows each
        store.add(texts, labels)
    store.num_rows, store.median_words_per_row()
    vectorizer, rows = learn_ngrams(store, top_k=20_000)       # rows: the training rows, walked once
    writer.write("train", rows)
    writer.write("test", (vectorizer.transform(texts)._replace(labels=labels) for texts, labels in tests))
    vectorizer.save(out / "vectorizer")

What stays in memory is the dictionary of distinct words (about 50 MB a million) and one block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from distrain.data.words import Words, WordTable
from distrain.errors import DataError

Progress = Callable[[str, float], None]  # (what is being done, share of it done: 0..1), called now and then
NO_WORDS = (
    "No training text has a word (two or more letters or digits), so there is nothing to learn from. "
    "Check the text columns."
)
BLOCK_VALUES = 2**18  # integers in a block read back: 1 MiB, or one row where a row is longer
_LENGTHS_READ = 2**16
_MAX_ROWS = 2**31 - 2  # row numbers are packed beside counts


class TokenBlock(NamedTuple):
    """A block of consecutive training rows.

    Attributes:
        first_row: number of its first row.
        row_splits: int64 `[n + 1]`, from 0.
        ids: int32 `[row_splits[-1]]`: word numbers in text order, as `TokenStore.words` counts them,
            or what another file holds of the same rows.
        labels: int32 `[n]`.
    """

    first_row: int
    row_splits: np.ndarray
    ids: np.ndarray
    labels: np.ndarray


class RaggedFile:
    """Ragged rows of int32 on disk, appended to, then read from the start in blocks.

    How the rows come back does not depend on how they were handed in. The files are made new.

    Args:
        directory: an existing folder.
        name: stem of the two files in it.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self._lengths = Path(directory) / f"{name}.lengths"
        self._values = Path(directory) / f"{name}.values"
        for path in (self._lengths, self._values):
            path.write_bytes(b"")

    def append(self, row_splits: np.ndarray, values: np.ndarray) -> None:
        """Add rows: row_splits int64 `[n + 1]` from 0, values int32."""
        _append(self._lengths, np.diff(row_splits).astype(np.int32))
        _append(self._values, values)

    def blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields (row_splits int64 from 0, values int32) over all rows in order."""
        with self._lengths.open("rb") as lengths_file, self._values.open("rb") as values_file:
            while len(lengths := _read(lengths_file, _LENGTHS_READ)):
                ends = lengths.cumsum(dtype=np.int64)
                start, done = 0, 0
                while start < len(ends):
                    stop = max(start + 1, int(np.searchsorted(ends, done + BLOCK_VALUES, side="right")))
                    row_splits = np.concatenate([[0], ends[start:stop] - done])
                    yield row_splits, _read(values_file, int(row_splits[-1]))
                    start, done = stop, int(ends[stop - 1])


def _append(path: Path, array: np.ndarray) -> None:
    with path.open("ab") as file:
        file.write(array.data)


def _read(file: IO[bytes], count: int) -> np.ndarray:
    return np.fromfile(file, np.int32, count)


class TokenStore:
    """The training rows as word numbers, spilled to `scratch`.

    Args:
        scratch: an existing, empty folder for temporary files (about two thirds of the text's size, and three
            times that while n-grams are learnt); the caller removes it.
        memory_mib: bound in MiB on what learners hold at a time, beside the words and n-grams that are kept.

    Attributes:
        num_rows: rows added.
        num_words: words in all rows.
        longest_row: words in the longest row.
        class_sizes: int64 `[largest label + 1]`: rows of each class.
    """

    def __init__(self, scratch: Path, *, memory_mib: int) -> None:
        self.scratch = Path(scratch)
        self.memory_bytes = memory_mib * 2**20
        self.num_rows = 0
        self.num_words = 0
        self.longest_row = 0
        self.class_sizes = np.zeros(0, np.int64)
        self._rows_by_length: dict[int, int] = {}
        self._table = WordTable()
        self._tokens = RaggedFile(self.scratch, "tokens")
        self._labels = self.scratch / "labels"
        self._labels.write_bytes(b"")

    @property
    def words(self) -> Words:
        """The distinct words, by number."""
        return self._table.words

    def add(self, texts: Sequence[str], labels: np.ndarray) -> None:
        """Tokenize and append rows.

        Args:
            texts: one text a row; may be empty.
            labels: integers `[len(texts)]`: class numbers from 0.

        Raises:
            ValueError: labels are negative, or not one a text.
            DataError: more than 2**31 - 2 rows in all.
        """
        labels = np.ascontiguousarray(labels, np.int32)
        if labels.shape != (len(texts),) or (len(labels) and labels.min() < 0):
            raise ValueError("labels must be one number from 0 for each text")
        if self.num_rows + len(texts) > _MAX_ROWS:
            raise DataError(
                f"The training part has over {_MAX_ROWS:,} rows, the most that can be learnt from; use fewer."
            )
        for row_splits, ids in self._table.chunks(texts, add=True):
            self._tokens.append(row_splits, ids)
            for length, rows in zip(*np.unique(np.diff(row_splits), return_counts=True), strict=True):
                self._rows_by_length[int(length)] = self._rows_by_length.get(int(length), 0) + int(rows)
        _append(self._labels, labels)
        sizes = np.bincount(labels, minlength=len(self.class_sizes))
        sizes[: len(self.class_sizes)] += self.class_sizes
        self.class_sizes = sizes
        self.num_rows += len(texts)
        self.num_words = sum(length * rows for length, rows in self._rows_by_length.items())
        self.longest_row = max(self._rows_by_length, default=0)

    def median_words_per_row(self) -> float:
        """Exact median number of words per row: the mean of the middle two where rows are even; 0 without rows."""
        if not self.num_rows:
            return 0.0
        lengths = np.array(sorted(self._rows_by_length), np.int64)
        rows_up_to = np.array([self._rows_by_length[length] for length in lengths.tolist()], np.int64).cumsum()
        middle = np.array([(self.num_rows - 1) // 2, self.num_rows // 2])
        return float(lengths[np.searchsorted(rows_up_to, middle, side="right")].mean())

    def blocks(self, other: RaggedFile | None = None) -> Iterator[TokenBlock]:
        """All rows from the first, in order; with the rows of `other`, one for each here, in place of the words."""
        first_row = 0
        with self._labels.open("rb") as labels_file:
            for row_splits, ids in (other or self._tokens).blocks():
                rows = len(row_splits) - 1
                yield TokenBlock(first_row, row_splits, ids, _read(labels_file, rows))
                first_row += rows

    def reported_blocks(
        self, doing: str, progress: Progress | None, other: RaggedFile | None = None
    ) -> Iterator[TokenBlock]:
        """`blocks`, reporting what is being done and the share of the rows walked."""
        for block in self.blocks(other):
            if progress:
                progress(doing, block.first_row / self.num_rows)
            yield block
        if progress:
            progress(doing, 1.0)
