"""Gradients and figures of a step summed by ranks of one machine, in memory that they share.

Decides: where each tensor stands in the memory, and how it is summed. Never: how ranks come to the memory.

    total = SharedSum(shared, [Part((20_000, 64), np.float32, is_rows=True, together=True), Part((), np.float32)])
    matrix, loss = total([Rows(values, indices, 20_000), loss])

Each rank writes what it has, waits for the others, and adds up what all have written: in the order of ranks, so that
all hold bitwise the same sums. What is small each rank adds up for itself; of a large sum that the ranks make together
each adds up a share, and all read the same memory. Of `Rows` only the rows that a rank has are written and read; not
even these are written, where a layer made them in this memory (`SharedMemory.empty`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from distrain.aligned_memory import ALIGNMENT, address_of, aligned_empty, rounded_up
from distrain.distribution.collectives.host_all_reduce import Gradient, Rows, add_rows
from distrain.distribution.collectives.shared_memory import AREA_BYTES, ARENA_BYTES, SharedMemory
from distrain.jit import compiled

_HEAD_BYTES = ALIGNMENT
_MIN_TOGETHER = 4096  # numbers: there is nothing to gain by fewer


class Part(NamedTuple):
    """A tensor of a sum.

    Attributes:
        shape: of the whole tensor.
        dtype: of its values.
        is_rows: whether it is given as `Rows`.
        together: whether the ranks may make the sum together, in memory that the next sum writes to again.
    """

    shape: tuple[int, ...]
    dtype: Any
    is_rows: bool = False
    together: bool = False

    @property
    def num_bytes(self) -> int:
        """Of the whole tensor."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


class _Stretch(NamedTuple):
    """Dense tensors of one dtype that stand one after the other, so that they are summed as one.

    Attributes:
        dtype: theirs.
        start: byte of an area where they begin.
        size: numbers, those between arrays included.
        firsts: by place of a part the first of its numbers.
    """

    dtype: np.dtype
    start: int
    size: int
    firsts: dict[int, int]


class _Layout(NamedTuple):
    """Where tensors stand in an area.

    Attributes:
        stretches: of the tensors that each rank sums for itself, dense.
        starts: by place of any other part the byte where it begins.
        num_bytes: of all.
    """

    stretches: list[_Stretch]
    starts: dict[int, int]
    num_bytes: int


class SharedSum:
    """Sums over all ranks of tensors of certain shapes.

    Args:
        shared: the memory.
        parts: the tensors; they must fit.

    Attributes:
        totals: by place of a part whose sum the ranks make together, the memory where they do; nobody else may write to
            it.
    """

    def __init__(self, shared: SharedMemory, parts: Sequence[Part]) -> None:
        self._shared = shared
        if sum(_num_kept(part) for part in parts) > shared.room_to_keep:
            parts = [part._replace(together=False) for part in parts]
        layout = _layout(parts)
        self._small = _SmallTensors(shared, parts, layout.stretches)
        self._large: dict[int, Any] = {
            place: (_LargeRows if parts[place].is_rows else _LargeArray)(shared, parts[place], start)
            for place, start in layout.starts.items()
        }
        self.totals = {place: each.total for place, each in self._large.items()}

    def __call__(self, tensors: Sequence[Gradient]) -> list[np.ndarray]:
        """The sums, dense; all ranks must call this. Those of `totals` are there until the next call."""
        for place, tensor in enumerate(tensors):
            if place in self._large:
                self._large[place].write(tensor)
            else:
                self._small.write(place, tensor)
        self._shared.wait()
        sums = self._small.sums() | self.totals
        for each in self._large.values():
            each.add_up()
        self._shared.wait()
        return [sums[place] for place in range(len(tensors))]


def fits(parts: Sequence[Part]) -> bool:
    """Whether there is room for these tensors."""
    return _layout(parts).num_bytes <= AREA_BYTES - ARENA_BYTES


def _is_made_together(part: Part) -> bool:
    return part.together and math.prod(part.shape) >= _MIN_TOGETHER


