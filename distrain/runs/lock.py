"""Lets one job at a time train in a run directory, on one host or on several that share a file system.

Decides: who holds a run directory. Never: what the directory holds otherwise.

    with hold_run(Path("runs/1")):
        check_held(Path("runs/1"))             # before each checkpoint

The file `.lock` carries a lock of the system, which ends with its process and which NFS hands to its server. A second
job of the same host is refused by that lock at once. Some file systems grant no locks, or grant them on each host
alone. Therefore the holder also touches `.lock` every `RENEW_SECONDS`. A job of another host watches these times for
`LEASE_SECONDS` before it takes over. It compares times of one file server only, so clocks of hosts need not agree.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import socket
import stat
import struct
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distrain.errors import CheckpointError
from distrain.file_names import LOCK_NAME
from distrain.files import make_folder

_LOG = logging.getLogger(__name__)

RENEW_SECONDS = 2.0
LEASE_SECONDS = 20.0  # a holder that was silent for ten renewals is gone, or is noticed by its own `check_held`
SETTLE_SECONDS = 1.0  # longer than a write takes to reach the other hosts

_TOKEN = uuid.uuid4().hex  # names this process; process numbers repeat on other hosts and in containers
_MAX_BYTES = 4096
_GONE = {errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ELOOP}
_WHOLE_FILE = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)  # C's `struct flock` on 64-bit Linux


@contextmanager
def hold_run(run: Path) -> Iterator[None]:
    """Make the run directory if it is absent, and hold it until the block ends or this process dies.

    Raises (on entry):
        CheckpointError: another process trains in the directory, or its `.lock` is no regular file.
        OSError: the directory or its `.lock` cannot be written.
    """
    path = run / LOCK_NAME
    descriptor = _open_locked(run)
    try:
        ended = threading.Event()
        renewal = threading.Thread(target=_renew, args=(descriptor, ended), name="distrain-lock", daemon=True)
        renewal.start()
        try:
            yield
        finally:
            ended.set()
            renewal.join()
            if (_read(descriptor) or {}).get("token") == _TOKEN:
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)
        _LOG.debug("released %s", path)


def check_held(run: Path) -> None:
    """Make sure that this process still holds a run directory, before it writes there.

    Raises:
        CheckpointError: somebody removed or replaced the directory, or another job took it over.
    """
    path = run / LOCK_NAME
    try:
        holder = _read_path(path)
    except OSError as error:
        if error.errno not in _GONE:
            return  # a file that cannot be read for now proves nothing; writing will tell
        what = path if run.is_dir() else run
        raise CheckpointError(
            f"{what} was removed or replaced while this job trained, so nothing more can be saved. Leave the run "
            "directory in place; the same command trains from its last checkpoint, or anew."
        ) from None
    if holder is None or holder.get("token") != _TOKEN:
        raise CheckpointError(
            f"{run} was taken over by {_named(holder or {})}, because this job gave no sign of life for "
            f"{LEASE_SECONDS:g} s. This job ends without writing more."
        )


def _open_locked(run: Path) -> int:
    path = run / LOCK_NAME
    while True:
        make_folder(run)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, 0o666)
        except OSError:
            if path.is_symlink() or path.is_dir():
                raise _not_regular(path) from None
            raise
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _not_regular(path)
            _take(run, descriptor)
            if _is_same(path, descriptor):  # else a job that failed to open the run has just removed the file
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _take(run: Path, descriptor: int) -> None:
    is_locked = _lock(run, descriptor)
    before = _read(descriptor)
    own = {"host": socket.gethostname(), "boot": _boot(), "process": os.getpid(), "token": _TOKEN, "since": time.time()}
    if before is not None:
        is_of_this_host = any(before.get(name) == own[name] for name in ("host", "boot"))
        if not (is_locked and is_of_this_host):  # a lock of one host says nothing of jobs on other hosts
            _watch(run, before)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, json.dumps(own).encode(), 0)
    os.fsync(descriptor)
    if not is_locked:  # of several jobs that take the file at the same time, the last to write holds it
        time.sleep(SETTLE_SECONDS)  # other hosts notify nobody of a write
        now = _read_path(run / LOCK_NAME) or {}
        if now.get("token") != _TOKEN:
            raise _busy(run, now)


def _lock(run: Path, descriptor: int) -> bool:
    """Lock the file; return False where the file system grants no locks."""
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _WHOLE_FILE)
    except (BlockingIOError, PermissionError):
        raise _busy(run, _read(descriptor) or {}) from None
    except OSError:
        return False
    return True


def _watch(run: Path, before: Mapping[str, Any]) -> None:
    """Return when the holder has given no sign of life for `LEASE_SECONDS`, or has released the directory."""
    path = run / LOCK_NAME
    _LOG.warning(
        "%s was not released by %s. Waiting up to %g s for a sign of its life.", run, _named(before), LEASE_SECONDS
    )
    touched, deadline = _touched(path), time.monotonic() + LEASE_SECONDS
    while time.monotonic() < deadline:
        time.sleep(min(0.2, RENEW_SECONDS))  # until the deadline: a file on a server notifies nobody
        holder, now = _read_path(path), _touched(path)
        if holder is None:
            return
        if now != touched:
            raise _busy(run, holder)


def _renew(descriptor: int, ended: threading.Event) -> None:
    while not ended.wait(RENEW_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(descriptor)


def _touched(path: Path) -> int:
    """Return the file's time of modification, in nanoseconds of the file server's clock."""
    with _opened(path) as descriptor:
        return os.fstat(descriptor).st_mtime_ns


def _read_path(path: Path) -> dict[str, Any] | None:
    with _opened(path) as descriptor:
        return _read(descriptor)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open a file for reading, because NFS asks its server at each opening only."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> dict[str, Any] | None:
    """Return what the holder wrote: None if nobody holds the file, an empty object if it is damaged."""
    content = os.pread(descriptor, _MAX_BYTES, 0)
    if not content:
        return None
    try:
        holder = json.loads(content)
    except (ValueError, RecursionError):
        return {}
    return holder if isinstance(holder, dict) else {}


def _is_same(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _boot() -> str:
    """Return a name of the running kernel, which its containers share."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()


def _named(holder: Mapping[str, Any]) -> str:
    return f"process {holder.get('process', '?')} on host {str(holder.get('host', '?'))[:100]!r}"


def _busy(run: Path, holder: Mapping[str, Any]) -> CheckpointError:
    return CheckpointError(
        f"another process trains in {run} already ({_named(holder)}). Wait for it, or choose another --run. If the "
        "processes were meant to train together, their launcher was not recognized: use mpirun, horovodrun or srun."
    )


def _not_regular(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{path} is a link or no regular file, so nothing is written through it. Remove it, or choose another --run."
    )
