"""Files as streams of bytes, decompressed if need be.

Decides: compression (by a file's first bytes, not by its name), and which kinds of files are refused. Never: what the
bytes mean.

    with open_bytes(Path("train.csv.gz"), Tally()) as file:
        file.read(2**20)                                     # decompressed bytes

A gzip file may hold several members, and a zstd file several frames and skippable frames.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import zstandard

from distrain.errors import DataError
from distrain.text.readers.no_text import kind_of, refuse_no_text
from distrain.text.readers.tally import Tally

_BUFFER = 2**20
_ZSTD_CHUNK = 2**10  # zstd expands its input up to 2**15 times, here to 32 MiB at most
_ZSTD_MAX_WINDOW = 2**27  # bytes; the zstd command accepts as much without --long
_GZIP = rb"\x1f\x8b"
_ZSTD = rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"  # a frame, or a skippable frame, as pzstd writes first
READ_ERRORS = (OSError, EOFError, zlib.error, zstandard.ZstdError)
_REFUSED = {
    rb"PK\x03\x04": "a zip archive or a spreadsheet. Unpack it, or save it as CSV",
    rb"\xd0\xcf\x11\xe0": "an old spreadsheet. Save it as CSV",
    rb"\xfd7zXZ\0": "compressed with xz. Unpack it; plain, .gz and .zst are read",
    rb"BZh[1-9]1AY&SY": "compressed with bzip2. Unpack it; plain, .gz and .zst are read",
    rb"PAR1": "a Parquet file. Let its name end in .parquet",
    rb"\xff\xfe|\xfe\xff": "UTF-16 text. Save it as UTF-8",
    rb"%b|%b" % (_GZIP, _ZSTD): "compressed twice. Unpack it once",
}


@contextmanager
def open_bytes(path: Path, tally: Tally) -> Iterator[BinaryIO]:
    """Open a file for reading, and decompress its bytes if need be.

    Raises:
        DataError: the file's first bytes show that the file is no text.
        Exception: one of `READ_ERRORS`, from opening or reading; see `unreadable`.
    """
    with path.open("rb", buffering=0) as raw, io.BufferedReader(_CountedFile(raw, tally), _BUFFER) as disk:
        head = disk.peek(4)
        file: io.BufferedReader[Any] = disk
        if re.match(_GZIP, head):
            file = io.BufferedReader(cast(io.RawIOBase, gzip.GzipFile(fileobj=disk)), _BUFFER)
        elif re.match(_ZSTD, head, re.DOTALL):
            file = io.BufferedReader(_ZstdFile(disk), _BUFFER)
        head = file.peek(16)
        refuse_no_text(path, kind_of("", head))
        for magic, what in _REFUSED.items():
            if re.match(magic, head, re.DOTALL):
                raise DataError(f"{path} is {what}.")
        yield file


def unreadable(path: Path, error: Exception) -> DataError:
    """Return the error for a file that cannot be opened or read; `error` is one of `READ_ERRORS`."""
    if isinstance(error, OSError) and error.strerror:
        return DataError(f"{path} cannot be read: {error.strerror}. Check the path and your permissions.")
    if "too much memory" in str(error):  # of zstd, for a window beyond _ZSTD_MAX_WINDOW
        return DataError(f"{path} needs over 128 MiB to decompress. Compress it again with zstd --long=27 or less.")
    what = "ends too early" if isinstance(error, EOFError) else f"is damaged ({error})"
    return DataError(f"{path} is compressed and {what}. Copy or download it again.")


class _CountedFile(io.RawIOBase):
    """A file that counts the bytes read from it."""

    def __init__(self, file: io.RawIOBase, tally: Tally) -> None:
        self._file, self._tally = file, tally

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(buffer) or 0
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
