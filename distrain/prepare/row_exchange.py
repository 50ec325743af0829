"""The rows of several processes, brought into the order of the input.

Decides: how rows travel between processes. Never: what a row holds.

    for rows in in_order(group, scratch, "train", own_rows, store.block_rows, like):
        ...

The process of rank r makes the rows of the blocks r, r + `group.size`, r + 2 * `group.size`, ... of the input.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from distrain.cluster.process_group import ProcessGroup
from distrain.data.prepared.rows import Rows
from distrain.text.ragged import map_array

# Fields of rows on disk; labels have the dtype of the data set.
_FIELDS = {"lengths": np.int32, "labels": None, "columns": np.int32, "values": np.float32, "weights": np.float32}


def in_order(
    group: ProcessGroup, scratch: Path, name: str, rows: Iterator[Rows], block_rows: list[int], like: Rows
) -> Iterator[Rows]:
    """Yield the rows of all processes in the order of the input, in each process.

    Several processes exchange rows through files.

    Args:
        group: the processes with rows.
        scratch: an existing folder, the same for all processes.
        name: prefix of the temporary files in `scratch`.
        rows: this process's rows, in blocks of any size.
        block_rows: number of rows of each input block of this process; complete when `rows` has ended.
        like: no rows, but with the dtypes and shapes of the rows' arrays.
    """
    if group.size == 1:
        yield from rows
        return
    _save(scratch, f"{name}-rows-{group.rank}", rows)
    counts = [json.loads(content) for content in group.all_gather_bytes(json.dumps(block_rows).encode())]
    rows_by_rank = [_blocks(scratch, f"{name}-rows-{rank}", sizes, like) for rank, sizes in enumerate(counts)]
    for index in range(sum(map(len, counts))):
        yield next(rows_by_rank[index % group.size])


def _save(scratch: Path, stem: str, blocks: Iterator[Rows]) -> None:
    with ExitStack() as stack:
        files = [stack.enter_context(_path(scratch, stem, field).open("wb")) for field in _FIELDS]
        for rows in blocks:
            arrays = (np.diff(rows.row_splits), rows.labels, rows.columns, rows.values, rows.weights)
            for file, dtype, array in zip(files, _FIELDS.values(), arrays, strict=True):
                if array is not None:
                    file.write(np.ascontiguousarray(array, dtype).data)


def _blocks(scratch: Path, stem: str, block_rows: list[int], like: Rows) -> Iterator[Rows]:
    """Yield the rows of one process in blocks of `block_rows` rows."""
    lengths, labels, columns, values, weights = (
        map_array(_path(scratch, stem, field), dtype or like.labels.dtype) for field, dtype in _FIELDS.items()
    )
    labels = labels.reshape(-1, *like.labels.shape[1:])
    row = first = 0
    for num_rows in block_rows:
        row_splits = np.concatenate([[0], lengths[row : row + num_rows].cumsum(dtype=np.int64)])
        last = first + int(row_splits[-1])
        own = slice(row, row + num_rows)
        block_values = None if like.values is None else values[first:last]
        block_weights = None if like.weights is None else weights[own]
        yield Rows(row_splits, columns[first:last], block_values, labels[own], block_weights)
        row, first = row + num_rows, last


def _path(scratch: Path, stem: str, field: str) -> Path:
    return scratch / f"{stem}.{field}"
