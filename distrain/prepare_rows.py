"""The rows that several processes have made, brought back into the order of the input.

Decides: how rows travel to the chief. Never: what is in them.

    for rows in in_order(team, scratch, "train", own_rows, store.block_rows, has_values=True):      # at the chief
        ...

Of the numbered blocks of the input each process has made every `team.size`-th, beginning with that of its rank.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np

from distrain.data.ragged import append_array, read_array
from distrain.data.shards import Rows
from distrain.data.team import Team

_FIELDS = {"lengths": np.int32, "labels": np.int32, "columns": np.int32, "values": np.float32}


def in_order(
    team: Team, scratch: Path, name: str, rows: Iterator[Rows], block_rows: list[int], *, has_values: bool
) -> Iterator[Rows]:
    """The rows of all processes in the order of the input; none but at the chief.

    Args:
        team: who has made rows.
        scratch: an existing folder, the same for all.
        name: of the temporary files in it.
        rows: this process's rows, in blocks of any size.
        block_rows: rows of each of this process's blocks of the input; looked at when `rows` has ended.
        has_values: whether rows have values beside columns.
    """
    if team.size == 1:
        yield from rows
        return
    _save(scratch, f"{name}-rows-{team.rank}", rows)
    counts = [json.loads(share) for share in team.exchange(json.dumps(block_rows).encode())]
    if team.rank == 0:
        with ExitStack() as stack:
            files = [
                {
                    field: stack.enter_context(_path(scratch, f"{name}-rows-{rank}", field).open("rb"))
                    for field in _FIELDS
                }
                for rank in range(team.size)
            ]
            for place in range(sum(map(len, counts))):
                rank = place % team.size
                yield _read(files[rank], counts[rank][place // team.size], has_values)


def _save(scratch: Path, stem: str, blocks: Iterator[Rows]) -> None:
    for field in _FIELDS:
        _path(scratch, stem, field).write_bytes(b"")
    for rows in blocks:
        arrays = (np.diff(rows.row_splits), rows.labels, rows.columns, rows.values)
        for (field, dtype), array in zip(_FIELDS.items(), arrays, strict=True):
            if array is not None:
                append_array(_path(scratch, stem, field), np.ascontiguousarray(array, dtype))


def _read(files: Mapping[str, IO[bytes]], num_rows: int, has_values: bool) -> Rows:
    lengths, labels = (read_array(files[field], _FIELDS[field], num_rows) for field in ("lengths", "labels"))
    row_splits = np.concatenate([[0], lengths.cumsum(dtype=np.int64)])
    columns, values = (read_array(files[field], _FIELDS[field], int(row_splits[-1])) for field in ("columns", "values"))
    return Rows(row_splits, columns, values if has_values else None, labels)


def _path(scratch: Path, stem: str, field: str) -> Path:
    return scratch / f"{stem}.{field}"
