"""Folders for the files of Open MPI, and the remains of killed jobs in shared memory.

Decides: where a job on one host keeps segments and session files, and which remains belong to nobody. Never: starts a
process.

    with job_folders(num_ranks=2) as options:
        start(["mpirun", *options, "-n", "2", "distrain", "train"], signal_at_death=signal.SIGTERM)
    remove_remains()                             # of jobs of this user, all of whose processes were killed

A lock, which Linux releases with its last holder, tells the folder of a running job from a remain. Segments that plain
`mpirun` leaves in `/dev/shm` are remains if this user owns them, they are a minute old, and no process maps them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from distrain.keras_backend.start import require_temporary_folder

SHARED_MEMORY = Path("/dev/shm")
SEGMENT_BYTES = 1 << 22  # Open MPI's btl_vader_segment_size, for each rank
MIN_AGE_SECONDS = 60.0  # a starting job makes its files, and only then locks or maps these

_PREFIX = "distrain-job-"
_SEGMENT_PREFIX = "vader_segment."  # Open MPI 4: vader_segment.HOST.UID.JOB.RANK


@contextlib.contextmanager
def job_folders(num_ranks: int) -> Iterator[list[str]]:
    """Yield options of mpirun that name new folders; the end of the context removes the folders.

    Without room in `/dev/shm`, Open MPI would end. Then the segments of the ranks lie among the temporary files.
    """
    with contextlib.ExitStack() as stack:
        options = []
        temporary = require_temporary_folder()
        segments = SHARED_MEMORY if _has_room(num_ranks) else temporary
        parents = {"btl_vader_backing_directory": segments, "orte_tmpdir_base": temporary}
        for parameter, parent in parents.items():
            with contextlib.suppress(OSError):  # Open MPI then uses its own folder
                folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
                stack.callback(os.close, _locked(folder))
                options += ["--mca", parameter, str(folder)]
        yield options


def _has_room(num_ranks: int) -> bool:
    try:
        room = os.statvfs(SHARED_MEMORY)
    except OSError:
        return False
    return os.access(SHARED_MEMORY, os.W_OK) and room.f_bavail * room.f_frsize >= num_ranks * SEGMENT_BYTES


def remove_remains() -> None:
    """Remove folders and segments that killed jobs of this user left behind."""
    for parent in (SHARED_MEMORY, require_temporary_folder()):
        for folder in parent.glob(f"{_PREFIX}*"):
            with contextlib.suppress(OSError):  # locked by a running job, or gone
                if _is_old_and_own(folder):
                    lock = _locked(folder)
                    shutil.rmtree(folder, ignore_errors=True)
                    os.close(lock)
    segments = SHARED_MEMORY.glob(f"{_SEGMENT_PREFIX}{os.uname().nodename}.*")
    old = [path for path in segments if _is_old_and_own(path)]
    mapped = _mapped_files() if old else ""
    for path in old:
        if str(path) not in mapped:
            path.unlink(missing_ok=True)


def _locked(folder: Path) -> int:
    """Return a descriptor that holds the lock of a folder.

    Raises:
        OSError: another process holds the lock, or the folder is gone or a link.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _is_old_and_own(path: Path) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    return found.st_uid == os.geteuid() and time.time() - found.st_mtime > MIN_AGE_SECONDS


def _mapped_files() -> str:
    """Return the maps of all processes that this process may read; the owner of a file may read its own processes."""
    maps = []
    for path in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):
            maps.append(path.read_text(encoding="utf-8", errors="replace"))
    return "".join(maps)
