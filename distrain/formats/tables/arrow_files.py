"""Arrow IPC files as a source: Feather, `.arrow` files, and the streams that Hugging Face's `datasets` writes.

Decides: how record batches are found and read. Never: which columns are features.

    source = arrow("reviews/*.arrow", features="tokens", label="stars")

The files are mapped into memory, and rows of an uncompressed file are read where they lie. Of a compressed file one
record batch is unpacked at a time.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distrain.data.bus_errors import report_lost_pages
from distrain.errors import DataError
from distrain.extras import require_extra
from distrain.formats.columns import Names, check_counts
from distrain.formats.file_list import Paths, listed
from distrain.formats.file_source import FileSource, readable
from distrain.formats.tables.arrow_columns import arrow_columns
from distrain.formats.tables.arrow_groups import ArrowGroups
from distrain.remote.local_copy import local_copies, local_copy

_SUFFIXES = (".arrow", ".feather", ".arrows", ".ipc")
_KIND = "Arrow"
_FILE_MAGIC = b"ARROW1"
_FILE_HEADER_BYTES = 8  # the magic and its padding; a stream follows
_FIRST_FEATHER = b"FEA1"
_HEADER_SLOT = 2  # of a message of Arrow; the slots of a record batch follow
_LENGTH_SLOT = 0
_COMPRESSION_SLOT = 3


def arrow(
    paths: Paths, *, features: Names | None = None, label: Names | None = None, weight: str | None = None
) -> FileSource:
    """Use Arrow or Feather files as a source of examples.

    Args:
        paths: a file, a folder, a pattern, or a list of these; read one after the other, in the order of their names.
        features: columns of the features: a name, a list of names for one vector, or a dict of inputs.
            Default: all columns but label and weight.
        label: columns of the label. Default: the column "label", "labels" or "y".
        weight: column of the weight. Default: the column "weight", "weights" or "sample_weight".

    Raises:
        DataError: a file is missing or damaged, or a column holds other things than numbers.
        ConfigurationError: a column does not exist, or pyarrow is not installed.
    """
    files = listed(paths, suffixes=_SUFFIXES, kind="Arrow files")
    require_extra("pyarrow", extra="parquet", what=f"Reading {files[0]}")
    local_copies(files)  # at once
    return FileSource(ArrowRows, files, features=features, label=label, weight=weight)


class ArrowRows:
    """One open Arrow file."""

    holds_group = True

    def __init__(self, path: Path) -> None:
        import pyarrow

        self._path = path
        with readable(path, _KIND):
            mapped = np.memmap(local_copy(path), np.uint8, mode="r")
            report_lost_pages(mapped)
            if mapped[:4].tobytes() == _FIRST_FEATHER:
                raise DataError(f"{path} is of Feather's first version. Write it by pyarrow.feather.write_feather.")
            self._buffer = pyarrow.py_buffer(mapped)
            self._is_file = mapped[: len(_FILE_MAGIC)].tobytes() == _FILE_MAGIC
            messages = pyarrow.ipc.MessageReader.open_stream(
                pyarrow.BufferReader(self._buffer.slice(_FILE_HEADER_BYTES if self._is_file else 0))
            )
            self._schema = pyarrow.ipc.read_schema(messages.read_next_message())
            found = list(messages)
            self._batches = [message for message in found if message.type == "record batch"]
            facts = [_batch_facts(message) for message in self._batches]
        if not self._is_file and len(found) > len(self._batches):
            raise DataError(
                f"{path} is a stream with dictionary-encoded columns, which is read from its start alone. "
                "Write it as a file: pyarrow.feather.write_feather(table, path)."
            )
        counts = [rows for rows, _ in facts]
        check_counts(path, counts, len(mapped))
        self._is_packed = any(is_packed for _, is_packed in facts)
        self._groups = ArrowGroups(path, self._schema, counts, self._load, mapped=not self._is_packed)
        self.columns = arrow_columns(self._schema, sum(counts), max(counts, default=1) if self._is_packed else 1)

    def read(self, names: Sequence[str], start: int, stop: int) -> dict[str, np.ndarray]:
        """Return the rows start .. stop - 1 of some columns."""
        return self._groups.read(names, start, stop)

    def close(self) -> None:
        """Release the record batches that are held; the map ends with its last array."""
        self._groups.release()

    def _load(self, group: int, names: Sequence[str]) -> Any:
        import pyarrow

        wanted = {name.split(".")[0] for name in names} | set(names)
        fields = [index for index, name in enumerate(self._schema.names) if name in wanted]
        with readable(self._path, _KIND):
            if self._is_file:
                options = pyarrow.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
                batch = pyarrow.ipc.open_file(pyarrow.BufferReader(self._buffer), options=options).get_batch(group)
            else:
                batch = pyarrow.ipc.read_record_batch(self._batches[group], self._schema).select(fields)
            batch.validate(full=True)  # offsets of a damaged file would reach outside of the map
        return batch


def _batch_facts(message: Any) -> tuple[int, bool]:
    """Return the rows of a record batch, and whether the batch is compressed, from its header alone.

    pyarrow shows both only after decoding the batch. The header is a flatbuffer, which pyarrow has verified.
    """
    raw = memoryview(message.metadata)

    def field(table: int, slot: int) -> int:
        """Return the position of a field of a table; 0 for an absent field."""
        fields = table - struct.unpack_from("<i", raw, table)[0]
        size = struct.unpack_from("<H", raw, fields)[0]
        offset = struct.unpack_from("<H", raw, fields + 4 + 2 * slot)[0] if 4 + 2 * slot < size else 0
        return table + offset if offset else 0

    def target(position: int) -> int:
        return position + int(struct.unpack_from("<I", raw, position)[0])

    batch = target(field(target(0), _HEADER_SLOT))
    rows = field(batch, _LENGTH_SLOT)
    return struct.unpack_from("<q", raw, rows)[0] if rows else 0, field(batch, _COMPRESSION_SLOT) > 0
