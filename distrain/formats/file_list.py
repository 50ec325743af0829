"""The files that a user means by a path, a folder, a pattern, or a list of these.

Decides: which files are read, and in which order. Never: opens a file.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> (folder / "b.parquet").touch(), (folder / "a.parquet").touch()
    (None, None)
    >>> [path.name for path in listed(folder, suffixes=(".parquet",), kind="Parquet files")]
    ['a.parquet', 'b.parquet']

The files of one folder or one pattern come in the order of their names, and the items of a list in the list's order.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from pathlib import Path

from distrain.errors import ConfigurationError, DataError
from distrain.remote.path import RemotePath, is_pattern, is_url, matching, text_of, to_path

_LOG = logging.getLogger(__name__)

Paths = str | os.PathLike[str] | Iterable[str | os.PathLike[str]]

_PATH = (str, os.PathLike, RemotePath)
_HIDDEN = (".", "_")  # Spark writes `_SUCCESS`, and other writers leave hidden files beside their data


def listed(paths: Paths, *, suffixes: tuple[str, ...], kind: str, folders: bool = False) -> list[Path]:
    """Return the files, sorted as described above.

    Args:
        paths: a path, a folder, a pattern such as "table/*.parquet", or a list of these; also as URLs.
        suffixes: endings of the files that a folder stands for, in lower case.
        kind: what the files are, for messages.
        folders: whether a folder is itself read as a file, as a Zarr store is.

    Raises:
        DataError: a file does not exist, or a folder or a pattern has no files.
        ConfigurationError: a file is named twice, or no file at all, or a URL has a scheme that is not read.
    """
    one_or_more = [paths] if isinstance(paths, _PATH) else list(paths) if isinstance(paths, Iterable) else [paths]
    if odd := [path for path in one_or_more if not isinstance(path, _PATH)]:
        raise ConfigurationError(
            f"{odd[0]!r} is no path of {kind}: give a path, a folder, a pattern, or a list of these."
        )
    given = [to_path(path) for path in one_or_more]
    found = [file for path in given for file in _expanded(path, suffixes, kind, folders)]
    if not found:
        raise ConfigurationError(f"The list of {kind} is empty; name at least one.")
    for path in given:
        if path.is_dir() and not folders:
            _warn_of_files_below(path, suffixes, kind, found)
    seen: set[str] = set()
    for file in found:
        resolved = text_of(file) if is_url(file) else os.path.realpath(file)
        if resolved in seen:
            raise ConfigurationError(f"{file} is named twice, so its examples would count twice. Name it once.")
        seen.add(resolved)
    return found


def _expanded(path: Path, suffixes: tuple[str, ...], kind: str, folders: bool) -> list[Path]:
    if path.is_dir() and not folders:
        found = _files_in(path, suffixes)
        if not found:
            raise DataError(f"{path} is a folder without {kind}, which end in {', '.join(suffixes)}.")
        return found
    if path.exists():
        return [path]
    if is_pattern(path):
        matches = [match for match in matching(path) if _is_data(match)]
        if not matches:
            raise DataError(f"{path} fits no file. Correct the pattern.")
        return [file for match in matches for file in _expanded(match, suffixes, kind, folders)]
    raise DataError(f"{path} does not exist. Correct the path.")


def _files_in(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return sorted(file for file in folder.iterdir() if _is_data(file) and file.name.lower().endswith(suffixes))


def _warn_of_files_below(folder: Path, suffixes: tuple[str, ...], kind: str, found: list[Path]) -> None:
    for below in sorted(path for path in folder.iterdir() if _is_data(path) and path not in found and path.is_dir()):
        if not set(found).issuperset(_files_in(below, suffixes)):
            _LOG.warning(f"{below} holds {kind} too, which are not read. To read both folders, give both in a list.")


def _is_data(path: Path) -> bool:
    return not path.name.startswith(_HIDDEN)
