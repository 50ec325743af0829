"""Remote files as files on local disk, for libraries that open nothing else: fetched whole into the cache.

Decides: when a file is fetched, and how long it stays. Never: what a file means.

    np.load(local_copy(path), mmap_mode="r")         # a local path is returned as it is
    local_copy(to_path("s3://bucket/photos"))        # a folder: all files in it

All processes of a machine share the copies, which stay as long as one of them lives. A copy that is there already is
compared with its CRC-32, once in each process. A file that changed on its server is another file.
"""

from __future__ import annotations

import hashlib
import logging
import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from distrain.errors import ConfigurationError, DataError
from distrain.remote.cache import FOLDER_VARIABLE, SIZE_VARIABLE, Cache, find_cache, locked, no_room
from distrain.remote.faults import missing
from distrain.remote.path import RemotePath
from distrain.remote.storage import MIN_BYTES_PER_SECOND, REQUEST_SECONDS, RemoteObject
from distrain.remote.url import is_web, shown

TOLD_BYTES = 2**26  # a log line tells of larger transfers, which the start waits for
_PIECE_BYTES = 2**24
_MAX_THREADS = 8  # many small files take as long as their answers, not as their bytes
_NUM_LOCKS = 16  # files that processes of a machine may fetch at once
_MAX_DEPTH = 32  # folders in folders
_LOG = logging.getLogger(__name__)


class _User:
    """Keeps the files of an entry in the cache, until the process ends."""


_COPIES: dict[tuple[str, int], tuple[Path, _User]] = {}  # by URL and process


@dataclass(frozen=True)
class _Fetch:
    """Fetches files into one entry of the cache.

    Attributes:
        cache: the cache.
        folder: the entry: the files lie in "files", and their checksums in "checks".
    """

    cache: Cache
    folder: Path

    def one(self, name: str, found: RemoteObject) -> None:
        """Fetch a file, unless it is there."""
        path, check = self.folder / "files" / name, self.folder / "checks" / f"{name}.crc32"
        if _is_whole(path, check, found.size):
            return
        seconds = REQUEST_SECONDS + found.size / MIN_BYTES_PER_SECOND
        with locked(self.folder / f".turn-{zlib.crc32(name.encode()) % _NUM_LOCKS}", seconds):
            if _is_whole(path, check, found.size):  # another process has fetched it meanwhile
                return
            if not self.cache.reserve(found.size):
                raise no_room(self.cache, shown(found.url))
            crc = 0

            def take(piece: bytes) -> None:
                nonlocal crc
                crc = zlib.crc32(piece, crc)
                file.write(piece)

            with self.cache.unfinished(path) as tmp_path, tmp_path.open("wb") as file:
                if found.has_ranges:
                    for start in range(0, found.size, _PIECE_BYTES):
                        take(found.read(start, min(start + _PIECE_BYTES, found.size)))
                else:
                    found.stream(take)
            with self.cache.unfinished(check) as tmp_path:
                tmp_path.write_text(str(crc))


def local_copy(path: Path) -> Path:
    """Return the path of a file or a folder on local disk; a remote one is fetched first.

    Raises:
        DataError: a file cannot be fetched, or the cache cannot be written.
        ConfigurationError: the cache is too small for the file or the folder.
    """
    return local_copies([path])[0]


def local_copies(paths: Sequence[Path]) -> list[Path]:
    """Return the paths of several files or folders on local disk; see `local_copy`."""
    new = [path for path in paths if isinstance(path, RemotePath) and (path.url, os.getpid()) not in _COPIES]
    if new:
        _fetch(new)
    return [_COPIES[path.url, os.getpid()][0] if isinstance(path, RemotePath) else path for path in paths]


def _fetch(paths: Sequence[RemotePath]) -> None:
    cache = find_cache()
    contents = {path: _contents(path) for path in paths}
    total = sum(found.size for content in contents.values() for _, found in content)
    if total > cache.max_bytes:
        raise ConfigurationError(
            f"{paths[0]} {'and others have' if len(paths) > 1 else 'has'} {total / 2**30:,.2f} GiB, and the cache "
            f"{cache.root} may hold {cache.max_bytes / 2**30:,.2f} GiB. Set {SIZE_VARIABLE} to a larger number."
        )
    if total >= TOLD_BYTES:
        _LOG.warning(f"{paths[0]}: {total / 2**30:,.2f} GiB are fetched into the cache {cache.root} where they lack.")
    try:
        with ThreadPoolExecutor(_MAX_THREADS) as pool:
            tasks = []
            for path, content in contents.items():
                user = _User()
                fetch = _Fetch(cache, cache.pin(_entry(content), user))
                tasks += [pool.submit(fetch.one, name, found) for name, found in content]
                name = path.name if path.is_file() else ""
                _COPIES[path.url, os.getpid()] = fetch.folder / "files" / name, user
            for task in tasks:
                task.result()
    except BaseException as error:
        for path in paths:
            _COPIES.pop((path.url, os.getpid()), None)
        if not isinstance(error, OSError):
            raise
        raise DataError(
            f"the cache {cache.root} cannot be written: {error.strerror or error}. Free its disk, or name another "
            f"folder by {FOLDER_VARIABLE}."
        ) from None


def _contents(path: RemotePath, prefix: str = "", depth: int = 0) -> list[tuple[str, RemoteObject]]:
    """Return the files of a folder and its folders, by name; of a file the file itself."""
    if path.is_file():
        return [(_safe(path, path.name), path.described())]
    if is_web(path.url):
        raise DataError(f"{path} does not exist, or is a folder, which no web server lists. Give a file.")
    if not path.is_dir():
        raise missing(path.url)
    if depth > _MAX_DEPTH:
        raise DataError(f"{path} lies in over {_MAX_DEPTH} folders. Give a folder nearer to the files.")
    found: list[tuple[str, RemoteObject]] = []
    for entry in path.iterdir():
        name = prefix + _safe(path, entry.name)
        found += [(name, entry.described())] if entry.is_file() else _contents(entry, f"{name}/", depth + 1)
    return found


def _safe(path: RemotePath, name: str) -> str:
    if name in ("", ".", "..") or "/" in name or "\0" in name:
        raise DataError(f"{path} holds {name!r}, which is no name of a file.")
    return name


def _entry(content: Sequence[tuple[str, RemoteObject]]) -> str:
    # Without an identity nobody knows whether the file of another day is the same.
    facts = [(name, found.url, found.size, found.identity or uuid4().hex) for name, found in sorted(content)]
    return hashlib.sha256(repr(("local copy", facts)).encode(errors="surrogateescape")).hexdigest()


def _is_whole(path: Path, check: Path, size: int) -> bool:
    try:
        if path.stat().st_size != size:
            return False
        crc, wanted = 0, int(check.read_text())
        with path.open("rb") as file:
            while piece := file.read(_PIECE_BYTES):
                crc = zlib.crc32(piece, crc)
        os.utime(path)
        os.utime(check)
    except (OSError, ValueError):
        return False
    return crc == wanted
