"""A bounded folder on local disk for bytes that came from a server, shared by the processes of one user.

Decides: where the folder is, how large it may become, and which file goes first. Never: fetches anything.

    cache = find_cache()
    cache.put(entry, "00000000", content)            # False: no room, or the disk does not take it
    cache.get(entry, "00000000")                     # None: absent or torn

Two variables of the environment set it up: DISTRAIN_CACHE names the folder, and DISTRAIN_CACHE_GIB bounds its size. The
least recently used file goes first. Files of a pinned entry stay, because a process has mapped them into memory.

    ENTRY/NAME               one file: SHA-256 and content of a block, or a whole file of a data set
    ENTRY/.pin               locked, shared, by each process that uses the entry
    ENTRY/.turn              locked by the process that fetches
    .lock, .total            lock of the folder, and the sum of sizes
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import time
import weakref
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from uuid import uuid4

from distrain.errors import ConfigurationError, DataError

FOLDER_VARIABLE = "DISTRAIN_CACHE"
SIZE_VARIABLE = "DISTRAIN_CACHE_GIB"
DEFAULT_GIB = 32.0
LOCK_SECONDS = 60.0  # a stopped process may hold a lock; others then go on without it
_DIGEST_BYTES = 32
_SPARE = 0.1  # part of the bound that an eviction frees, so that the next one is not due at once
_LEFTOVER_SECONDS = 3600.0  # an unfinished file that nobody wrote to for so long is of a process that died
_POLL_SECONDS = 0.02
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Cache:
    """The folder and its bound.

    Attributes:
        root: the folder; made at first use.
        max_bytes: bound of the sum of its files.
    """

    root: Path
    max_bytes: int

    def get(self, entry: str, name: str) -> bytes | None:
        """Return a block, or None if it is absent, cut or changed."""
        path = self.root / entry / name
        try:
            content = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        if hashlib.sha256(content[_DIGEST_BYTES:]).digest() == content[:_DIGEST_BYTES]:
            return content[_DIGEST_BYTES:]
        with suppress(OSError):
            path.unlink()
        return None

    def put(self, entry: str, name: str, content: bytes) -> bool:
        """Keep a block; return whether it is kept. Without room, or on a disk that fails, reading goes on without."""
        path = self.root / entry / name
        try:
            if not self.reserve(_DIGEST_BYTES + len(content)):
                return False
            with self.unfinished(path) as tmp_path:
                tmp_path.write_bytes(hashlib.sha256(content).digest() + content)
        except OSError as error:
            _warn_once(self.root, error.strerror or str(error))
            return False
        return True

    @contextmanager
    def unfinished(self, path: Path) -> Iterator[Path]:
        """Yield a path to write to; the file takes its name when the block ends without an error.

        The path is random, as several threads of a process may write one file at once.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        tmp_path = path.with_name(f".{uuid4().hex}.tmp")
        try:
            yield tmp_path
            tmp_path.replace(path)
        finally:
            tmp_path.unlink(missing_ok=True)

    def reserve(self, num_bytes: int) -> bool:
        """Make room for a file before it is written; return whether there is room.

        Raises:
            OSError: the folder cannot be made or written.
        """
        if num_bytes > self.max_bytes:
            return False
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(self.root / ".lock"):
            total = self._read_total()
            if total is None or total + num_bytes > self.max_bytes:
                total = self._evict(num_bytes)
            if total + num_bytes > self.max_bytes:
                return False
            (self.root / ".total").write_text(str(total + num_bytes))
        return True

    @contextmanager
    def turn(self, entry: str) -> Iterator[None]:
        """Let one process at a time fetch for an entry, so that others find what it fetched."""
        with ExitStack() as stack:
            with suppress(OSError):  # without write access every process fetches for itself
                (self.root / entry).mkdir(mode=0o700, parents=True, exist_ok=True)
                stack.enter_context(locked(self.root / entry / ".turn"))
            yield

    def pin(self, entry: str, user: object) -> Path:
        """Keep the files of an entry as long as `user` lives; return the folder of the entry.

        Raises:
            OSError: the folder cannot be made or written.
        """
        folder = self.root / entry
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(self.root / ".lock"):
            folder.mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(folder / ".pin", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            with suppress(OSError):  # a file system without locks pins nothing
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        weakref.finalize(user, os.close, descriptor)
        return folder

    def _read_total(self) -> int | None:
        try:
            return int((self.root / ".total").read_text())
        except (OSError, ValueError):
            return None

    def _evict(self, num_bytes: int) -> int:
        """Remove files until `num_bytes` and some spare fit; return the bytes that stay."""
        files = sorted(self._files())
        total = sum(size for _, size, _ in files)
        goal = max(0, int(self.max_bytes * (1 - _SPARE)) - num_bytes)
        pinned: dict[Path, bool] = {}
        for _, size, path in files:
            if total <= goal:
                break
            folder = self.root / path.relative_to(self.root).parts[0]
            if folder not in pinned:
                pinned[folder] = _is_pinned(folder / ".pin")
            if not pinned[folder]:
                with suppress(OSError):
                    path.unlink()
                    total -= size
        for folder in {path.parent for _, _, path in files}:
            self._remove_empty(folder)
        return total

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        """Yield time of last use, size and path of each file, and remove leftovers."""
        for folder, _, names in os.walk(self.root):
            for name in names:
                path = Path(folder, name)
                with suppress(OSError):
                    status = path.stat()
                    if name.endswith(".tmp") and time.time() - status.st_mtime > _LEFTOVER_SECONDS:
                        path.unlink()
                    elif Path(folder) != self.root and not _is_lock(name):
                        yield status.st_mtime, status.st_size, path

    def _remove_empty(self, folder: Path) -> None:
        names = {path.name for path in folder.iterdir()} if folder.is_dir() else {""}
        if all(map(_is_lock, names)) and not any(_is_pinned(folder / name) for name in names):
            with suppress(OSError):
                for name in names:
                    (folder / name).unlink()
                folder.rmdir()


@cache
def find_cache() -> Cache:
    """Return the cache that the environment describes.

    Raises:
        ConfigurationError: the size is no number, or nothing names a folder.
    """
    given = os.environ.get(SIZE_VARIABLE, str(DEFAULT_GIB))
    try:
        gib = float(given)
        if not 0 <= gib <= 2**20:
            raise ValueError
    except ValueError:
        raise ConfigurationError(f"{SIZE_VARIABLE} is {given!r}, but it must be a number of GiB, such as 32.") from None
    named = os.environ.get(FOLDER_VARIABLE)
    folder = Path(named) if named else user_cache()
    if folder is None:
        raise ConfigurationError(f"There is no home folder for the cache of remote files: set {FOLDER_VARIABLE}.")
    return Cache(folder / "remote-1", int(gib * 2**30))


def user_cache() -> Path | None:
    """Return distrain's folder among the caches of this user; None for a user without a home folder."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "distrain"
    except RuntimeError:  # a container may run as a user that it does not know
        return None


def no_room(cache: Cache, what: object) -> DataError:
    """Return the error for a file that must be in the cache and does not fit."""
    return DataError(
        f"{what} does not fit the cache {cache.root}, which may hold {cache.max_bytes / 2**30:,.2f} GiB and is full of "
        f"data in use. Set {SIZE_VARIABLE} to a larger number."
    )


@contextmanager
def locked(path: Path, seconds: float = LOCK_SECONDS) -> Iterator[None]:
    """Lock a file of the cache; a lock that stays taken, or a file system without locks, stops nobody."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + seconds
    try:
        while time.monotonic() < deadline:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(_POLL_SECONDS)
            except OSError:
                break
        yield
    finally:
        os.close(descriptor)


def _is_lock(name: str) -> bool:
    return name.startswith((".pin", ".turn"))


def _is_pinned(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


@cache
def _warn_once(root: Path, reason: str) -> None:
    _LOG.warning(
        "the cache %s cannot be written: %s. Remote files are read without it; %s names another folder.",
        root,
        reason,
        FOLDER_VARIABLE,
    )
