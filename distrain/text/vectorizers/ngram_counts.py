"""The kept n-grams: the words, and the pairs of neighbouring words that occur in enough rows.

Decides: how pairs are counted in bounded memory, and which process counts a pair. Never: what a word is, or which
n-grams become features.

    keys, row_counts = kept_ngrams(store, word_rows, min_df=2)

Pairs are partitioned on disk by ranges of their first word. Each process then counts some parts over all rows, in a
table that mostly fits into the processor's nearer caches. The parts, one after the other, hold all n-grams in order.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from distrain.text.array_exchange import all_gather_arrays
from distrain.text.ragged import append_array, map_array, read_array
from distrain.text.vectorizers.ngram_kernels import count_pairs, partition_pairs, refill, take_pairs
from distrain.text.vectorizers.token_store import Progress, TokenStore
from distrain.text.vectorizers.tokenizer import random_key

_PART_PAIRS = 2**16  # pairs in a part if `_MAX_PARTS` suffice: a table takes 1 or 2 MiB
_MAX_PARTS = 2**9
_MAX_AT_ONCE = 2**23  # pairs partitioned at once: a read of one part is then long enough to be fast
_PAIR_BYTES = 64  # memory for one pair while pairs are partitioned
_MIN_SLOTS, _MAX_SLOTS = 2**12, 2**20  # slots of a table before the table grows
_KEPT = {"keys": np.int64, "rows": np.int32}


def kept_ngrams(
    store: TokenStore, word_rows: np.ndarray, *, min_df: int, progress: Progress | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the kept words, and the pairs of kept words in at least `min_df` rows.

    Args:
        store: the rows, with words renumbered by rank, and -1 for a word that is not kept.
        word_rows: number of rows that hold each kept word, by rank.
        min_df: smallest number of rows with a pair that is kept.
        progress: function to call repeatedly; see `Progress`.

    Returns:
        Keys, int64, ascending, and the number of rows with each key, int32. Both are mapped from files and equal in
        all processes.
    """
    num_parts = 2 ** (min(_MAX_PARTS, 1 + store.num_words // _PART_PAIRS).bit_length() - 1)
    # Parts with equally many occurrences of words have about equally many pairs.
    before = np.cumsum(word_rows, dtype=np.int64) - word_rows
    part_of = (before * num_parts // max(1, int(word_rows.sum(dtype=np.int64)))).astype(np.uint16)
    first_words = np.searchsorted(part_of, np.arange(num_parts + 1)).tolist()
    partitions = _PartitionedPairs(store, part_of, num_parts, progress)
    own = [_kept_file(store.scratch, store.group.rank, name) for name in _KEPT]
    for path in own:
        path.write_bytes(b"")
    sizes = []
    counter = _PairCounter()
    for part in range(store.group.rank, num_parts, store.group.size):
        counted = counter.count(partitions.blocks(part), partitions.sizes[part], min_df)
        kept = _with_words(*counted, word_rows, *first_words[part : part + 2])
        for path, array in zip(own, kept, strict=True):
            append_array(path, array)
        sizes.append(len(kept[0]))
    sizes_by_rank = [json.loads(content) for content in store.group.all_gather_bytes(json.dumps(sizes).encode())]
    partitions.remove()
    return _joined(store, sizes_by_rank, "keys"), _joined(store, sizes_by_rank, "rows")


class _PartitionedPairs:
    """The pairs of all rows of the group on disk, ordered by block of rows, then by part.

    Args:
        store: this process's rows.
        part_of: uint16: part of each first word.
        num_parts: number of parts.
        progress: function to call repeatedly; see `Progress`.

    Attributes:
        sizes: number of pairs in each part.
    """

    def __init__(self, store: TokenStore, part_of: np.ndarray, num_parts: int, progress: Progress | None) -> None:
        self._scratch, self._rank, self._num_parts = store.scratch, store.group.rank, num_parts
        self._file(self._rank).write_bytes(b"")
        sizes = [np.zeros(1, np.int64)]
        at_once = min(_MAX_AT_ONCE, store.memory_bytes // _PAIR_BYTES)
        for block in store.reported_blocks("partitioning pairs of words", progress, at_once=at_once):
            pairs, part_sizes = partition_pairs(block.row_splits, block.ids, part_of, num_parts)
            append_array(self._file(self._rank), pairs)
            sizes.append(part_sizes)
        splits = np.concatenate(sizes).cumsum()
        self._splits = all_gather_arrays(store.group, store.scratch, "pair-splits", splits)
        self.sizes: list[int] = sum(np.diff(splits).reshape(-1, num_parts).sum(0) for splits in self._splits).tolist()

    def blocks(self, part: int) -> Iterator[np.ndarray]:
        """Yield the pairs of a part block by block, as `partition_pairs` returns them."""
        for rank, splits in enumerate(self._splits):
            with self._file(rank).open("rb") as file:
                starts, ends = (bounds[part :: self._num_parts].tolist() for bounds in (splits[:-1], splits[1:]))
                for start, end in zip(starts, ends, strict=True):
                    file.seek(8 * start)
                    yield read_array(file, np.int64, end - start)

    def remove(self) -> None:
        """Remove the file of this process; call this when all processes have read the file."""
        self._file(self._rank).unlink()

    def _file(self, rank: int) -> Path:
        return self._scratch / f"pairs-{rank}"


class _PairCounter:
    """Counts the rows that hold each pair, one part after the other."""

    def __init__(self) -> None:
        self._seed = random_key()
        self._room = np.zeros((_MIN_SLOTS, 2), np.int64)

    def count(self, blocks: Iterable[np.ndarray], size: int, min_df: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the pairs in at least `min_df` rows, in no order, and the number of rows with each pair.

        Args:
            blocks: the pairs of one part.
            size: number of pairs in all blocks.
            min_df: smallest number of rows with a pair.
        """
        table = self._empty_table(min(_slots(size), _MAX_SLOTS))
        count = row = 0
        for pairs in blocks:
            if _slots(count + len(pairs)) > len(table):
                larger = np.zeros((_slots(count + len(pairs)), 2), np.int64)
                refill(table, larger, self._seed)
                table = larger
            count, row = count_pairs(pairs, row, table, count, self._seed)
        return take_pairs(table, min_df)

    def _empty_table(self, slots: int) -> np.ndarray:
        if slots > len(self._room):
            self._room = np.zeros((slots, 2), np.int64)
        else:
            self._room[:slots] = 0
        return self._room[:slots]


def _slots(pairs: int) -> int:
    """Return the number of slots for `pairs` pairs, a power of two that leaves a quarter of the slots free."""
    return max(_MIN_SLOTS, 2 ** (pairs * 4 // 3).bit_length())


def _with_words(
    pairs: np.ndarray, rows: np.ndarray, word_rows: np.ndarray, first: int, last: int
) -> tuple[np.ndarray, np.ndarray]:
    """Merge the pairs whose first word has a rank in [first, last) with these words; return keys and row counts."""
    keys = np.concatenate([np.arange(first, last, dtype=np.int64) << 32, pairs])
    order = np.argsort(keys)
    return keys[order], np.concatenate([word_rows[first:last], rows])[order].astype(np.int32)


def _joined(store: TokenStore, sizes_by_rank: list[list[int]], name: str) -> np.ndarray:
    """Join the kept arrays of all parts in a file, and map the file; `sizes_by_rank` holds the sizes of the parts."""
    size, dtype = len(sizes_by_rank), np.dtype(_KEPT[name])
    joined = store.scratch / f"all-{name}-{store.group.rank}"
    with joined.open("wb") as file, ExitStack() as stack:
        opened = [stack.enter_context(_kept_file(store.scratch, rank, name).open("rb")) for rank in range(size)]
        for part in range(sum(map(len, sizes_by_rank))):
            file.write(opened[part % size].read(dtype.itemsize * sizes_by_rank[part % size][part // size]))
    return map_array(joined, dtype)


def _kept_file(scratch: Path, rank: int, name: str) -> Path:
    return scratch / f"kept-{name}-{rank}"
