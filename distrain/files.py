"""Files and folders that appear whole or not at all, locks between processes, checksums, and guarded JSON.

Decides: the order of write, sync and rename, that no link is written through, and when a JSON file is refused. Never:
what a file means.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "settings.json"
    >>> write_json(path, {"epochs": 3})
    >>> read_json_object(path)
    {'epochs': 3}

A process may be killed between any two lines, and a full disk may refuse any write. A reader then finds the old
content or the new content. A hidden temporary file or folder may remain; the next write to the same path removes it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import glob
import hashlib
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from distrain.errors import DataError
from distrain.regular_file import open_regular

DISK_FAULTS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}  # a full or failing disk, no mistake of a user
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of Linux's <fcntl.h> and <linux/fs.h>
MAX_JSON_BYTES = 1 << 26  # 64 MiB: the index of a data set of 30 TB is about as large


@contextmanager
def atomic_write(path: Path, *, durable: bool = True, suffix: str = ".tmp") -> Iterator[Path]:
    """Yield a temporary path in the folder of `path` for the caller to write; rename it to `path` when the block ends.

    If the block raises, the temporary file is removed and `path` stays as it was. A symbolic link at `path` is
    replaced, not followed.

    Args:
        path: File to create or replace; its folder exists.
        durable: Sync the file and its folder, so that the new content survives a power cut.
        suffix: Ending of the temporary name, for writers that choose a format by it.
    """
    tmp_path = path.with_name(f".{path.name}.{os.getpid()}{suffix}")  # the process number keeps two writers apart
    remove(tmp_path)  # also a link, which a writer would follow
    _remove_leftovers(path, suffix)
    try:
        yield tmp_path
        if durable:
            sync(tmp_path)
        tmp_path.replace(path)
    except BaseException as error:
        if isinstance(error, OSError) and error.filename == str(tmp_path):
            error.filename = str(path)  # the name that means something to people
        tmp_path.unlink(missing_ok=True)
        raise
    if durable:
        sync(path.parent)


def _remove_leftovers(path: Path, suffix: str) -> None:
    """Remove temporary files for `path` of processes that no longer live on this machine."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*{suffix}"):
        process = leftover.name.removeprefix(f".{path.name}.").removesuffix(suffix)
        if process.isdecimal() and not Path("/proc", process).exists() and Path("/proc/self").exists():
            remove(leftover)


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder for the caller to fill; sync it and rename it to `path` when the block ends.

    If the block raises, the new folder is removed and `path` stays as it was. Earlier content that cannot be removed
    stays under a hidden name, because the new folder is whole. The next write removes it.

    Args:
        path: Folder to create or replace; its parent exists. The caller lets one process at a time replace it.
    """
    new, old = path.with_name(f".{path.name}.tmp"), path.with_name(f".{path.name}.old")
    remove(new)
    if os.path.lexists(path):  # if only `old` exists, a kill came between the renames and `old` is the only copy
        remove(old)
    new.mkdir()
    try:
        yield new
        swap_folder(new, path, old=old)
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    with suppress(OSError):
        remove(old)


def swap_folder(new: Path, path: Path, *, old: Path) -> None:
    """Sync the folder `new` and rename it to `path`, whose earlier content moves to `old`.

    Where the file system can exchange two names, `path` exists at every moment. Elsewhere a kill between two renames
    leaves `old` and no `path`. The caller decides whether to restore `old` then.
    """
    sync_folder(new)
    replaces = os.path.lexists(path)
    if replaces and _exchange(new, path):
        sync(path.parent)
        new.rename(old)
        return
    if replaces:
        path.rename(old)
    try:
        new.rename(path)
    except OSError:
        if replaces:
            old.rename(path)
        raise
    sync(path.parent)


def _exchange(first: Path, second: Path) -> bool:
    """Exchange two names in one step; return False where kernel or file system cannot."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # a C library without this function
        return False
    if renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(second), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
        return False
    raise OSError(number, os.strerror(number), str(first), None, str(second))


