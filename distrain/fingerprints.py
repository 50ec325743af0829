"""Sizes and checksums of files, recorded when files are written and compared before files are used.

Decides: what a record of a file holds, and when a file differs from its record. Never: what a file means, or where
records are stored.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "words.txt"
    >>> _ = path.write_text("one two")
    >>> record = fingerprint_of(path)
    >>> fault_of(path, record)
    >>> _ = path.write_text("one twO")
    >>> fault_of(path, record)
    'was changed: its SHA-256 does not fit'

SHA-256 notices every change. CRC-32 is 2.5 times as fast and notices all but one of four billion random changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distrain.regular_file import open_regular

PIECE_BYTES = 2**20  # a piece fits the cache of a core, so each byte comes from memory once for both checksums
MAX_THREADS = 8  # enough to read as fast as most disks do


@dataclass(frozen=True)
class Fingerprint:
    """What a file held when it was written.

    Attributes:
        bytes: size of the file; of a file that grows, the size when the record was made.
        sha256: SHA-256 of these bytes, in hexadecimal digits.
        crc32: CRC-32 of these bytes; None if the fast check is not needed.
        grows: whether later bytes may follow.
    """

    bytes: int
    sha256: str
    crc32: int | None = None
    grows: bool = False

    def __post_init__(self) -> None:
        is_size = type(self.bytes) is int and self.bytes >= 0
        is_crc32 = self.crc32 is None or (type(self.crc32) is int and 0 <= self.crc32 < 2**32)
        is_sha256 = type(self.sha256) is str and len(self.sha256) == 64
        if not (is_size and is_crc32 and is_sha256 and type(self.grows) is bool):
            raise ValueError(f"a file of {self.bytes!r} bytes, SHA-256 {self.sha256!r} and CRC-32 {self.crc32!r}")

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON stores them, without those that have their defaults."""
        return {name: value for name, value in asdict(self).items() if value is not None and value is not False}


@dataclass(frozen=True)
class Findings:
    """What a look at every file of a folder has found.

    Attributes:
        files: names of the files that were compared with their records.
        bytes: their sizes together.
        faults: what differs, by file; empty if the folder is whole.
        unknown: files that no record names.
        unchecked: files that a record cannot cover, and why.
    """

    files: tuple[str, ...]
    bytes: int
    faults: Mapping[str, str]
    unknown: tuple[str, ...]
    unchecked: Mapping[str, str]


class GrowingFile:
    """A file that only grows. Each new record reads only the bytes that were appended since the record before.

    Args:
        path: the file; it may appear later.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._digest, self._bytes = hashlib.sha256(), 0

    def fingerprint(self) -> Fingerprint | None:
        """Return the record of the file's present content, or None without a file; reads only what was appended."""
        try:
            with self._path.open("rb") as file:
                if os.fstat(file.fileno()).st_size < self._bytes:
                    self._digest, self._bytes = hashlib.sha256(), 0
                file.seek(self._bytes)
                while piece := file.read(PIECE_BYTES):
                    self._digest.update(piece)
                    self._bytes += len(piece)
        except FileNotFoundError:
            return None
        return Fingerprint(self._bytes, self._digest.hexdigest(), grows=True)


def digest_of(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of JSON values without their own `digest`, in hexadecimal digits."""
    rest = {name: value for name, value in content.items() if name != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def fingerprint_of(path: Path, *, with_crc32: bool = False) -> Fingerprint:
    """Return the record of a file, which is read once."""
    digest, crc32, num_bytes = hashlib.sha256(), 0, 0
    with open_regular(path) as file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
            crc32 = zlib.crc32(piece, crc32) if with_crc32 else 0
            num_bytes += len(piece)
    return Fingerprint(num_bytes, digest.hexdigest(), crc32 if with_crc32 else None)


def fault_of(path: Path, record: Fingerprint, *, fast: bool = False) -> str | None:
    """Return how a file differs from its record, as in "is missing", or None.

    Args:
        path: the file.
        record: what the file should hold.
        fast: compare the CRC-32 where the record has one, and else the SHA-256.
    """
    if fault := size_fault(path, record):
        return fault
    by_crc32 = fast and record.crc32 is not None
    digest, crc32, rest = hashlib.sha256(), 0, record.bytes
    try:
        with open_regular(path) as file:
            while piece := file.read(min(PIECE_BYTES, rest)):
                rest -= len(piece)
                if by_crc32:
                    crc32 = zlib.crc32(piece, crc32)
                else:
                    digest.update(piece)
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    if by_crc32:
        return None if crc32 == record.crc32 else "was changed: its CRC-32 does not fit"
    return None if digest.hexdigest() == record.sha256 else "was changed: its SHA-256 does not fit"


def size_fault(path: Path, record: Fingerprint) -> str | None:
    """Return how a file's size differs from its record, without reading the file, or None."""
    try:
        if not path.is_file():
            return "is no file" if os.path.lexists(path) else "is missing"
        size = path.stat().st_size
    except (OSError, ValueError) as error:
        return f"cannot be read: {error}"
    if size == record.bytes or (record.grows and size > record.bytes):
        return None
    return f"has {size:,} bytes instead of {record.bytes:,}: it was cut or changed"


def faults_in(folder: Path, records: Mapping[str, Fingerprint], *, fast: bool = False) -> Iterator[tuple[str, str]]:
    """Yield name and fault of each file that differs from its record, in order; several threads read the files."""
    with ThreadPoolExecutor(min(MAX_THREADS, len(os.sched_getaffinity(0)))) as threads:
        faults = threads.map(lambda name: fault_of(folder / name, records[name], fast=fast), records)
        yield from ((name, fault) for name, fault in zip(records, faults, strict=True) if fault)
