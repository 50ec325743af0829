"""Row kernels over CSR arrays: pick rows, lay them out padded or packed, and put their entries in column order.

Decides: how much room a packed row has. Never: checks its input, which must be in range (`shards.py` and `examples.py`
see to that). The kernels run without the interpreter's lock, so that they work beside a training step. They walk slices
of a row: a loop whose index may be negative, for all that the compiler knows, is not made of vector instructions.

    row_ids, columns, values = gather_rows(row_splits, columns, values, np.array([4, 2]))
    row_ids, words = pack_rows(row_splits, columns, 3)
    order, segments, touched = order_by_column(columns, num_columns)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distrain.jit import compiled


@compiled
def gather_rows(
    row_splits: np.ndarray, columns: np.ndarray, values: np.ndarray, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The entries of the chosen rows.

    Args:
        row_splits: int64 `[n + 1]`.
        columns: int32 `[nnz]`.
        values: float32 `[nnz]`.
        rows: int64 `[b]`: row numbers, in the order wanted.

    Returns:
        row_ids int32 (0 .. b-1, ascending), columns int32, values float32, all of the same length.
    """
    total = 0
    for row in rows:
        total += row_splits[row + 1] - row_splits[row]
    row_ids = np.empty(total, np.int32)
    out_columns = np.empty(total, np.int32)
    out_values = np.empty(total, np.float32)
    at = 0
    for number in range(len(rows)):
        start, stop = row_splits[rows[number]], row_splits[rows[number] + 1]
        end = at + stop - start
        own_columns, own_values = columns[start:stop], values[start:stop]
        ids_room, columns_room, values_room = row_ids[at:end], out_columns[at:end], out_values[at:end]
        for place in range(len(own_columns)):
            ids_room[place] = number
            columns_room[place] = own_columns[place]
            values_room[place] = own_values[place]
        at = end
    return row_ids, out_columns, out_values


@compiled
def copy_rows(
    row_splits: np.ndarray,
    columns: np.ndarray,
    values: np.ndarray,
    first_row: int,
    places: np.ndarray,
    out_splits: np.ndarray,
    out_columns: np.ndarray,
    out_values: np.ndarray,
) -> int:
    """Copy rows to where they belong among others.

    Args:
        row_splits: int64 `[n + 1]`.
        columns: int32 `[nnz]`.
        values: float32 `[nnz]`; empty, and not looked at, where `out_values` is.
        first_row: the first row to look at.
        places: int64 `[k]`: which row of the output each row from there on becomes; -1 for none.
        out_splits: int64 `[m + 1]`, of which a row's room must be as long as the row.
        out_columns: int32 `[out_splits[m]]`.
        out_values: float32, as long, or empty.

    Returns:
        The highest column that was copied, negative ones taken as unsigned; 0 where there is none.
    """
    highest = np.uint32(0)
    for number in range(len(places)):
        if places[number] < 0:
            continue
        start, stop = row_splits[first_row + number], row_splits[first_row + number + 1]
        out = out_splits[places[number]]
        own, room = columns[start:stop], out_columns[out : out + stop - start]
        for place in range(len(own)):
            room[place] = own[place]
            highest = max(highest, np.uint32(own[place]))
        if len(out_values):
            own_values, room_for_values = values[start:stop], out_values[out : out + stop - start]
            for place in range(len(own)):
                room_for_values[place] = own_values[place]
    return int(highest)


@compiled
def write_row_ids(row_splits: np.ndarray, row_ids: np.ndarray) -> None:
    """Set `row_ids`, int32 `[row_splits[n] - row_splits[0]]`, to the row of each entry: ascending from 0."""
    for row in range(len(row_splits) - 1):
        row_ids[row_splits[row] - row_splits[0] : row_splits[row + 1] - row_splits[0]] = row


@compiled
def pad_rows(row_splits: np.ndarray, columns: np.ndarray, length: int) -> np.ndarray:
    """The rows as int32 `[n, length]`, cut or filled with 0 at the end."""
    padded = np.zeros((len(row_splits) - 1, length), np.int32)
    for row in range(len(padded)):
        own = columns[row_splits[row] : row_splits[row + 1]][:length]
        for place in range(len(own)):
            padded[row, place] = own[place]
    return padded


@compiled
def chunks_of_rows(lengths: Any, pad_multiple: int) -> Any:
    """Chunks of `pad_multiple` tokens, padding included, of packed rows of `lengths` words: a number or an array."""
    return (lengths + pad_multiple - 1) // pad_multiple + 1


@compiled
def pack_rows(row_splits: np.ndarray, columns: np.ndarray, pad_multiple: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows one after the other, each from a multiple of `pad_multiple` tokens on, with a gap of 0 behind it.

    Returns:
        row_ids int32 `[packed_tokens / pad_multiple]`, ascending: the row of each chunk of `pad_multiple` tokens; words
        int32 `[packed_tokens]`.
    """
    num_chunks = 0
    for row in range(len(row_splits) - 1):
        num_chunks += chunks_of_rows(row_splits[row + 1] - row_splits[row], pad_multiple)
    row_ids = np.empty(num_chunks, np.int32)
    words = np.zeros(num_chunks * pad_multiple, np.int32)
    first_chunk = 0
    for row in range(len(row_splits) - 1):
        own, room = columns[row_splits[row] : row_splits[row + 1]], words[first_chunk * pad_multiple :]
        for place in range(len(own)):
            room[place] = own[place]
        next_chunk = first_chunk + chunks_of_rows(len(own), pad_multiple)
        row_ids[first_chunk:next_chunk] = row
        first_chunk = next_chunk
    return row_ids, words


@compiled
def order_by_column(columns: np.ndarray, num_columns: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A stable order of entries by column, so that sums over equal columns run over neighbours.

    Args:
        columns: int32 `[nnz]`.
        num_columns: columns are below it.

    Returns:
        order int32 `[nnz]`: entries by ascending column; segments int32 `[nnz]`: number of the entry's column among
        those present, in that order; touched int32 `[m]`: the columns present, ascending.
    """
    num_entries = len(columns)
    order = np.empty(num_entries, np.int32)
    segments = np.empty(num_entries, np.int32)
    if num_columns > 16 * num_entries + 65_536:  # counting every column would cost more than sorting the entries
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
    for place in range(num_entries):
        column = columns[order[place]]
        if place == 0 or column != touched[num_touched - 1]:
            touched[num_touched] = column
            num_touched += 1
        segments[place] = num_touched - 1
    return order, segments, touched[:num_touched].copy()
