"""Compiled kernels over ragged rows: gather, copy, pad and pack rows, and order entries by column.

Decides: how many tokens a packed row takes. Never: checks bounds; `shards.py` and `sources.py` check what they pass.

    >>> row_ids, words = pack_rows(np.array([0, 2, 3]), np.array([8, 9, 1], np.int32), 3)
    >>> row_ids.tolist(), words.tolist()
    ([0, 0, 1, 1], [8, 9, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0])

The kernels release the interpreter lock, so that they overlap with a training step. Loops run over slices, because LLVM
does not vectorize a loop whose index may be negative.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distrain.jit import compiled


@compiled
def gather_rows(
    row_splits: np.ndarray, columns: np.ndarray, values: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The entries of some rows.

    Args:
        row_splits: int64 `[n + 1]`.
        columns: int32 `[nnz]`.
        values: float32 `[nnz]`.
        rows: int64 `[b]`: row numbers, in output order.

    Returns:
        row_ids: int32 `[entries]`, ascending from 0 to b - 1.
        columns: int32 `[entries]`.
        values: float32 `[entries]`.
    """
    total = 0
    for row in rows:
        total += row_splits[row + 1] - row_splits[row]
    row_ids = np.empty(total, np.int32)
    out_columns = np.empty(total, np.int32)
    out_values = np.empty(total, np.float32)
    begin = 0
    for row_id in range(len(rows)):
        start, stop = row_splits[rows[row_id]], row_splits[rows[row_id] + 1]
        end = begin + stop - start
        own_columns, own_values = columns[start:stop], values[start:stop]
        ids_slice, columns_slice, values_slice = row_ids[begin:end], out_columns[begin:end], out_values[begin:end]
        for index in range(len(own_columns)):
            ids_slice[index] = row_id
            columns_slice[index] = own_columns[index]
            values_slice[index] = own_values[index]
        begin = end
    return row_ids, out_columns, out_values


@compiled
def copy_rows(
    row_splits: np.ndarray,
    columns: np.ndarray,
    values: np.ndarray,
    first_row: int,
    targets: np.ndarray,
    out_splits: np.ndarray,
    out_columns: np.ndarray,
    out_values: np.ndarray,
) -> int:
    """Copy consecutive rows to given rows of the output.

    Args:
        row_splits: int64 `[n + 1]`.
        columns: int32 `[nnz]`.
        values: float32 `[nnz]`, or empty when `out_values` is empty.
        first_row: first row to copy.
        targets: int64 `[k]`: output row of each row from `first_row` on; -1 skips the row.
        out_splits: int64 `[m + 1]`: row splits of the output, which must fit the lengths of the copied rows.
        out_columns: int32 `[out_splits[m]]`: receives the columns.
        out_values: float32 `[out_splits[m]]`: receives the values; empty for rows without values.

    Returns:
        The largest copied column as an unsigned number, so that a negative column appears large; 0 without columns.
    """
    max_column = np.uint32(0)
    for row in range(len(targets)):
        if targets[row] < 0:
            continue
        start, stop = row_splits[first_row + row], row_splits[first_row + row + 1]
        begin = out_splits[targets[row]]
        own, columns_slice = columns[start:stop], out_columns[begin : begin + stop - start]
        for index in range(len(own)):
            columns_slice[index] = own[index]
            max_column = max(max_column, np.uint32(own[index]))
        if len(out_values):
            own_values, values_slice = values[start:stop], out_values[begin : begin + stop - start]
            for index in range(len(own)):
                values_slice[index] = own_values[index]
    return int(max_column)


@compiled
def write_row_ids(row_splits: np.ndarray, row_ids: np.ndarray) -> None:
    """Set `row_ids`, int32 `[row_splits[n] - row_splits[0]]`, to the row of each entry, ascending from 0."""
    for row in range(len(row_splits) - 1):
        row_ids[row_splits[row] - row_splits[0] : row_splits[row + 1] - row_splits[0]] = row


@compiled
def pad_rows(row_splits: np.ndarray, columns: np.ndarray, length: int) -> np.ndarray:
    """The rows as int32 `[n, length]`, cut or padded with 0 at the end."""
    padded = np.zeros((len(row_splits) - 1, length), np.int32)
    for row in range(len(padded)):
        own = columns[row_splits[row] : row_splits[row + 1]][:length]
        for index in range(len(own)):
            padded[row, index] = own[index]
    return padded


@compiled
def chunks_of_rows(lengths: Any, pad_multiple: int) -> Any:
    """Chunks of `pad_multiple` tokens, padding included, of packed rows of `lengths` words: a number or an array."""
    return (lengths + pad_multiple - 1) // pad_multiple + 1


@compiled
def pack_rows(row_splits: np.ndarray, columns: np.ndarray, pad_multiple: int) -> tuple[np.ndarray, np.ndarray]:
    """Pack rows one after another; each row begins at a multiple of `pad_multiple` and ends with padding of id 0.

    Args:
        row_splits: int64 `[n + 1]`.
        columns: int32 `[row_splits[n]]`: word ids.
        pad_multiple: tokens in a chunk, and the fewest padding tokens between two rows.

    Returns:
        row_ids: int32 `[packed_tokens / pad_multiple]`, ascending: the row of each chunk.
        words: int32 `[packed_tokens]`: word ids, with id 0 for padding.
    """
    num_chunks = 0
    for row in range(len(row_splits) - 1):
        num_chunks += chunks_of_rows(row_splits[row + 1] - row_splits[row], pad_multiple)
    row_ids = np.empty(num_chunks, np.int32)
    words = np.zeros(num_chunks * pad_multiple, np.int32)
    first_chunk = 0
    for row in range(len(row_splits) - 1):
        own, words_slice = columns[row_splits[row] : row_splits[row + 1]], words[first_chunk * pad_multiple :]
        for index in range(len(own)):
            words_slice[index] = own[index]
        next_chunk = first_chunk + chunks_of_rows(len(own), pad_multiple)
        row_ids[first_chunk:next_chunk] = row
        first_chunk = next_chunk
    return row_ids, words


@compiled
def order_by_column(columns: np.ndarray, num_columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Order entries by column, so that a sum over equal columns reads neighbours.

    Args:
        columns: int32 `[nnz]`: the column of each entry.
        num_columns: exclusive upper bound of the columns.

    Returns:
        order: int32 `[nnz]`: entries by ascending column, equal columns in input order.
        segments: int32 `[nnz]`: index into `touched` of each entry of `order`.
        touched: int32 `[m]`: distinct columns, ascending.
    """
    num_entries = len(columns)
    order = np.empty(num_entries, np.int32)
    segments = np.empty(num_entries, np.int32)
    if num_columns > 16 * num_entries + 65_536:  # a count of every column would cost more than a sort of the entries
        order[:] = np.argsort(columns, kind="mergesort")
    else:
        ends = np.zeros(num_columns + 1, np.int32)
        for column in columns:
            ends[column + 1] += 1
        for column in range(num_columns):
            ends[column + 1] += ends[column]
        for entry in range(num_entries):
            order[ends[columns[entry]]] = entry
            ends[columns[entry]] += 1
    touched = np.empty(num_entries, np.int32)
    num_touched = 0
    for index in range(num_entries):
        column = columns[order[index]]
        if index == 0 or column != touched[num_touched - 1]:
            touched[num_touched] = column
            num_touched += 1
        segments[index] = num_touched - 1
    return order, segments, touched[:num_touched].copy()
