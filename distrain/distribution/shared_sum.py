"""Gradients and figures of a step summed by ranks of one machine, in memory that they share.

Decides: where each tensor stands in the memory, and how it is summed. Never: how ranks come to the memory.

    total = SharedSum(shared, [Part((20_000, 64), np.float32, is_rows=True), Part((), np.float32)])
    matrix, loss = total([Rows(values, indices, 20_000), loss])

Each rank writes what it has, waits for the others, and adds up what all have written: in the order of ranks, so that
all hold bitwise the same sums. Of `Rows` only the rows that a rank has are written and read; not even these are
written, where a layer made them in this memory (`SharedMemory.empty`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from distrain.aligned import ALIGNMENT, aligned_empty, rounded_up
from distrain.compiled import compiled
from distrain.distribution.host_sum import Gradient, Rows, add_rows
from distrain.distribution.shared_memory import AREA_BYTES, LENT_BYTES, SharedMemory

_HEAD_BYTES = ALIGNMENT


class Part(NamedTuple):
    """A tensor of a sum.

    Attributes:
        shape: of the whole tensor.
        dtype: of its values.
        is_rows: whether it is given as `Rows`.
    """

    shape: tuple[int, ...]
    dtype: Any
    is_rows: bool = False


class _Stretch(NamedTuple):
    """Arrays of one dtype that stand one after the other, so that they are summed as one.

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
        stretches: of the arrays.
        rows: by place of a part that is given as rows the byte where it begins.
        num_bytes: of all.
    """

    stretches: list[_Stretch]
    rows: dict[int, int]
    num_bytes: int


class SharedSum:
    """Sums over all ranks of tensors of certain shapes.

    Args:
        shared: the memory.
        parts: the tensors; they must fit.
    """

    def __init__(self, shared: SharedMemory, parts: Sequence[Part]) -> None:
        self._shared = shared
        layout = _layout(parts)
        self._arrays = [_Arrays(areas, shared.rank, parts, layout.stretches) for areas in shared.all_areas]
        self._rows = [
            {place: _RowsOfRanks(areas, parts[place], start) for place, start in layout.rows.items()}
            for areas in shared.all_areas
        ]

    def __call__(self, tensors: Sequence[Gradient]) -> list[np.ndarray]:
        """The sums, dense; all ranks must call this."""
        arrays, rows_of = self._arrays[self._shared.turn], self._rows[self._shared.turn]
        for place, tensor in enumerate(tensors):
            if isinstance(tensor, Rows):
                rows_of[place].write(self._shared.rank, tensor)
            else:
                arrays.own[place][...] = tensor
        self._shared.wait()
        sums = arrays.sums() | {place: rows.sum() for place, rows in rows_of.items()}
        return [sums[place] for place in range(len(tensors))]


def fits(parts: Sequence[Part]) -> bool:
    """Whether there is room for these tensors."""
    return _layout(parts).num_bytes <= AREA_BYTES - LENT_BYTES


def _layout(parts: Sequence[Part]) -> _Layout:
    stretches, rows, end = [], {}, 0
    for dtype in dict.fromkeys(np.dtype(part.dtype) for part in parts if not part.is_rows):
        firsts, size = {}, 0
        for place, part in enumerate(parts):
            if part.dtype == dtype and not part.is_rows:
                firsts[place] = size
                size += rounded_up(math.prod(part.shape), ALIGNMENT // dtype.itemsize)
        stretches.append(_Stretch(dtype, end, size, firsts))
        end += size * dtype.itemsize
    for place, part in enumerate(parts):
        if part.is_rows:
            rows[place] = end
            end += _HEAD_BYTES + rounded_up(4 * part.shape[0])
            end += rounded_up(math.prod(part.shape) * np.dtype(part.dtype).itemsize)
    return _Layout(stretches, rows, end)


class _Arrays:
    """The tensors that are given as arrays, in the areas of one turn.

    Attributes:
        own: by place of a part where this rank writes it.
    """

    def __init__(self, areas: np.ndarray, rank: int, parts: Sequence[Part], stretches: Sequence[_Stretch]) -> None:
        self._shapes = [part.shape for part in parts]
        self._of_ranks = []
        self.own: dict[int, np.ndarray] = {}
        for stretch in stretches:
            num_bytes = stretch.size * stretch.dtype.itemsize
            of_ranks = areas[:, stretch.start : stretch.start + num_bytes].view(stretch.dtype)
            self._of_ranks.append((of_ranks, stretch.firsts))
            self.own |= self._split(of_ranks[rank], stretch.firsts)

    def sums(self) -> dict[int, np.ndarray]:
        """By place of a part the sum over all ranks."""
        sums: dict[int, np.ndarray] = {}
        for of_ranks, firsts in self._of_ranks:
            total = aligned_empty(of_ranks.shape[1:], of_ranks.dtype)
            with np.errstate(all="ignore"):  # too large is infinite, and found as such; between arrays may be anything
                np.add(of_ranks[0], of_ranks[1], out=total)
                for other in of_ranks[2:]:
                    np.add(total, other, out=total)
            sums |= self._split(total, firsts)
        return sums

    def _split(self, numbers: np.ndarray, firsts: dict[int, int]) -> dict[int, np.ndarray]:
        shapes = {place: self._shapes[place] for place in firsts}
        return {
            place: numbers[first : first + math.prod(shapes[place])].reshape(shapes[place])
            for place, first in firsts.items()
        }


class _RowsOfRanks:
    """A tensor that is given as rows, in the areas of one turn.

    Of each rank there are: how many rows it has, and the byte of its area where their values begin (two int64); the
    rows' numbers (int32); room for values, which may be elsewhere in the area.
    """

    def __init__(self, areas: np.ndarray, part: Part, start: int) -> None:
        num_rows, self._width = part.shape[0], math.prod(part.shape[1:])
        first_value = start + _HEAD_BYTES + rounded_up(4 * num_rows)
        self._areas, self._part, self._first_value = areas, part, first_value
        self._heads = areas[:, start : start + 16].view(np.int64)
        self._rows = areas[:, start + _HEAD_BYTES : start + _HEAD_BYTES + 4 * num_rows].view(np.int32)
        self._values = areas.view(part.dtype)

    def write(self, rank: int, tensor: Rows) -> None:
        """Write this rank's rows; those that are named twice as one."""
        rows, slots = tensor.indices, None
        if not _is_ascending(rows):
            rows, slots = np.unique(rows, return_inverse=True)
        values = tensor.values.reshape(len(tensor.indices), self._width)
        start = _address(values) - _address(self._areas[rank])
        if slots is not None or not 0 <= start < AREA_BYTES:
            start = self._first_value
            first = start // values.itemsize
            room = self._values[rank, first : first + len(rows) * self._width].reshape(len(rows), self._width)
            if slots is None:
                room[:] = values
            else:
                add_rows(slots, values, room)
        self._rows[rank, : len(rows)] = rows
        self._heads[rank] = len(rows), start

    def sum(self) -> np.ndarray:
        """The sum over all ranks, of all rows."""
        total = aligned_empty(self._part.shape, self._part.dtype)
        counts, starts = self._heads.T.copy()
        _merge_rows(counts, self._rows, self._values, starts // total.itemsize, total.reshape(-1, self._width))
        return total


def _address(array: np.ndarray) -> int:
    return int(array.__array_interface__["data"][0])


@compiled
def _is_ascending(numbers: np.ndarray) -> bool:
    """Whether each number is greater than the one before."""
    falls = 0
    for place in range(1, len(numbers)):
        falls += numbers[place] <= numbers[place - 1]
    return falls == 0


@compiled
def _merge_rows(
    counts: np.ndarray, rows: np.ndarray, values: np.ndarray, starts: np.ndarray, total: np.ndarray
) -> None:
    """Fill `total` with the sums of rows that ranks have, and with zeros elsewhere.

    Args:
        counts: rows of each rank.
        rows: int32 `[size, num_rows]`: each rank's numbers of rows, ascending, the first `counts` of them.
        values: `[size, ...]`: each rank's values, row after row, from place `starts` on.
        starts: int64 `[size]`.
        total: `[num_rows, width]`.
    """
    size, width = len(counts), total.shape[1]
    done = np.zeros(size, np.int64)
    for row in range(len(total)):
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
        if is_first:
            total[row] = 0
