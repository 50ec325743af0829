"""A folder that appears complete or not at all.

Decides: where a prepared data set is built, and which folders it may replace. Never: what a data set holds.

    with staged(Path("data")) as (new, scratch):
        ...                          # write into `new`, keep temporary files in `scratch`
                                     # here `data` appears; after an error nothing changes

All work happens in one folder next to the target, `.data.preparing`, so that the next process finds and removes what a
killed process left. A folder is replaced only if it is empty, or holds a prepared data set and nothing else.
"""

from __future__ import annotations

import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distrain.data.prepared.dataset_index import INDEX_NAME, PARTS
from distrain.errors import ConfigurationError
from distrain.file_names import VECTORIZER_NAME
from distrain.files import describe, exclusive_lock, make_folder, swap_folder


@contextmanager
def staged(out: Path) -> Iterator[tuple[Path, Path]]:
    """Yield two new folders: the first becomes `out` if the block succeeds, the second takes temporary files.

    Raises:
        ConfigurationError: `out` holds other files than a prepared data set, `out` cannot be written, or another
            process is preparing `out`.
    """
    out = out.resolve()
    work = out.with_name(f".{out.name}.preparing")
    busy = ConfigurationError(f"Another process is preparing {out}. Wait for it, or choose another --out.")
    try:
        _check_replaceable(out)
        make_folder(out.parent)
        work.mkdir(exist_ok=True)
        with exclusive_lock(work, busy=busy), terminable():
            _restore(out, work)
            try:
                _empty(work)
                new, scratch = work / "new", work / "scratch"
                new.mkdir()
                scratch.mkdir()
                yield new, scratch
                swap_folder(new, out, old=work / "old")
            finally:
                _restore(out, work)
                shutil.rmtree(work, ignore_errors=True)
    except BrokenPipeError:  # from standard output, and not from a file
        raise
    except OSError as error:
        raise ConfigurationError(
            f"--out {out} cannot be written ({describe(error)}). Write access to it and to "
            "the folder around it is needed, and room for about four times the text."
        ) from None


def _restore(out: Path, work: Path) -> None:
    """Rename the older data set back if a process stopped between the two renames."""
    if (work / "old").exists() and not out.exists():
        (work / "old").rename(out)


def _check_replaceable(out: Path) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise ConfigurationError(f"--out {out} is a file, but it must be a folder. Choose another name.")
    names = {entry.name for entry in out.iterdir()}
    shards = {name for name in names if name.startswith(tuple(f"{part}-" for part in PARTS)) and name.endswith(".npy")}
    strange = sorted(names - shards - {INDEX_NAME, VECTORIZER_NAME})
    if names and (strange or INDEX_NAME not in names):
        what = repr(strange[0]) if strange else "parts of a data set"
        raise ConfigurationError(
            f"--out {out} holds {what}, which is no part of a prepared data set and would be lost. "
            "Choose a new folder, or empty this one."
        )


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


@contextmanager
def terminable() -> Iterator[None]:
    """Turn SIGTERM into an exception, so that unfinished folders are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
