"""Gradients and figures of a step summed over all ranks where NumPy sees them.

Decides: which rows of a gradient travel, and in what buffers. Never: how buffers travel; the collectives do.

    sums = host_all_reduce(collectives, [matrix, Rows(values, indices, 20_000)], [loss])

Of a matrix of many rows only those travel that some rank has anything in: an embedding or a first layer over sparse
rows has zeros in most of them. The ranks first agree on these rows, a byte a row, and then sum them as one block,
beside all that is small. All hold bitwise the same sums.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from distrain.aligned_memory import ALIGNMENT, aligned_empty, rounded_up
from distrain.jit import compiled

MIN_ROWS = 1024  # below, a matrix travels as it is: there is nothing to save
MAX_UNION = 0.75  # above this share of the rows, all travel; a guess, other values were not tried


class Rows(NamedTuple):
    """Some rows of a gradient; those that are named twice add up.

    Attributes:
        values: `[m, width]`.
        indices: int32 or int64 `[m]`.
        num_rows: of the whole gradient.
    """

    values: np.ndarray
    indices: np.ndarray
    num_rows: int


Gradient = np.ndarray | Rows


class HostCollectives(Protocol):
    """What this module needs of a backend."""

    def all_reduce_sum(self, buffer: np.ndarray, *, fp16: bool) -> None:
        """Sum a one-dimensional buffer over all ranks; in half precision, where `fp16`."""

    def all_reduce_or(self, mask: np.ndarray) -> None:
        """Make a uint8 mask the union over all ranks."""


def host_all_reduce(
    collectives: HostCollectives, gradients: Sequence[Gradient], figures: Sequence[np.ndarray], *, fp16: bool = False
) -> list[np.ndarray]:
    """The sums over all ranks; all must call it with tensors of the same shapes.

    Args:
        collectives: the backend.
        gradients: arrays, or rows of a matrix.
        figures: arrays.
        fp16: let float32 gradients travel in half precision.

    Returns:
        The sums of the gradients, dense, and of the figures.
    """
    tensors = [*gradients, *figures]
    rows = _travelling_rows(collectives, gradients) | dict.fromkeys(range(len(gradients), len(tensors)))
    buffers: dict[tuple[np.dtype, bool], list[int]] = {}
    for place, tensor in enumerate(tensors):
        dtype = _values(tensor).dtype
        may_halve = fp16 and dtype == np.float32 and place < len(gradients)
        buffers.setdefault((dtype, may_halve), []).append(place)
    sums: dict[int, np.ndarray] = {}
    for (dtype, may_halve), places in buffers.items():
        parts = _parts([_travelling_size(tensors[place], rows[place]) for place in places], dtype)
        for place, part in zip(places, parts.of_tensors, strict=True):
            _pack(tensors[place], rows[place], part)
        collectives.all_reduce_sum(parts.whole, fp16=may_halve)
        for place, part in zip(places, parts.of_tensors, strict=True):
            sums[place] = _unpack(part, rows[place], _shape(tensors[place]))
    return [sums[place] for place in range(len(tensors))]


class _Parts(NamedTuple):
    """A buffer, and the stretch of it that each tensor has."""

    whole: np.ndarray
    of_tensors: list[np.ndarray]


def _parts(sizes: Sequence[int], dtype: np.dtype) -> _Parts:
    """Stretches that begin where TensorFlow takes them over as they are; zeros are between them."""
    step = ALIGNMENT // dtype.itemsize
    starts = np.cumsum([0, *(rounded_up(size, step) for size in sizes)]).tolist()
    whole = aligned_empty((starts[-1],), dtype)
    for start, end, size in zip(starts, starts[1:], sizes, strict=False):
        whole[start + size : end] = 0
    return _Parts(whole, [whole[start : start + size] for start, size in zip(starts, sizes, strict=False)])


def _travelling_rows(collectives: HostCollectives, gradients: Sequence[Gradient]) -> dict[int, np.ndarray | None]:
    """By place of a gradient the rows of it that travel, int64 ascending; None for all."""
    travelling: dict[int, np.ndarray | None] = dict.fromkeys(range(len(gradients)))
    thin = [
        place
        for place, gradient in enumerate(gradients)
        if isinstance(gradient, Rows) or (gradient.ndim > 1 and len(gradient) >= MIN_ROWS and gradient.size > 0)
    ]
    if not thin:
        return travelling
    masks = [_mask(gradients[place]) for place in thin]
    union = np.concatenate(masks)
    collectives.all_reduce_or(union)
    ends = np.cumsum([len(mask) for mask in masks])[:-1]
    rows = [np.flatnonzero(part) for part in np.split(union.view(np.bool_), ends)]
    if sum(map(len, rows)) < MAX_UNION * len(union):
        travelling.update(zip(thin, rows, strict=True))
    return travelling


def _mask(gradient: Gradient) -> np.ndarray:
    if isinstance(gradient, Rows):
        mask = np.zeros(gradient.num_rows, np.uint8)
        mask[gradient.indices] = 1
        return mask
    as_bits = np.dtype(f"u{gradient.itemsize}")
    return _rows_with_anything(gradient.reshape(len(gradient), _width(gradient)).view(as_bits))


def _values(tensor: Gradient) -> np.ndarray:
    return tensor.values if isinstance(tensor, Rows) else tensor


def _shape(tensor: Gradient) -> tuple[int, ...]:
    return (tensor.num_rows, *tensor.values.shape[1:]) if isinstance(tensor, Rows) else tensor.shape


def _width(tensor: Gradient) -> int:
    """Numbers in one row."""
    return math.prod(_shape(tensor)[1:])


def _travelling_size(tensor: Gradient, rows: np.ndarray | None) -> int:
    return math.prod(_shape(tensor)) if rows is None else len(rows) * _width(tensor)


def _pack(tensor: Gradient, rows: np.ndarray | None, part: np.ndarray) -> None:
    """Fill `part` with the rows of `tensor`."""
    if isinstance(tensor, Rows):
        slots = tensor.indices if rows is None else np.searchsorted(rows, tensor.indices)
        width = _width(tensor)
        add_rows(slots, tensor.values.reshape(len(tensor.indices), width), part.reshape(-1, width))
    elif rows is None:
        part[:] = tensor.ravel()
    else:
        width = _width(tensor)
        np.take(tensor.reshape(len(tensor), width), rows, axis=0, out=part.reshape(len(rows), width), mode="clip")


def _unpack(part: np.ndarray, rows: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    """A tensor of `shape` with `part` in its rows, and zeros elsewhere."""
    if rows is None:
        return part.reshape(shape)
    whole = aligned_empty(shape, part.dtype)
    width = math.prod(shape[1:])
    _spread(part.reshape(len(rows), width), rows, whole.reshape(shape[0], width))
    return whole


@compiled
def _rows_with_anything(matrix: np.ndarray) -> np.ndarray:
    """Of each row, of whole numbers, whether any is not zero, uint8."""
    mask = np.empty(len(matrix), np.uint8)
    for row in range(len(matrix)):
        bits = matrix[row, 0]
        for column in range(1, matrix.shape[1]):  # to the end, without a way out: the processor takes many at a time
            bits |= matrix[row, column]
        mask[row] = bits != 0
    return mask


@compiled
def add_rows(slots: np.ndarray, values: np.ndarray, sums: np.ndarray) -> None:
    """Set `sums` to zero, and add each row of `values` to the one in its slot."""
    sums[:] = 0
    for place in range(len(slots)):
        slot = slots[place]
        for column in range(values.shape[1]):
            sums[slot, column] += values[place, column]


@compiled
def _spread(block: np.ndarray, rows: np.ndarray, matrix: np.ndarray) -> None:
    """Fill `matrix` with the rows of `block` at ascending `rows`, and with zeros elsewhere."""
    done = 0
    for place in range(len(rows)):
        matrix[done : rows[place]] = 0
        matrix[rows[place]] = block[place]
        done = rows[place] + 1
    matrix[done:] = 0