def _num_kept(part: Part) -> int:
    """Bytes of the memory for good that a sum takes."""
    if not _is_made_together(part):
        return 0
    return rounded_up(part.num_bytes) + (rounded_up(part.shape[0]) if part.is_rows else 0)


def _layout(parts: Sequence[Part]) -> _Layout:
    large = [place for place, part in enumerate(parts) if _is_made_together(part)]
    stretches, starts, end = [], {}, 0
    for dtype in dict.fromkeys(np.dtype(part.dtype) for place, part in enumerate(parts) if place not in large):
        firsts, size = {}, 0
        for place, part in enumerate(parts):
            if part.dtype == dtype and place not in large:
                firsts[place] = size
                size += rounded_up(math.prod(part.shape), ALIGNMENT // dtype.itemsize)
        stretches.append(_Stretch(dtype, end, size, firsts))
        end += size * dtype.itemsize
    for place in large:
        starts[place] = end
        if parts[place].is_rows:
            end += _HEAD_BYTES + rounded_up(4 * parts[place].shape[0])
        end += rounded_up(parts[place].num_bytes)
    return _Layout(stretches, starts, end)


class _SmallTensors:
    """Tensors that each rank sums for itself, dense."""

    def __init__(self, shared: SharedMemory, parts: Sequence[Part], stretches: Sequence[_Stretch]) -> None:
        self._shapes = [part.shape for part in parts]
        self._of_ranks = []
        self._own: dict[int, np.ndarray] = {}
        for stretch in stretches:
            num_bytes = stretch.size * stretch.dtype.itemsize
            of_ranks = shared.areas[:, stretch.start : stretch.start + num_bytes].view(stretch.dtype)
            self._of_ranks.append((of_ranks, stretch.firsts))
            self._own |= self._split(of_ranks[shared.rank], stretch.firsts)

    def write(self, place: int, tensor: Gradient) -> None:
        """Write this rank's tensor."""
        own = self._own[place]
        if isinstance(tensor, Rows):
            width = math.prod(own.shape[1:])
            values = tensor.values.reshape(len(tensor.indices), width)
            add_rows(tensor.indices, values, own.reshape(len(own), width))
        else:
            own[...] = tensor

    def sums(self) -> dict[int, np.ndarray]:
        """By place of a part the sum over all ranks."""
        sums: dict[int, np.ndarray] = {}
        for of_ranks, firsts in self._of_ranks:
            total = aligned_empty(of_ranks.shape[1:], of_ranks.dtype)
            _add_up(of_ranks, total)
            sums |= self._split(total, firsts)
        return sums

    def _split(self, numbers: np.ndarray, firsts: dict[int, int]) -> dict[int, np.ndarray]:
        shapes = {place: self._shapes[place] for place in firsts}
        return {
            place: numbers[first : first + math.prod(shapes[place])].reshape(shapes[place])
            for place, first in firsts.items()
        }


class _LargeArray:
    """An array whose sum the ranks make together.

    Attributes:
        total: the sum.
    """

    def __init__(self, shared: SharedMemory, part: Part, start: int) -> None:
        of_ranks = shared.areas[:, start : start + part.num_bytes].view(part.dtype)
        self._own = of_ranks[shared.rank].reshape(part.shape)
        self.total = shared.keep(part.shape, part.dtype)
        first, end = (of_ranks.shape[1] * rank // shared.size for rank in (shared.rank, shared.rank + 1))
        self._of_ranks, self._share = of_ranks[:, first:end], self.total.reshape(-1)[first:end]

    def write(self, array: np.ndarray) -> None:
        """Write this rank's array."""
        self._own[...] = array

    def add_up(self) -> None:
        """Make this rank's share of the sum."""
        _add_up(self._of_ranks, self._share)


class _LargeRows:
    """A tensor that is given as rows, whose sum the ranks make together.

    Of each rank there are: how many rows it has, and the byte of its area where their values begin (two int64); the
    rows' numbers (int32); room for values, which may be elsewhere in the area.

    Attributes:
        total: the sum.
    """

    def __init__(self, shared: SharedMemory, part: Part, start: int) -> None:
        num_rows, self._width = part.shape[0], math.prod(part.shape[1:])
        areas, self._rank = shared.areas, shared.rank
        self._first_value = start + _HEAD_BYTES + rounded_up(4 * num_rows)
        self._own_area = areas[shared.rank]
        self._heads = areas[:, start : start + 16].view(np.int64)
        self._rows = areas[:, start + _HEAD_BYTES : start + _HEAD_BYTES + 4 * num_rows].view(np.int32)
        self._values = areas.view(part.dtype)
        self.total = shared.keep(part.shape, part.dtype)
        self._is_filled = shared.keep((num_rows,), np.uint8)

    def write(self, tensor: Rows) -> None:
        """Write this rank's rows; those that are named twice as one."""
        rows, slots = tensor.indices, None
        if not _is_ascending(rows):
            rows, slots = np.unique(rows, return_inverse=True)
        values = tensor.values.reshape(len(tensor.indices), self._width)
        start = address_of(values) - address_of(self._own_area)
        if slots is not None or not 0 <= start < AREA_BYTES:
            start = self._first_value
            first = start // values.itemsize
            room = self._values[self._rank, first : first + len(rows) * self._width].reshape(len(rows), self._width)
            if slots is None:
                room[:] = values
            else:
                add_rows(slots, values, room)
        self._rows[self._rank, : len(rows)] = rows
        self._heads[self._rank] = len(rows), start

    def add_up(self) -> None:
        """Make this rank's share of the sum."""
        counts, starts = self._heads.T.copy()
        known, size = self._rows[0, : counts[0]], len(counts)  # rank 0's stand for those of all
        bounds = [int(known[len(known) * rank // size]) if len(known) else 0 for rank in range(size)]
        bounds = [0, *bounds[1:], len(self.total)]
        _merge_rows(
            counts,
            self._rows,
            self._values,
            starts // self.total.itemsize,
            self._is_filled,
            self.total.reshape(-1, self._width),
            bounds[self._rank],
            bounds[self._rank + 1],
        )


def _add_up(of_ranks: np.ndarray, total: np.ndarray) -> None:
    """Set `total` to the sum of `of_ranks` `[size, ...]`, rank after rank."""
    with np.errstate(all="ignore"):  # too large is infinite, and found as such; between arrays may be anything
        np.add(of_ranks[0], of_ranks[1], out=total)
        for other in of_ranks[2:]:
            np.add(total, other, out=total)


@compiled
def _is_ascending(numbers: np.ndarray) -> bool:
    """Whether each number is greater than the one before."""
    falls = 0
    for place in range(1, len(numbers)):
        falls += numbers[place] <= numbers[place - 1]
    return falls == 0


@compiled
def _merge_rows(
    counts: np.ndarray,
    rows: np.ndarray,
    values: np.ndarray,
    starts: np.ndarray,
    is_filled: np.ndarray,
    total: np.ndarray,
    first: int,
    end: int,
) -> None:
    """Fill rows `first` to `end` of `total` with the sums of those that ranks have, and with zeros elsewhere.

    Args:
        counts: rows of each rank.
        rows: int32 `[size, num_rows]`: each rank's numbers of rows, ascending, the first `counts` of them.
        values: `[size, ...]`: each rank's values, row after row, from place `starts` on.
        starts: int64 `[size]`.
        is_filled: uint8 `[num_rows]`: of each row of `total` whether anything but zeros may be there; kept up to date.
        total: `[num_rows, width]`.
        first: a row.
        end: the row after the last one.
    """
    size, width = len(counts), total.shape[1]
    done = np.empty(size, np.int64)
    for rank in range(size):
        done[rank] = np.searchsorted(rows[rank, : counts[rank]], first)
    for row in range(first, end):
        is_first = True
        for rank in range(size):
            place = done[rank]
            if place == counts[rank] or rows[rank, place] != row:
                continue
            done[rank] += 1
            start = starts[rank] + place * width
            if is_first:
                for unit in range(width):
                    total[row, unit] = values[rank, start + unit]
                is_first = False
            else:
                for unit in range(width):
                    total[row, unit] += values[rank, start + unit]
        if is_first and is_filled[row]:
            total[row] = 0
        is_filled[row] = not is_first