def copy_folder(source: Path, target: Path) -> None:
    """Copy the files and folders below `source` into the existing folder `target`; links become the files they name.

    Raises:
        OSError: the first file that cannot be copied, with its name.
    """
    for entry in sorted(source.iterdir()):
        if entry.is_dir():
            (target / entry.name).mkdir()
            copy_folder(entry, target / entry.name)
        else:
            with naming(target / entry.name):
                shutil.copyfile(entry, target / entry.name)


def make_folder(path: Path) -> None:
    """Make a folder, and the folders above it, whose names survive a power cut; an existing folder stays."""
    if path.is_dir():
        return
    if path.parent != path:
        make_folder(path.parent)
    path.mkdir(exist_ok=True)
    sync(path.parent)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Give an `OSError` of the block the name of a file, where the system has not told one."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def describe(error: OSError) -> str:
    """Return the file that an error names, and the reason: `runs/1/config.json: No space left on device`."""
    file = error.filename2 or error.filename
    reason = error.strerror or str(error) or type(error).__name__
    return f"{os.fsdecode(file)}: {reason}" if isinstance(file, (str, bytes)) else reason


def sync_folder(folder: Path) -> None:
    """Bring every file in `folder` and its folders to the disk, then their names."""
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            sync_folder(entry)
        else:
            sync(entry)
    sync(folder)


@contextmanager
def exclusive_lock(path: Path, *, busy: Exception | None) -> Iterator[None]:
    """Lock a file or folder until the block ends or this process dies.

    A file system without locks grants every lock. There the user has to keep two processes apart.

    Args:
        path: Existing file or folder.
        busy: Error to raise if another process holds the lock; None waits for that process.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if busy is None else fcntl.LOCK_NB))
        except OSError as error:
            if busy is not None and isinstance(error, BlockingIOError):
                raise busy from None
        yield
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digest(folder: Path) -> str:
    """Return one SHA-256, in hexadecimal digits, over the names, sizes and contents of a folder's files.

    Raises:
        DataError: a file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            digest.update(f"{path.relative_to(folder).as_posix()}\0{path.stat().st_size}\0".encode())
            digest.update(bytes.fromhex(sha256_of(path)))
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error}. Every rank must be able to read it.") from None
    return digest.hexdigest()


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """Return `content` as JSON in UTF-8, one entry a line."""
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    return text.encode(errors="backslashreplace")  # a path that is not UTF-8 holds surrogates; JSON has \udc80 for them


def write_json(path: Path, content: Mapping[str, Any], *, durable: bool = True) -> None:
    """Replace `path` by `content` as JSON; see `atomic_write`."""
    with atomic_write(path, durable=durable) as tmp_path, naming(path):
        tmp_path.write_bytes(json_bytes(content))


def read_json_object(path: Path, *, max_bytes: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Read a JSON object from a file that may be damaged or hostile.

    Args:
        path: File in UTF-8.
        max_bytes: Size in bytes from which the file is refused; more is not read into memory.

    Raises:
        OSError: the file cannot be read, or is a pipe or a device; `FileNotFoundError` if it is absent.
        ValueError: the content is not one JSON object; the message gives the reason without the file's name.
    """
    with open_regular(path) as file:
        content = file.read(max_bytes + 1)
    if len(content) > max_bytes:
        raise ValueError(f"it has more than {max_bytes:,} bytes")
    try:
        value = json.loads(content.decode(), object_pairs_hook=unique_names)
    except RecursionError:
        raise ValueError("its brackets are nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("it is not a JSON object")
    return value


def unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object as a dict, for `json.loads(object_pairs_hook=)`; a name twice is a `ValueError`."""
    names = dict(pairs)
    if len(names) < len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"a JSON object has one name twice: {twice[:40]!r}")
    return names


def sync(path: Path) -> None:
    """Bring the content of a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with naming(path):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file, a folder with its content, or a link without its target; an absent path is no error."""
    if not path.is_dir() or path.is_symlink():
        path.unlink(missing_ok=True)
        return
    try:
        shutil.rmtree(path)
    except OSError as error:
        error.filename = str(path)  # the name that the system gave lacks the folder
        raise
