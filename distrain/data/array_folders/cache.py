"""Data that is written once as a folder of arrays, and read by position from then on.

Decides: when a folder holds the wanted data, when it is written, and by which process. Never: what an example is.

    arrays = cached_arrays(Path("cache"), {"train": generate, "validation": dataset})
    features, labels, weights = arrays["train"]               # memory maps

The first process that needs the folder writes it. All others on its file system wait, and then read it. A folder
appears whole or not at all, so a folder that a killed process left half-written is written anew.

Data is known again by its form, its length where it is known, and a few examples. A source shows some of its whole
length, and other data shows the first ones. Other changes of the data are not noticed, but changed files are.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from distrain.data.array_folders.folder import part_arrays
from distrain.data.array_folders.manifest import MANIFEST_NAME, check_recorded_files, read_manifest
from distrain.data.array_folders.writer import ArrayWriter
from distrain.data.by_position.element_stream import ElementStream, element_stream
from distrain.errors import ConfigurationError
from distrain.files import describe, exclusive_lock, make_folder, replace_folder

_LOG = logging.getLogger(__name__)

Progress = Callable[[str, int, int | None], None]  # part, examples so far, and all examples if their number is known


def cached_arrays(
    folder: Path, data: Mapping[str, Any], progress: Progress = lambda part, rows, length: None
) -> dict[str, tuple[Any, Any, Any]]:
    """Return features, labels and weights of each part, after the folder is written if it does not hold them yet.

    Args:
        folder: the folder; its parent is made if it is missing.
        data: data by name of the part.
        progress: is called as examples are written.

    Raises:
        ConfigurationError: the folder holds other data or other files, or cannot be written; or data has no end.
        DataError: an example cannot be read, or differs from the first one; or a file of the folder was changed.
    """
    streams = {part: element_stream(given, part) for part, given in data.items()}
    source = {part: _identity(stream) for part, stream in streams.items()}
    is_new = False
    with _writable(folder, "cache"):
        if not _holds(folder, source):  # a folder that is there needs no lock, so it may lie on read-only storage
            with _locked(folder):
                if not _holds(folder, source):
                    _write_arrays(folder, streams, source, None, progress)
                    is_new = True
    if not is_new:
        check_recorded_files(folder)
    return {part: part_arrays(folder, part) for part in data}


def prepare_arrays(folder: Path, data: Mapping[str, Any], max_rows: int | None, progress: Progress) -> dict[str, int]:
    """Write data as a folder of arrays, in place of such a folder; return the number of examples of each part.

    Args:
        folder: the folder.
        data: data by name of the part.
        max_rows: examples to keep of each part; None keeps all.
        progress: is called as examples are written.

    Raises:
        ConfigurationError, DataError: as `cached_arrays`.
    """
    streams = {part: element_stream(given, part) for part, given in data.items()}
    with _writable(folder, "--out"), _locked(folder):
        _refuse_other_files(folder)
        source = {part: _identity(stream) for part, stream in streams.items()}
        return _write_arrays(folder, streams, source, max_rows, progress)


def _write_arrays(
    folder: Path,
    streams: Mapping[str, ElementStream],
    source: Mapping[str, str],
    max_rows: int | None,
    progress: Progress,
) -> dict[str, int]:
    """Replace a folder by the arrays of some streams; return the number of examples of each part."""
    for part, stream in streams.items():
        if stream.is_endless and max_rows is None:
            raise ConfigurationError(
                f"{part} has no end: leave out .repeat(), or keep a number of examples, by .take(N) or --max-rows N."
            )
    with replace_folder(folder) as new:
        writer = ArrayWriter(new)
        rows = {}
        for part, stream in streams.items():
            stream.tell_batches()
            length = stream.length if max_rows is None else max_rows
            told = _told(progress, part, length)
            rows[part] = writer.write(part, stream.layout, stream.blocks(max_rows), told)
        writer.finish(source)
    return rows


def _told(progress: Progress, part: str, length: int | None) -> Callable[[int], None]:
    return lambda rows: progress(part, rows, length)


def _identity(stream: ElementStream) -> str:
    digest, repeats = stream.identity()
    if not repeats:
        _LOG.warning(
            f"{stream.reader.name} gives other examples each time it is read; the folder keeps those of the first time."
        )
    return digest


def _holds(folder: Path, source: Mapping[str, str]) -> bool:
    """Whether a folder holds the data already.

    Raises:
        ConfigurationError: the folder holds other data, or other files.
    """
    try:
        manifest = read_manifest(folder)
    except FileNotFoundError:
        _refuse_other_files(folder)
        return False
    held = manifest["source"]
    other = sorted(part for part in source.keys() | held.keys() if source.get(part) != held.get(part))
    if other:
        raise ConfigurationError(
            f"cache {folder} holds other data ({', '.join(other)}): delete the folder, or name another one. Data is "
            "known again by its form and a few examples; a generator that draws them at random cannot be."
        )
    return True


def _refuse_other_files(folder: Path) -> None:
    """Raise `ConfigurationError` if a folder holds files that are no part of a folder of arrays that distrain wrote."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise ConfigurationError(f"{folder} is a file, but it must be a folder. Choose another name.")
    names = {entry.name for entry in folder.iterdir()}
    known = {MANIFEST_NAME, *read_manifest(folder)["files"]} if MANIFEST_NAME in names else set()
    if strange := sorted(names - known):
        raise ConfigurationError(
            f"{folder} holds {strange[0]!r}, which distrain did not write and which would be lost. Choose a new "
            "folder, or empty this one."
        )


@contextmanager
def _writable(folder: Path, what: str) -> Iterator[None]:
    try:
        make_folder(folder.resolve().parent)
        yield
    except OSError as error:
        raise ConfigurationError(
            f"{what} {folder} cannot be written ({describe(error)}). Write access to the folder around it is needed, "
            "and room for the arrays."
        ) from None


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one process at a time write a folder; wait for another one that writes it."""
    path = folder.resolve()
    lock = path.with_name(f".{path.name}.lock")
    lock.touch()
    with ExitStack() as stack:
        try:
            stack.enter_context(exclusive_lock(lock, busy=BlockingIOError()))
        except BlockingIOError:
            _LOG.warning("process %d waits for another process that writes %s", os.getpid(), folder)
            stack.enter_context(exclusive_lock(lock, busy=None))
        yield
