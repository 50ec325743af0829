"""Columns of Arrow, as Parquet and Arrow files hold them, as arrays.

Decides: which types of Arrow are arrays, and what each becomes. Never: reads a file.

    >>> import pyarrow
    >>> arrow_values(pyarrow.array([[1, 2], [3, 4]]))
    array([[1, 2],
           [3, 4]])

Lists of equal length become axes of the array. Decimals become float64. Texts and bytes become objects, which `map=`
turns into numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from distrain.formats.columns import OBJECTS, Column

_CURE = "Write it as numbers, or leave it out of features=."


class Unfit(ValueError):  # noqa: N818 - no error that users see: callers raise a DataError that names the file
    """A value that no array can hold.

    Args:
        row: number of its row, from 0.
        problem: a clause about the value.
    """

    def __init__(self, row: int, problem: str) -> None:
        super().__init__(problem)
        self.row = row


def flat_fields(schema: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield path and type of each column; the fields of a struct are columns of their own, as "image.bytes"."""
    import pyarrow

    def walk(path: tuple[str, ...], kind: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
        if pyarrow.types.is_struct(kind):
            for index in range(kind.num_fields):
                yield from walk((*path, kind.field(index).name), kind.field(index).type)
        else:
            yield path, kind

    for field in schema:
        yield from walk((field.name,), field.type)


def arrow_columns(schema: Any, rows: int, stored_rows: int) -> dict[str, Column]:
    """Return the columns of a schema, by name."""
    columns: dict[str, Column] = {}
    for path, kind in flat_fields(schema):
        name = ".".join(path)
        dtype, shape, problem = _form(kind)
        problem = "stands there twice. Rename one of the two." if name in columns else problem
        columns[name] = Column(rows, dtype, shape, stored_rows, problem)
    return columns


def _form(kind: Any) -> tuple[np.dtype[Any], tuple[int, ...] | None, str]:
    """Return dtype, shape and problem of a column; the shape is None where only the rows show it."""
    import pyarrow
    from pyarrow import types

    if isinstance(kind, pyarrow.FixedShapeTensorType):
        return np.dtype(kind.value_type.to_pandas_dtype()), tuple(kind.shape[axis] for axis in _axes(kind)), ""
    if isinstance(kind, pyarrow.BaseExtensionType):
        return _form(kind.storage_type)
    if types.is_dictionary(kind):
        return _form(kind.value_type)
    if types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind):
        return np.dtype(kind.to_pandas_dtype()), (), ""
    if types.is_decimal(kind):
        return np.dtype(np.float64), (), ""
    if is_text_or_bytes(kind):
        return OBJECTS, (), ""
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        dtype, shape, problem = _form(kind.value_type)
        if problem or dtype == OBJECTS:
            return OBJECTS, None, problem or f"holds lists of texts or bytes ({kind}). {_CURE}"
        known = types.is_fixed_size_list(kind) and shape is not None
        return dtype, (kind.list_size, *(shape or ())) if known else None, ""
    return OBJECTS, None, f"is of type {kind}, which is no number. {_CURE}"


def is_text_or_bytes(kind: Any) -> bool:
    """Whether a type of Arrow is text or bytes."""
    from pyarrow import types

    texts = (types.is_string, types.is_large_string, types.is_string_view)
    octets = (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary)
    return any(check(kind) for check in (*texts, *octets))


def column_values(column: Any, path: Sequence[str]) -> np.ndarray:
    """Return the array of a column, or of a field of a struct column, chunk by chunk.

    Args:
        column: a `pyarrow.ChunkedArray`, or a `pyarrow.Array`.
        path: name of the column, and of the fields down to a field of a struct.

    Raises:
        Unfit: a value is null, or lists have unequal lengths.
    """
    import pyarrow.compute

    pieces, row = [], 0
    for chunk in column.chunks if hasattr(column, "chunks") else [column]:
        for name in path[1:]:
            chunk = pyarrow.compute.struct_field(chunk, name)
        try:
            pieces.append(arrow_values(chunk))
        except Unfit as unfit:
            raise Unfit(row + unfit.row, str(unfit)) from None
        row += len(chunk)
        if pieces[-1].shape[1:] != pieces[0].shape[1:]:
            raise Unfit(row - len(chunk), _unequal(pieces[-1].shape[1:], pieces[0].shape[1:]))
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def arrow_values(array: Any) -> np.ndarray:
    """Return the values of a `pyarrow.Array`, without a copy where the types allow it.

    Raises:
        Unfit: a value is null, or lists have unequal lengths.
    """
    import pyarrow
    from pyarrow import types

    if isinstance(array, pyarrow.ExtensionArray):
        stored, kind = arrow_values(array.storage), array.type
        if not isinstance(kind, pyarrow.FixedShapeTensorType):
            return stored
        return stored.reshape(len(array), *kind.shape).transpose(0, *(axis + 1 for axis in _axes(kind)))
    if array.null_count:
        row = int(np.argmax(array.is_null().to_numpy(zero_copy_only=False)))
        raise Unfit(row, "is null. Fill it with a number, or leave the column out of features=.")
    if types.is_dictionary(array.type):
        return _decoded(array)
    if types.is_fixed_size_list(array.type) or types.is_list(array.type) or types.is_large_list(array.type):
        return _lists(array)
    if types.is_decimal(array.type):
        array = array.cast(pyarrow.float64())
    values: np.ndarray = array.to_numpy(zero_copy_only=False)
    return values


def _axes(tensor: Any) -> Sequence[int]:
    """Return the axes of the shape that a type of tensors stores, in the order of the values' axes."""
    return tensor.permutation or range(len(tensor.shape))


def _decoded(array: Any) -> np.ndarray:
    """Return the values of a dictionary-encoded column; equal texts share their memory."""
    import pyarrow

    if array.dictionary.null_count:
        return arrow_values(array.dictionary_decode())
    used, inverse = np.unique(array.indices.to_numpy(zero_copy_only=False), return_inverse=True)
    return arrow_values(array.dictionary.take(pyarrow.array(used)))[inverse]


def _lists(array: Any) -> np.ndarray:
    lengths = array.value_lengths().to_numpy(zero_copy_only=False)
    if len(lengths) and (lengths != lengths[0]).any():
        row = int(np.argmax(lengths != lengths[0]))
        raise Unfit(row, _unequal((int(lengths[row]),), (int(lengths[0]),)))
    length = int(lengths[0]) if len(lengths) else 0
    try:
        values = arrow_values(array.flatten())
    except Unfit as unfit:
        raise Unfit(unfit.row // max(1, length), f"holds a list in which a value {unfit}") from None
    return values.reshape(len(array), length, *values.shape[1:])


def _unequal(found: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    return (
        f"holds a list of length {found[0]}, and earlier rows of length {wanted[0]}: give all rows one length, as by "
        "padding with 0."
    )
