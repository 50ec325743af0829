"""The samples of a tar shard: files of one name with several endings, as WebDataset groups them.

Decides: which files are one sample, and which archives are refused. Never: reads the content of a file.

    index = find_samples(Path("shard-0.tar"), file)
    index.names                                        # ("jpg", "cls"): the fields
    index.table[17]                                    # header of sample 17, then offset and size of each field

"a/17.jpg" and "a/17.seg.png" are the fields "jpg" and "seg.png" of the sample "a/17". The files of a sample stand one
behind the other. Folders, and files whose names begin with a dot or with two underscores, are left out.
"""

from __future__ import annotations

import os
import re
import tarfile
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from distrain.errors import DataError
from distrain.formats.file_source import readable
from distrain.formats.records.record_index import RecordIndex

MAX_FIELDS = 64  # of all samples: the index has a place for each field of each sample
_MAX_NAME_BYTES = 2**20  # of one header; a hostile archive could announce a name as large as the memory
_MAX_PADDING = 2**20  # bytes behind the end of an archive, which tar pads to whole records
_NAME = re.compile(r"((?:.*/)?(?!__)[^./][^./]*)\.([^/]+)", re.DOTALL)
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}


def find_samples(path: Path, file: BinaryIO) -> RecordIndex:
    """Return the places of the samples and the names of their fields.

    The table is int64 `[n, 1 + 2 * fields]`: offset of the first header, then offset and size of each field. A sample
    without a field has -1 there.

    Raises:
        DataError: the archive is compressed, damaged or cut short, or holds links; or a sample has a field twice.
    """
    head = file.read(6)
    file.seek(0)
    for magic, program in _COMPRESSED.items():
        if head.startswith(magic):
            raise DataError(
                f"{path} is compressed by {program}, so no sample can be read alone. Unpack it; pictures are "
                "compressed already."
            )
    fields: dict[str, int] = {}
    starts, found = array("q"), array("q")  # `found`: sample, field, offset and size of each file
    previous = None
    with readable(path, "a tar archive"):
        for member in _members(path, file):
            parts = _NAME.fullmatch(member.name)
            if parts is None:
                continue
            key, field = parts[1], parts[2].lower()
            if key != previous:
                starts.append(member.offset)
                previous, present = key, set()
            if field in present:
                raise DataError(f"{path} has the file {member.name!r} twice in one sample. Write the shard again.")
            present.add(field)
            number = fields.setdefault(field, len(fields))
            if number >= MAX_FIELDS:
                raise DataError(f"{path} has files of over {MAX_FIELDS} endings, so it holds no samples of one kind.")
            found.extend((len(starts) - 1, number, member.offset_data, member.size))
    table = np.full((len(starts), 1 + 2 * len(fields)), -1, np.int64)
    table[:, 0] = starts
    samples, numbers, offsets, sizes = np.frombuffer(found, np.int64).reshape(-1, 4).T
    table[samples, 1 + 2 * numbers] = offsets
    table[samples, 2 + 2 * numbers] = sizes
    return RecordIndex(table, tuple(fields))


def key_at(path: Path, offset: int) -> str:
    """Return the name of the sample whose first header is at `offset`."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            member = tarfile.TarFile(fileobj=cast(Any, _Bounded(file))).next()
    except (OSError, tarfile.TarError):
        return "?"
    parts = member and _NAME.fullmatch(member.name)
    return parts[1] if parts else "?"


def _members(path: Path, file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """Yield the files of an archive."""
    size = os.fstat(file.fileno()).st_size
    archive: Any = tarfile.TarFile(fileobj=cast(Any, _Bounded(file)))
    before = -1
    while (member := archive.next()) is not None:
        archive.members.clear()  # the list of all members would outgrow the memory
        if member.offset <= before or member.size < 0:
            raise DataError(f"{path} is damaged: {member.name!r} lies before the file in front of it.")
        before = member.offset
        if member.isdir():
            continue
        if not member.isreg() or member.issparse():
            raise DataError(f"{path} has {member.name!r}, which is no plain file but a link, a hole or a device.")
        if member.offset_data + member.size > size:
            raise DataError(f"{path} ends within {member.name!r}. Copy or write it again.")
        yield member
    _check_end(path, file, archive.offset, size)


def _check_end(path: Path, file: BinaryIO, end: int, size: int) -> None:
    """Check that an archive ends at its end marker; `tarfile` stops at a damaged header as well."""
    block = os.pread(file.fileno(), tarfile.BLOCKSIZE, end)
    if len(block) < tarfile.BLOCKSIZE:
        raise DataError(f"{path} ends without the end marker of an archive. Copy or write it again.")
    if block.strip(b"\0"):
        raise DataError(f"{path} is damaged at byte {end:,}: there is no header of a file. Copy or write it again.")
    if size - end > _MAX_PADDING:
        raise DataError(f"{path} goes on behind its end marker. If it is several archives in one, give each its file.")


class _Bounded:
    """A file for `tarfile` that refuses to read large pieces, which only damaged headers ask for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _MAX_NAME_BYTES:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self._file.read(size)
