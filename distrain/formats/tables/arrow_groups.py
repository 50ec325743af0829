"""Rows that a file stores in groups: row groups of Parquet, record batches of Arrow.

Decides: how many groups are held, and when one is read again. Never: how a group is read from its file.

    groups = ArrowGroups(path, schema, counts, load=read_row_group)
    groups.read(["age", "income"], 100, 300)

A packed group is held until its end has been read. Windows read forward, so a window reads each of its groups once.
Groups that lie in a mapped file take no memory, so many of them stay open.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distrain.errors import DataError
from distrain.formats.columns import check_row_shape
from distrain.formats.tables.arrow_columns import Unfit, column_values, flat_fields

MAX_MAPPED_COLUMNS = 2**14  # of groups that stay open; pyarrow takes about 1 KB for each


class ArrowGroups:
    """Groups of rows, of which the last one is held.

    Args:
        path: the file, for messages.
        schema: schema of the whole file.
        counts: number of rows of each group.
        load: (group, names) -> a `pyarrow.Table` or a `pyarrow.RecordBatch` with these columns.
        mapped: whether the groups lie in a mapped file, so that they take no memory of their own.
    """

    def __init__(
        self,
        path: Path,
        schema: Any,
        counts: Sequence[int],
        load: Callable[[int, Sequence[str]], Any],
        *,
        mapped: bool = False,
    ) -> None:
        self._path = path
        self._fields = {".".join(path): path for path, _ in flat_fields(schema)}
        self._starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        self._load = load
        self._is_mapped = mapped
        self._max_held = max(1, MAX_MAPPED_COLUMNS // max(1, len(self._fields))) if mapped else 1
        self._held: OrderedDict[int, tuple[tuple[str, ...], Any]] = OrderedDict()

    def read(self, names: Sequence[str], start: int, stop: int) -> dict[str, np.ndarray]:
        """Return the rows start .. stop - 1 of some columns.

        Raises:
            DataError: a value is null or no number, or lists have unequal lengths; the message names the row.
        """
        group = int(np.searchsorted(self._starts, start, side="right")) - 1
        pieces: list[dict[str, np.ndarray]] = []
        while start < stop:
            base, end = self._starts[group : group + 2].tolist()
            last = min(stop, end)
            if start < last:
                table = self._group(group, tuple(names)).slice(start - base, last - start)
                pieces.append({name: self._values(table, name, start) for name in names})
                self._check_shapes(pieces, start)
                if last == end and not self._is_mapped:
                    self.release()
            start, group = last, group + 1
        return {name: _joined([piece[name] for piece in pieces]) for name in names}

    def release(self) -> None:
        """Release the groups that are held."""
        self._held.clear()

    def _group(self, group: int, names: tuple[str, ...]) -> Any:
        held = self._held.pop(group, None)
        if held is None or held[0] != names:
            while len(self._held) >= self._max_held:
                self._held.popitem(last=False)
            held = (names, self._loaded(group, names))
        self._held[group] = held
        return held[1]

    def _loaded(self, group: int, names: tuple[str, ...]) -> Any:
        table = self._load(group, names)
        if table.num_rows != (count := int(self._starts[group + 1] - self._starts[group])):
            raise DataError(
                f"{self._path} holds {table.num_rows:,} rows where it declares {count:,}, from row "
                f"{self._starts[group] + 1:,} on. It is damaged: copy or write it again."
            )
        return table

    def _values(self, table: Any, name: str, first: int) -> np.ndarray:
        path = self._fields[name]
        try:
            return column_values(table.column(path[0]), path)
        except Unfit as unfit:
            raise DataError(f"{self._path}, row {first + unfit.row + 1}: the column {name!r} {unfit}") from None
        except (UnicodeDecodeError, ValueError) as error:
            raise DataError(f"{self._path}: the column {name!r} cannot be read ({error}). Write it again.") from None

    def _check_shapes(self, pieces: list[dict[str, np.ndarray]], start: int) -> None:
        for name, values in pieces[-1].items():
            check_row_shape(self._path, name, start, values.shape[1:], pieces[0][name].shape[1:])


def _joined(arrays: list[np.ndarray]) -> np.ndarray:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
