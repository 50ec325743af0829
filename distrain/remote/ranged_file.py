"""A remote file as a Python file: seekable, read by range, with its blocks in the cache.

Decides: which ranges are fetched, and how far ahead. Never: what bytes mean.

    with open_ranged(path.described()) as file:
        file.seek(-8, io.SEEK_END)
        file.read(8)                                 # one request, of one block

The cache holds blocks of 1 MiB. Reading on from the end of the last range doubles the next one, up to 16 MiB. Of a
server without ranges the whole file goes through the cache first.
"""

from __future__ import annotations

import hashlib
import io
from typing import Any, BinaryIO, cast
from uuid import uuid4

from distrain.errors import DataError
from distrain.remote.cache import SIZE_VARIABLE, Cache, find_cache, no_room
from distrain.remote.storage import RemoteObject
from distrain.remote.url import shown

BLOCK_BYTES = 2**20
MAX_BLOCKS = 16  # of one request
_BUFFER = 2**18


def open_ranged(found: RemoteObject, *, buffered: bool = True) -> BinaryIO:
    """Open a remote file for reading."""
    raw = _RangedFile(found, find_cache())
    return cast(BinaryIO, io.BufferedReader(raw, _BUFFER) if buffered else raw)


class _RangedFile(io.RawIOBase):
    """See the module.

    Args:
        found: the file.
        cache: where blocks stay.
    """

    def __init__(self, found: RemoteObject, cache: Cache) -> None:
        self._found, self._cache = found, cache
        # Without an identity nobody knows whether the file of another day is the same.
        salt = "" if found.identity is not None else uuid4().hex
        key = f"{found.url}\0{found.size}\0{found.identity}\0{salt}"
        self._entry = hashlib.sha256(key.encode(errors="surrogateescape")).hexdigest()
        self._position = 0
        self._start, self._held = 0, b""  # what is in memory, and where it begins
        self._num_blocks = 1
        self.name = shown(found.url)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._found.size}[whence]
        if base + offset < 0:
            raise ValueError("a position before the start of the file")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._found.size - self._position)
        if wanted <= 0:
            return 0
        if not self._start <= self._position < self._start + len(self._held):
            self._load(wanted)
        at = self._position - self._start
        piece = memoryview(self._held)[at : at + wanted]
        buffer[: len(piece)] = piece
        self._position += len(piece)
        return len(piece)

    def _load(self, wanted: int) -> None:
        """Hold the blocks from the position on: those that are wanted, and more while reading goes straight on."""
        goes_on = self._held and self._position == self._start + len(self._held)
        self._num_blocks = min(MAX_BLOCKS, 2 * self._num_blocks) if goes_on else 1
        first = self._position // BLOCK_BYTES
        last = min(self._position + wanted - 1, self._found.size - 1) // BLOCK_BYTES
        stop = min(first + max(self._num_blocks, last + 1 - first), first + MAX_BLOCKS, self._stop_block)
        self._held = b""  # two ranges are never held at once
        self._held = self._blocks(first, stop)
        self._start = first * BLOCK_BYTES

    @property
    def _stop_block(self) -> int:
        return -(-self._found.size // BLOCK_BYTES)

    def _blocks(self, first: int, stop: int) -> bytes:
        """Return blocks first .. stop - 1 from the cache, and fetch what it lacks."""
        blocks = {number: self._cached(number) for number in range(first, stop)}
        if None in blocks.values():
            with self._cache.turn(self._entry):
                blocks = {number: block or self._cached(number) for number, block in blocks.items()}
                missing = [number for number, block in blocks.items() if block is None]
                if missing and not self._found.has_ranges:
                    self._fetch_all()
                    return self._after_fetching_all(first, stop)
                for start, end in _stretches(missing):
                    blocks |= self._fetch(start, end)
        return b"".join(block or b"" for block in blocks.values())

    def _fetch(self, first: int, stop: int) -> dict[int, bytes]:
        start = first * BLOCK_BYTES
        content = self._found.read(start, min(stop * BLOCK_BYTES, self._found.size))
        blocks = {}
        for number in range(first, stop):
            at = number * BLOCK_BYTES - start
            blocks[number] = content[at : at + BLOCK_BYTES]
            self._cache.put(self._entry, _name(number), blocks[number])
        return blocks

    def _fetch_all(self) -> None:
        """Put the whole file into the cache, because its server does not serve ranges."""
        if 2 * self._found.size > self._cache.max_bytes:
            raise DataError(
                f"{self.name}: the server does not serve ranges, and the file is larger than half the cache. "
                f"Download the file first, or set {SIZE_VARIABLE} to a larger number."
            )
        waiting, number = bytearray(), 0

        def write(piece: bytes, *, is_last: bool = False) -> None:
            nonlocal number
            waiting.extend(piece)
            while len(waiting) >= BLOCK_BYTES or (is_last and waiting):
                if not self._cache.put(self._entry, _name(number), bytes(waiting[:BLOCK_BYTES])):
                    raise no_room(self._cache, self.name)
                del waiting[:BLOCK_BYTES]
                number += 1

        self._found.stream(write)
        write(b"", is_last=True)

    def _after_fetching_all(self, first: int, stop: int) -> bytes:
        blocks = [self._cached(number) for number in range(first, stop)]
        if None in blocks:
            raise no_room(self._cache, self.name)
        return b"".join(block or b"" for block in blocks)

    def _cached(self, number: int) -> bytes | None:
        block = self._cache.get(self._entry, _name(number))
        size = min(BLOCK_BYTES, self._found.size - number * BLOCK_BYTES)
        return block if block is not None and len(block) == size else None


def _name(number: int) -> str:
    return f"{number:08}"


def _stretches(numbers: list[int]) -> list[tuple[int, int]]:
    """Return the stretches (start, stop) of neighbours in ascending numbers."""
    stretches: list[tuple[int, int]] = []
    for number in numbers:
        if stretches and stretches[-1][1] == number:
            stretches[-1] = stretches[-1][0], number + 1
        else:
            stretches.append((number, number + 1))
    return stretches
