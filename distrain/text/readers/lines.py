"""Files as clean lines of text: decompressed, decoded, repaired and counted, in bounded memory.

Decides: compression (by a file's first bytes, not by its name), encoding (UTF-8), and which bytes are repaired.
Never: what a line means.

    tally = Tally()
    for line in read_lines(Path("train.csv.gz"), tally, max_bytes=2**26):
        ...                                                  # str with its line end
    for chunk in read_chunks(Path("train.csv.gz"), tally, max_bytes=2**26):
        ...                                                  # many lines at once, as bytes
    tally.sentences(Path("train.csv.gz"))                    # messages about repaired lines

Bytes that are not UTF-8 become U+FFFD, and NUL bytes become spaces. A `Tally` counts both. A byte order mark is
dropped.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import zstandard

from distrain.errors import DataError

_BUFFER = 2**20
CHUNK_BYTES = 2**20
_ZSTD_CHUNK = 2**10  # zstd expands its input up to 2**15 times, here to 32 MiB at most
_ZSTD_MAX_WINDOW = 2**27  # bytes; the zstd command accepts as much without --long
READ_ERRORS = (OSError, EOFError, zlib.error, zstandard.ZstdError)
BOM = b"\xef\xbb\xbf"
_REFUSED = {
    rb"PK\x03\x04": "a zip archive or a spreadsheet. Unpack it, or save it as CSV",
    rb"\xd0\xcf\x11\xe0": "an old spreadsheet. Save it as CSV",
    rb"\xfd7zXZ\0": "compressed with xz. Unpack it; plain, .gz and .zst are read",
    rb"BZh[1-9]1AY&SY": "compressed with bzip2. Unpack it; plain, .gz and .zst are read",
    rb"PAR1": "a Parquet file. Let its name end in .parquet",
    rb"\xff\xfe|\xfe\xff": "UTF-16 text. Save it as UTF-8",
}


@dataclass
class Tally:
    """Counts of rows and bytes read, and of lines repaired.

    Attributes:
        rows: rows read.
        num_bytes: bytes read from disk.
        invalid: lines with bytes that are not UTF-8.
        nul: lines with NUL bytes.
        empty: rows with an empty text.
        notes: other messages for the user.
        names_files: whether messages name the file of a line, because several files are read.
    """

    rows: int = 0
    num_bytes: int = 0
    invalid: int = 0
    nul: int = 0
    empty: int = 0
    notes: list[str] = field(default_factory=list)
    names_files: bool = False
    _first: dict[str, str] = field(default_factory=dict)

    def clean(self, raw: bytes, path: Path, line: int) -> str:
        """Decode bytes, and repair and count invalid bytes; messages name `path` and `line` (0: no line)."""
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            text = raw.decode(errors="replace")
            self.invalid += 1
            self._first.setdefault("invalid", self._line(path, line))
        if "\0" in text:
            text = text.replace("\0", " ")
            self.nul += 1
            self._first.setdefault("nul", self._line(path, line))
        return text

    def clean_lines(self, chunk: bytes, path: Path, number: int) -> bytes:
        """Make whole lines valid UTF-8 without NUL, and count repaired lines; the first line has this `number`."""
        if number == 1:
            chunk = chunk.removeprefix(BOM)
        if b"\0" not in chunk and (chunk.isascii() or _is_utf8(chunk)):
            return chunk
        lines = enumerate(chunk.split(b"\n"), start=number)
        return "\n".join([self.clean(line, path, at) for at, line in lines]).encode()

    def count_empty(self, location: str) -> None:
        """Count a row with an empty text."""
        self.empty += 1
        self._first.setdefault("empty", location)

    def _line(self, path: Path, line: int) -> str:
        if line and self.names_files:
            return f"{path}, line {line:,}"
        return f"line {line:,}" if line else str(path)

    def sentences(self, path: Path | str) -> list[str]:
        """Return a message for each kind of repair, and the notes; `path` names the input."""
        kinds = {
            "invalid": (self.invalid, "line", "with bytes that are not UTF-8, replaced by U+FFFD"),
            "nul": (self.nul, "line", "with NUL bytes, replaced by spaces"),
            "empty": (self.empty, "row", "with an empty text, kept as they are"),
        }
        return [
            f"{path}: {count:,} {thing}{'s' * (count != 1)} {what}; the first: {self._first[kind]}."
            for kind, (count, thing, what) in kinds.items()
            if count
        ] + self.notes


def read_chunks(path: Path, tally: Tally, *, max_bytes: int) -> Iterator[bytes]:
    """Yield a text file in chunks of whole lines, split at newlines only: valid UTF-8 without NUL.

    Args:
        path: a file, plain or compressed by gzip or zstd.
        tally: counts bytes read and lines repaired.
        max_bytes: longest line allowed. A chunk has about `CHUNK_BYTES`, or holds one longer line.

    Raises:
        DataError: the file cannot be read, is damaged, cut short or no UTF-8 text, or a line is too long.
    """
    # With reads of at most half a line's bound, only the first line of a chunk can be too long.
    size = max(1, min(CHUNK_BYTES, max_bytes // 2))
    number, rest = 1, [b""]
    try:
        with open_bytes(path, tally) as file:
            while raw := file.read(size):
                end = raw.rfind(b"\n") + 1
                if end:
                    chunk = b"".join([*rest, raw[:end]])
                    rest = [raw[end:]]
                    _check_line(path, number, chunk.find(b"\n") + 1, max_bytes)
                    yield tally.clean_lines(chunk, path, number)
                    number += num_newlines(chunk)
                else:
                    rest.append(raw)
                    _check_line(path, number, sum(map(len, rest)), max_bytes)
        if last := b"".join(rest):
            yield tally.clean_lines(last, path, number)
    except READ_ERRORS as error:
        raise unreadable(path, error) from None


def _check_line(path: Path, number: int, num_bytes: int, max_bytes: int) -> None:
    if num_bytes > max_bytes:
        raise DataError(
            f"{path}, line {number:,} is longer than {max_bytes / 2**20:,.0f} MiB. "
            "Is this a text file with line ends? A larger --memory-mib allows longer lines."
        )


def read_lines(path: Path, tally: Tally, *, max_bytes: int) -> Iterator[str]:
    """Yield the lines of a text file with their line ends; see `read_chunks`."""
    for chunk in read_chunks(path, tally, max_bytes=max_bytes):
        yield from split_lines(chunk)


def split_lines(chunk: bytes) -> Iterator[str]:
    """Yield the lines of one chunk with their line ends."""
    yield from io.StringIO(chunk.decode(), newline="\n")


def num_newlines(raw: bytes) -> int:
    """Count newlines, four times as fast as `bytes.count` for lines of about 200 bytes."""
    return int(np.count_nonzero(np.frombuffer(raw, np.uint8) == 10))


@contextmanager
def open_bytes(path: Path, tally: Tally) -> Iterator[BinaryIO]:
    """Open a file for reading, and decompress its bytes if need be.

    Raises:
        DataError: the file's first bytes show that the file is no text.
        Exception: one of `READ_ERRORS`, from opening or reading; see `unreadable`.
    """
    with io.BufferedReader(_CountedFile(path, tally), _BUFFER) as disk:
        head = disk.peek(4)
        file: io.BufferedReader[Any] = disk
        if head.startswith(b"\x1f\x8b"):
            file = io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=disk)), _BUFFER)
        elif head.startswith(b"\x28\xb5\x2f\xfd"):
            file = io.BufferedReader(_ZstdFile(disk), _BUFFER)
        head = file.peek(16)
        for magic, what in _REFUSED.items():
            if re.match(magic, head, re.DOTALL):
                raise DataError(f"{path} is {what}.")
        yield file


def unreadable(path: Path, error: Exception) -> DataError:
    """Return the error for a file that cannot be opened or read; `error` is one of `READ_ERRORS`."""
    if isinstance(error, OSError) and error.strerror:
        return DataError(f"{path} cannot be read: {error.strerror}. Check the path and your permissions.")
    what = "ends too early" if isinstance(error, EOFError) else f"is damaged ({error})"
    return DataError(f"{path} is compressed and {what}. Copy or download it again.")


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


class _CountedFile(io.FileIO):
    """A file that counts the bytes read from it."""

    def __init__(self, path: Path, tally: Tally) -> None:
        super().__init__(path)
        self._tally = tally

    def readinto(self, buffer: Any) -> int:
        count = super().readinto(buffer)
        self._tally.num_bytes += count
        return count


class _ZstdFile(io.RawIOBase):
    """Decompressed zstd frames; unlike the library's own reader, it notices a frame that is cut short."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_MAX_WINDOW)
        self._frame: Any = None  # None between frames
        self._waiting = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._waiting:
            chunk = self._file.read(_ZSTD_CHUNK)
            if not chunk:
                if self._frame is not None:
                    raise EOFError
                return 0
            self._waiting = memoryview(self._decompress(chunk))
        count = min(len(buffer), len(self._waiting))
        buffer[:count] = self._waiting[:count]
        self._waiting = self._waiting[count:]
        return count

    def _decompress(self, chunk: bytes) -> bytes:
        texts = []
        while chunk:
            if self._frame is None:
                self._frame = self._decompressor.decompressobj()
            texts.append(self._frame.decompress(chunk))
            if not self._frame.eof:
                break
            chunk, self._frame = self._frame.unused_data, None
        return b"".join(texts)
