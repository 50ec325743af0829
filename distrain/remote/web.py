"""Ranges of a file from a web server, through the HTTP session of fsspec.

Decides: whether a server serves ranges, and whether an answer is what was asked for. Never: tries again.

    size, identity, has_ranges = await probe(filesystem, url)
    content = await read_range(filesystem, url, 0, 2**20, size=size, identity=identity)

fsspec's own reader neither compares the identity of a file between two ranges, nor bounds the answer of a server that
ignores the range.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from distrain.remote.faults import ChangedError, CutShortError, UnsafeRedirectError

_PIECE = 2**18
_PLAIN = {"Accept-Encoding": "identity"}  # lengths are of the file, not of compressed bytes


async def probe(filesystem: Any, url: str) -> tuple[int | None, str | None, bool]:
    """Return size, identity, and whether the server serves ranges, by asking for the first byte.

    A request for the first byte also works with signed URLs, which refuse HEAD.
    """
    async with await _get(filesystem, url, {"Range": "bytes=0-0"}) as response:
        if response.status == 416:  # an empty file has no first byte
            return 0, _identity(response), True
        response.raise_for_status()
        size = _total(response) if response.status == 206 else response.content_length
        return size, _identity(response), response.status == 206


async def read_range(filesystem: Any, url: str, start: int, stop: int, *, size: int, identity: str | None) -> bytes:
    """Return the bytes start .. stop - 1.

    Raises:
        ChangedError: the server's file has another size or identity.
        CutShortError: the server sent fewer bytes.
    """
    async with await _get(filesystem, url, {"Range": f"bytes={start}-{stop - 1}"}) as response:
        response.raise_for_status()
        if response.status != 206 or _total(response) != size or _identity(response) != identity:
            raise ChangedError
        content = bytearray()
        async for piece in response.content.iter_chunked(_PIECE):
            content += piece
            if len(content) > stop - start:
                raise ChangedError
    if len(content) < stop - start:
        raise CutShortError
    return bytes(content)


async def stream(filesystem: Any, url: str, write: Callable[[bytes], None], *, size: int, identity: str | None) -> None:
    """Hand the whole file to `write`, piece by piece, for a server that ignores ranges."""
    async with await _get(filesystem, url, {}) as response:
        response.raise_for_status()
        if response.content_length != size or _identity(response) != identity:
            raise ChangedError
        done = 0
        async for piece in response.content.iter_chunked(_PIECE):
            done += len(piece)
            if done > size:
                raise ChangedError
            write(piece)
    if done < size:
        raise CutShortError


async def _get(filesystem: Any, url: str, headers: dict[str, str]) -> Any:
    session = await filesystem.set_session()
    response = await session.get(filesystem.encode_url(url), headers=_PLAIN | headers)
    if url.startswith("https:") and response.url.scheme != "https":
        response.close()
        raise UnsafeRedirectError
    return response


def _identity(response: Any) -> str | None:
    return response.headers.get("ETag") or response.headers.get("Last-Modified")


def _total(response: Any) -> int | None:
    """Return the size of the whole file, which the header Content-Range tells after a slash."""
    total = response.headers.get("Content-Range", "").rpartition("/")[2]
    return int(total) if total.isdecimal() else None
