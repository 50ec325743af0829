"""An open file that is read by ranges, by any number of threads.

Decides: how long the file stays open. Never: what a range holds.

    file = RangeFile(Path("part-0.tar"))
    file.read(512, 1024)                               # the bytes 512 .. 1023
"""

from __future__ import annotations

import os
import weakref
from pathlib import Path

from distrain.errors import DataError


class RangeFile:
    """A file, open until it is closed or no longer used.

    Raises:
        DataError: the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {error.strerror}. Check the path and your permissions.") from None
        self.close = weakref.finalize(self, os.close, self._descriptor)

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes start .. stop - 1.

        Raises:
            DataError: the disk fails, or the file has become shorter.
        """
        pieces, place = [], int(start)
        while place < stop:
            try:
                piece = os.pread(self._descriptor, int(stop) - place, place)
            except OSError as error:
                raise DataError(f"{self._path} cannot be read: {error.strerror}.") from None
            if not piece:
                raise DataError(f"{self._path} has become shorter since it was first read. Restore it, or start again.")
            pieces.append(piece)
            place += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
