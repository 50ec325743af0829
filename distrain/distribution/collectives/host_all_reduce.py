"""Sums of a step's gradients and metrics over all ranks, on NumPy arrays.

Decides: which rows of a gradient travel, and in which buffers. Never: how buffers travel; the collectives do.

    sums = host_all_reduce(collectives, [matrix, GradientRows(values, indices, 20_000)], [loss])

The gradient of an embedding, or of a first layer over sparse rows, has zeros in most rows. Of such a matrix only rows
travel that are non-zero on some rank. The ranks first agree on these rows, a byte a row. Then they sum the rows
together with all small tensors in one buffer per dtype. All ranks hold bitwise the same sums.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from distrain.aligned_memory import ALIGNMENT, aligned_empty, rounded_up
from distrain.jit import compiled

MIN_ROWS = 1024  # a matrix of fewer rows travels whole: there is nothing to save
MAX_UNION = 0.75  # fraction of the rows above which all rows travel; a guess, as no other value was measured


class GradientRows(NamedTuple):
    """Some rows of a gradient; rows that `indices` name twice add up.

    Attributes:
        values: `[m, width]`.
        indices: int32 or int64 `[m]`.
        num_rows: rows of the whole gradient.
    """

    values: np.ndarray
    indices: np.ndarray
    num_rows: int


Gradient = np.ndarray | GradientRows


class HostCollectives(Protocol):
    """The collectives that this module uses."""

    def all_reduce_sum(self, buffer: np.ndarray, *, fp16: bool) -> None:
        """Sum a one-dimensional buffer in place over all ranks; `fp16` allows half precision."""

    def all_reduce_or(self, mask: np.ndarray) -> None:
        """Set a uint8 mask in place to its bitwise or over all ranks."""


def host_all_reduce(
    collectives: HostCollectives, gradients: Sequence[Gradient], metrics: Sequence[np.ndarray], *, fp16: bool = False
) -> list[np.ndarray]:
    """Return the sums over all ranks; all ranks must call this with tensors of the same shapes.

    Args:
        collectives: sums buffers over the ranks.
        gradients: arrays, or rows of a matrix.
        metrics: arrays.
        fp16: whether float32 gradients travel in half precision.

    Returns:
        The sums of the gradients, as dense arrays, then the sums of the metrics.
    """
    tensors = [*gradients, *metrics]
    rows = _travelling_rows(collectives, gradients) | dict.fromkeys(range(len(gradients), len(tensors)))
    buffers: dict[tuple[np.dtype, bool], list[int]] = {}
    for index, tensor in enumerate(tensors):
        dtype = _values(tensor).dtype
        is_fp16 = fp16 and dtype == np.float32 and index < len(gradients)
        buffers.setdefault((dtype, is_fp16), []).append(index)
    sums: dict[int, np.ndarray] = {}
    for (dtype, is_fp16), indices in buffers.items():
        packed = _packed_buffer([_travelling_size(tensors[index], rows[index]) for index in indices], dtype)
        for index, part in zip(indices, packed.of_tensors, strict=True):
            _pack(tensors[index], rows[index], part)
        collectives.all_reduce_sum(packed.whole, fp16=is_fp16)
        for index, part in zip(indices, packed.of_tensors, strict=True):
            sums[index] = _unpack(part, rows[index], _shape(tensors[index]))
    return [sums[index] for index in range(len(tensors))]


class _PackedBuffer(NamedTuple):
    """A buffer, and for each tensor a view into the buffer."""

    whole: np.ndarray
    of_tensors: list[np.ndarray]


def _packed_buffer(sizes: Sequence[int], dtype: np.dtype) -> _PackedBuffer:
    """Return a buffer with aligned views, which TensorFlow takes over without a copy, and zeros between the views."""
    step = ALIGNMENT // dtype.itemsize
    starts = np.cumsum([0, *(rounded_up(size, step) for size in sizes)]).tolist()
    whole = aligned_empty((starts[-1],), dtype)
    for start, end, size in zip(starts, starts[1:], sizes, strict=False):
        whole[start + size : end] = 0
    return _PackedBuffer(whole, [whole[start : start + size] for start, size in zip(starts, sizes, strict=False)])


def _travelling_rows(collectives: HostCollectives, gradients: Sequence[Gradient]) -> dict[int, np.ndarray | None]:
    """Return by index of a gradient the rows that travel, int64 ascending; None if all rows travel."""
    travelling: dict[int, np.ndarray | None] = dict.fromkeys(range(len(gradients)))
    sparse = [
        index
        for index, gradient in enumerate(gradients)
        if isinstance(gradient, GradientRows) or (gradient.ndim > 1 and len(gradient) >= MIN_ROWS and gradient.size > 0)
    ]
    if not sparse:
        return travelling
    masks = [_mask(gradients[index]) for index in sparse]
    union = np.concatenate(masks)
    collectives.all_reduce_or(union)
    ends = np.cumsum([len(mask) for mask in masks])[:-1]
    rows = [np.flatnonzero(part) for part in np.split(union.view(np.bool_), ends)]
    if sum(map(len, rows)) < MAX_UNION * len(union):
        travelling.update(zip(sparse, rows, strict=True))
    return travelling


def _mask(gradient: Gradient) -> np.ndarray:
    if isinstance(gradient, GradientRows):
        mask = np.zeros(gradient.num_rows, np.uint8)
        mask[gradient.indices] = 1
        return mask
    as_bits = np.dtype(f"u{gradient.itemsize}")
    return _nonzero_rows(gradient.reshape(len(gradient), _width(gradient)).view(as_bits))


def _values(tensor: Gradient) -> np.ndarray:
    return tensor.values if isinstance(tensor, GradientRows) else tensor


def _shape(tensor: Gradient) -> tuple[int, ...]:
    return (tensor.num_rows, *tensor.values.shape[1:]) if isinstance(tensor, GradientRows) else tensor.shape


def _width(tensor: Gradient) -> int:
    """Return the number of values in one row."""
    return math.prod(_shape(tensor)[1:])


def _travelling_size(tensor: Gradient, rows: np.ndarray | None) -> int:
    return math.prod(_shape(tensor)) if rows is None else len(rows) * _width(tensor)


def _pack(tensor: Gradient, rows: np.ndarray | None, part: np.ndarray) -> None:
    """Fill `part` with the rows of `tensor`."""
    if isinstance(tensor, GradientRows):
        indices = tensor.indices if rows is None else np.searchsorted(rows, tensor.indices)
        width = _width(tensor)
        _add_rows(indices, tensor.values.reshape(len(tensor.indices), width), part.reshape(-1, width))
    elif rows is None:
        part[:] = tensor.ravel()
    else:
        width = _width(tensor)
        np.take(tensor.reshape(len(tensor), width), rows, axis=0, out=part.reshape(len(rows), width), mode="clip")


def _unpack(part: np.ndarray, rows: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    """Return a tensor of `shape` with `part` in the given rows, and zeros elsewhere."""
    if rows is None:
        return part.reshape(shape)
    whole = aligned_empty(shape, part.dtype)
    width = math.prod(shape[1:])
    _spread(part.reshape(len(rows), width), rows, whole.reshape(shape[0], width))
    return whole


@compiled
def _nonzero_rows(matrix: np.ndarray) -> np.ndarray:
    """Return for each row of an unsigned integer matrix whether any value is not zero, as uint8."""
    mask = np.empty(len(matrix), np.uint8)
    for row in range(len(matrix)):
        bits = matrix[row, 0]
        for column in range(1, matrix.shape[1]):  # no early exit, so that LLVM vectorizes the loop
            bits |= matrix[row, column]
        mask[row] = bits != 0
    return mask


@compiled
def _add_rows(indices: np.ndarray, values: np.ndarray, sums: np.ndarray) -> None:
    """Set `sums` to zero, then add each row of `values` to the row of `sums` at its index.

    Args:
        indices: int32 or int64 `[m]`, below n.
        values: `[m, width]`.
        sums: `[n, width]`.
    """
    sums[:] = 0
    for number in range(len(indices)):
        own, total = values[number], sums[indices[number]]
        for column in range(len(own)):
            total[column] += own[column]


@compiled
def _spread(block: np.ndarray, rows: np.ndarray, matrix: np.ndarray) -> None:
    """Fill `matrix` with the rows of `block` at `rows`, and with zeros elsewhere.

    Zeros everywhere first are faster than zeros between the rows, which come in stretches of few rows.
    """
    matrix[:] = 0
    for number in range(len(rows)):
        own, row = block[number], matrix[rows[number]]
        for column in range(len(own)):  # faster than `row[:] = own`, for which Numba compares the addresses
            row[column] = own[column]
