"""Parquet as labelled texts, row by row.

Decides: which columns can hold labels and texts, and how much memory pyarrow may use. Never: which values make a row
(`records.py` does).

    rows = parquet_rows(Path("train.parquet"), ColumnLayout(texts=("title", "body")), Tally(), 2**26)

A few bytes of Parquet can stand for any number of rows, and for any number of bytes in a row. So the declared rows are
checked before reading, decoded bytes are counted, and memory is bounded while pyarrow decodes a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from distrain.errors import ConfigurationError, DataError
from distrain.extras import require_extra
from distrain.remote.path import RemotePath
from distrain.text.readers.columns import ColumnLayout, LabelledText, no_column, shown_names
from distrain.text.readers.memory_bound import memory_bound
from distrain.text.readers.records import MEMORY_ROWS, labelled_text
from distrain.text.readers.tally import Tally

_BATCH_ROWS = 256  # more are hardly faster, and a short page can hold one long text many times
_BATCH_BYTES = 4 * 2**20
_ROW_BYTES = 64  # what a row costs besides its text: `prepare` stores its label, its length and its class

_Result = TypeVar("_Result")


def parquet_rows(path: Path, layout: ColumnLayout, tally: Tally, max_row_bytes: int) -> Iterator[LabelledText]:
    """Yield the rows of a Parquet file, read in batches; see `sources.read_rows`."""
    require_extra("pyarrow", extra="parquet", what=f"Reading {path}")
    import pyarrow
    import pyarrow.parquet

    label, wanted = layout.label_key, list(dict.fromkeys(layout.keys))

    def bounded(read: Callable[[], _Result]) -> _Result:
        with _bounded_pool(MEMORY_ROWS * max_row_bytes):
            return read()

    source = path.open("rb") if isinstance(path, RemotePath) else path
    try:
        file = bounded(lambda: pyarrow.parquet.ParquetFile(source, pre_buffer=False, buffer_size=2**20))
        with file:
            _check_columns(path, bounded(lambda: file.schema_arrow), wanted, label)
            size, num_rows = path.stat().st_size, file.metadata.num_rows
            before, row = tally.num_bytes, 0
            tally.check_expansion(path, tally.text_bytes + _ROW_BYTES * num_rows, before + size)
            batches = file.iter_batches(_batch_rows(file.metadata), columns=wanted, use_threads=False)
            while (columns := bounded(lambda: _next_columns(batches, wanted))) is not None:
                last = row + len(columns[label])
                tally.num_bytes = before + size * last // max(num_rows, last)
                tally.count_text(path, _num_bytes(columns), before + size)
                for index in range(len(columns[label])):
                    row += 1
                    record = {name: _clean(columns[name][index], tally, path, row) for name in wanted}
                    text = labelled_text(record, layout, path, row)
                    if len(text.text) > max_row_bytes:
                        raise DataError(
                            f"{text.location} has a text over {max_row_bytes / 2**20:,.0f} MiB. "
                            "A larger --memory-mib allows longer texts."
                        )
                    yield text
    except MemoryError:
        raise DataError(
            f"{path} takes over {MEMORY_ROWS * max_row_bytes / 2**20:,.0f} MiB to decode a few rows. A larger "
            "--memory-mib allows it, or write the file with smaller pages and row groups."
        ) from None
    except (pyarrow.ArrowException, OSError) as error:
        if isinstance(error, PermissionError):
            raise DataError(f"{path} cannot be read: {error.strerror}. Check your permissions.") from None
        raise DataError(f"{path} cannot be read as Parquet ({error}). Copy or write it again.") from None


@contextmanager
def _bounded_pool(num_bytes: int) -> Iterator[None]:
    """Bound the memory that pyarrow may take; its own pool would take 1 GiB at once and give it out later."""
    import pyarrow

    pool = pyarrow.default_memory_pool()
    pyarrow.set_memory_pool(pyarrow.system_memory_pool())
    try:
        with memory_bound(num_bytes):
            yield
    finally:
        pyarrow.set_memory_pool(pool)


def _clean(value: Any, tally: Tally, path: Path, row: int) -> Any:
    if isinstance(value, list):
        return [_clean(one, tally, path, row) for one in value]
    return tally.clean(value, path, row) if isinstance(value, bytes) else value


def _check_columns(path: Path, schema: Any, wanted: list[str], label: str) -> None:
    for name in wanted:
        if name not in schema.names:
            raise no_column(path, name, f"its columns are {shown_names(schema.names)}")
        if (count := schema.names.count(name)) > 1:
            raise ConfigurationError(f"{path} has {count} columns named {name!r}. Rename all but one.")
        kind = schema.field(name).type
        if not (_is_plain(kind) or (name == label and _is_plain_list(kind))):
            raise DataError(
                f"{path}: the column {name!r} is of type {kind}. Labels and texts are text or numbers: write the "
                "column as text, or name another by --label-column and --text-columns."
            )


def _is_plain(kind: Any) -> bool:
    """Whether a column of this type holds text, numbers or booleans."""
    from pyarrow import types

    if types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    return (types.is_primitive(kind) and not types.is_temporal(kind)) or types.is_decimal(kind) or _is_octets(kind)


def _is_plain_list(kind: Any) -> bool:
    """Whether a column of this type holds lists of text, numbers or booleans."""
    from pyarrow import types

    is_list = types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)
    return is_list and not types.is_dictionary(kind.value_type) and _is_plain(kind.value_type)


def _is_octets(kind: Any) -> bool:
    """Whether values of this type are strings of bytes, whose encoding nothing has checked."""
    from pyarrow import types

    checks = (types.is_null, types.is_string, types.is_large_string, types.is_string_view, types.is_binary)
    more = (types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary)
    return any(check(kind) for check in (*checks, *more))


def _batch_rows(metadata: Any) -> int:
    """Return a number of rows that takes about 4 MiB, according to the file's metadata."""
    num_bytes = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES * metadata.num_rows // max(1, num_bytes)))


def _next_columns(batches: Iterator[Any], names: list[str]) -> dict[str, list[Any]] | None:
    """Return the next batch as lists of Python values by column, or None after the last batch."""
    batch = next(batches, None)
    return None if batch is None else {name: _values(batch.column(name)) for name in names}


def _values(column: Any) -> list[Any]:
    """Return a column as Python values; texts are bytes, because nothing has checked their encoding."""
    import pyarrow

    if pyarrow.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if _is_octets(column.type):
        column = column.cast(pyarrow.large_binary())
    elif _is_plain_list(column.type) and _is_octets(column.type.value_type):
        column = column.cast(pyarrow.large_list(pyarrow.large_binary()))
    values: list[Any] = column.to_pylist()
    return values


def _num_bytes(columns: dict[str, list[Any]]) -> int:
    """Return the number of bytes of text that a batch counts as."""
    texts = sum(_size(value) for values in columns.values() for value in values)
    return texts + _ROW_BYTES * len(next(iter(columns.values())))


def _size(value: Any) -> int:
    if isinstance(value, list):
        return _ROW_BYTES * len(value) + sum(map(_size, value))
    return len(value) if isinstance(value, bytes) else 0
