"""Files behind URLs, by fsspec: names, sizes, and any range of bytes.

Decides: timeouts, the number of tries, and what identifies a file. Never: keeps bytes.

    found = find_object("s3://bucket/train.csv")    # None where nothing is
    found.size, found.read(0, 2**20)

Every request has a bound in time. A request whose failure may pass is sent again, four times at most.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from distrain.errors import DataError
from distrain.remote import web
from distrain.remote.faults import (
    ChangedError,
    CutShortError,
    fault_of,
    is_missing,
    is_passing,
    missing_library,
)
from distrain.remote.url import is_web, scheme_of, shown

CONNECT_SECONDS = 10.0
SILENT_SECONDS = 30.0  # a server that sends nothing for so long has stopped answering
REQUEST_SECONDS = 300.0  # for a range of 16 MiB this is 56 KB/s
MIN_BYTES_PER_SECOND = 50_000  # of a whole file from a server without ranges
TRIES = 4
_FIRST_WAIT = 0.5  # seconds; each wait is twice the wait before
_IDENTITIES = ("ETag", "etag", "generation", "blob_id", "LastModified", "last_modified", "updated", "mtime")

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class RemoteObject:
    """A file as it was when it was described.

    Attributes:
        url: where it is.
        size: number of bytes.
        identity: what changes with the content, such as an ETag; None if the server tells nothing.
        has_ranges: whether the server serves ranges.
    """

    url: str
    size: int
    identity: str | None
    has_ranges: bool = True

    def read(self, start: int, stop: int) -> bytes:
        """Return the bytes start .. stop - 1.

        Raises:
            DataError: the server does not give them, or the file changed since it was described.
        """
        return _tried(self.url, lambda: _read_once(self, start, stop))

    def stream(self, write: Callable[[bytes], None]) -> None:
        """Hand the whole file to `write`, piece by piece; nothing is tried twice."""
        filesystem = _filesystem(self.url)
        seconds = REQUEST_SECONDS + self.size / MIN_BYTES_PER_SECOND
        try:
            identity = self.identity
            _on_loop(filesystem, web.stream, self.url, write, seconds=seconds, size=self.size, identity=identity)
        except Exception as error:
            raise error if isinstance(error, DataError) else fault_of(self.url, error) from None


Found = tuple[str, RemoteObject | None]  # an entry of a listing; None for a folder


def find_object(url: str) -> RemoteObject | None:
    """Describe the file behind a URL; None where nothing is, or a folder.

    Raises:
        DataError: the server does not answer, or denies access.
    """
    filesystem = _filesystem(url)
    if not is_web(url):
        info = _found(url, lambda: _in_time(filesystem.info, url))
        return None if info is None or info["type"] != "file" else _described(url, info)
    answer = _found(url, lambda: _on_loop(filesystem, web.probe, url))
    if answer is None:
        return None
    size, identity, has_ranges = answer
    if size is None:
        raise DataError(f"{shown(url)}: the server does not tell the size of the file. Download it first.")
    return RemoteObject(url, size, identity, has_ranges)


def is_folder(url: str) -> bool:
    """Whether files of the store begin with this path and a slash."""
    filesystem = _filesystem(url)
    return bool(_found(url, lambda: _in_time(filesystem.isdir, url)))


def entries_of(url: str) -> list[Found]:
    """Return what a folder holds, described."""
    filesystem = _filesystem(url)
    infos = _found(url, lambda: _in_time(filesystem.ls, url, detail=True)) or []
    return [found for found in (_entry(url, info) for info in infos) if found[0] != url]


def matches_of(pattern: str) -> list[Found]:
    """Return the files and folders that fit a pattern, described."""
    filesystem = _filesystem(pattern)
    infos = _found(pattern, lambda: _in_time(filesystem.glob, pattern, detail=True)) or {}
    return [_entry(pattern, info) for info in infos.values()]


def _entry(parent: str, info: dict[str, Any]) -> Found:
    url = f"{scheme_of(parent)}://{info['name']}"
    return url, None if info["type"] == "directory" else _described(url, info)


def _described(url: str, info: dict[str, Any]) -> RemoteObject:
    identity = next((str(info[name]) for name in _IDENTITIES if info.get(name)), None)
    return RemoteObject(url, int(info["size"]), identity)


def _read_once(found: RemoteObject, start: int, stop: int) -> bytes:
    filesystem, url = _filesystem(found.url), found.url
    if is_web(url):
        identity = found.identity
        content: bytes = _on_loop(filesystem, web.read_range, url, start, stop, size=found.size, identity=identity)
        return content

    def read() -> bytes:
        with filesystem.open(url, "rb", cache_type="none") as file:
            if _described(found.url, file.details) != found:
                raise ChangedError
            file.seek(start)
            content: bytes = file.read(stop - start)
            return content

    content = _in_time(read)
    if len(content) != stop - start:
        raise CutShortError
    return content


def _found(url: str, request: Callable[[], _Result]) -> _Result | None:
    """Return the answer to a request, or None where the server says that nothing is there."""

    def once() -> _Result | None:
        try:
            return request()
        except Exception as error:
            if is_missing(error):
                return None
            raise

    return _tried(url, once)


def _tried(url: str, request: Callable[[], _Result]) -> _Result:
    for number in range(TRIES):
        try:
            return request()
        except DataError:
            raise
        except Exception as error:  # each library raises types of its own
            if number + 1 == TRIES or not is_passing(error):
                raise fault_of(url, error) from None
            time.sleep(_FIRST_WAIT * 2**number)
    raise AssertionError


def _on_loop(
    filesystem: Any, function: Callable[..., Any], url: str, *rest: Any, seconds: float = 0.0, **known: Any
) -> Any:
    """Run a coroutine of `web` on the thread of fsspec; after the time it is cancelled."""
    from fsspec.asyn import sync

    return sync(filesystem.loop, function, filesystem, url, *rest, timeout=seconds or REQUEST_SECONDS, **known)


def _in_time(function: Callable[..., _Result], *arguments: Any, **named: Any) -> _Result:
    """Call a function in a thread that is left behind after the time, because not every library has a deadline."""
    answer: Future[_Result] = Future()

    def call() -> None:
        try:
            answer.set_result(function(*arguments, **named))
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return answer.result(timeout=REQUEST_SECONDS)


_FILESYSTEMS: dict[tuple[str, int], Any] = {}


def _filesystem(url: str) -> Any:
    """Return the file system of a scheme; each process has its own, because connections do not survive a fork."""
    key = scheme_of(url), os.getpid()
    if key not in _FILESYSTEMS:
        try:
            import fsspec

            options = _options(scheme_of(url))
            given = fsspec.config.conf.get(scheme_of(url), {})
            chosen = {name: value for name, value in options.items() if name not in given}
            _FILESYSTEMS[key] = fsspec.filesystem(scheme_of(url), skip_instance_cache=True, **chosen)
        except ImportError as error:
            raise missing_library(url, error) from None
        except Exception as error:  # credentials are looked for while the object is made
            raise fault_of(url, error) from None
        if scheme_of(url) == "s3":
            _FILESYSTEMS[key].retries = 1  # `_tried` tries again
    return _FILESYSTEMS[key]


def _options(scheme: str) -> dict[str, Any]:
    """Return timeouts as each library takes them, and no cache of listings."""
    if scheme == "s3":
        return {
            "use_listings_cache": False,
            "config_kwargs": {
                "connect_timeout": CONNECT_SECONDS,
                "read_timeout": SILENT_SECONDS,
                "retries": {"total_max_attempts": 1},
            },
        }
    if is_web(f"{scheme}://"):
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=SILENT_SECONDS)
        return {"client_kwargs": {"timeout": timeout, "trust_env": True}}  # proxies, and ~/.netrc
    return {"use_listings_cache": False}
