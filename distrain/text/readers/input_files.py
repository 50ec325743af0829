"""The files that a user means by paths, folders of files, and patterns.

Decides: which files are read, in which order, and which choices are refused. Never: opens a file.

    found = find_files([Path("shards"), Path("more/part-*.csv")], "--train")
    found.paths, found.title                           # (shards/a.csv, ...), "shards/a.csv and 7 more files"

Files come in the order of the given paths. The files of one folder or one pattern come in the order of their names.
A folder that holds folders is one input: each folder in it is a class.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from distrain.errors import ConfigurationError, DataError
from distrain.remote.path import is_pattern, matching, text_of, to_path
from distrain.text.readers.byte_streams import unreadable
from distrain.text.readers.no_text import kind_of, refuse_no_text

COMPRESSED_SUFFIXES = (".gz", ".zst")
DATA_SUFFIXES = (".csv", ".tsv", ".tab", ".jsonl", ".ndjson", ".json", ".parquet", ".pq")
_SPLIT = re.compile(r"(train|test|valid|validation|val|dev|eval)(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class InputFiles:
    """The input of one option.

    Attributes:
        paths: files in order, or folders that hold one folder per class.
        notes: messages for the user.
    """

    paths: tuple[Path, ...]
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Name of the input, for messages."""
        more = len(self.paths) - 1
        return f"{self.paths[0]} and {more:,} more file{'s' * (more > 1)}" if more else str(self.paths[0])

    @property
    def size(self) -> int | None:
        """Bytes of all files, or None with a folder of classes, to avoid a second walk."""
        if not all(path.is_file() for path in self.paths):
            return None
        return sum(path.stat().st_size for path in self.paths)


def find_files(given: Sequence[Path], option: str) -> InputFiles:
    """Find the files that the values of an option mean.

    Args:
        given: files, folders of files, folders of classes, and patterns. If no file has a name with commas, the
            name is a list.
        option: name of the option, for messages.

    Raises:
        DataError: a pattern fits no file, or a folder holds other things than one kind of data.
        ConfigurationError: a file is given twice.
    """
    paths: list[Path] = []
    notes: list[str] = []
    for path in given:
        for found in _expanded(path, option):
            paths += _files_of(found, option, notes)
    seen: set[Path] = set()
    for path in paths:
        if path.resolve() in seen:
            raise ConfigurationError(f"{option} names {path} twice, so its rows would count twice. Give it once.")
        seen.add(path.resolve())
    return InputFiles(tuple(paths), tuple(notes))


def suffix_of(path: Path) -> str:
    """Return the suffix that names the format, in lower case and without a compression's suffix."""
    name = path.name.lower()
    for suffix in COMPRESSED_SUFFIXES:
        name = name.removesuffix(suffix)
    return Path(name).suffix


def entries_of(folder: Path) -> list[Path]:
    """Return what a folder holds, sorted by name, without hidden files."""
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise unreadable(folder, error) from None


def _expanded(path: Path, option: str) -> list[Path]:
    """Return the paths that a pattern or a list means; any other path is returned alone, even if it is missing."""
    if path.exists():
        return [path]
    if is_pattern(path) and (found := _matches(path)):
        return found
    parts = [to_path(part) for part in text_of(path).split(",")]
    if len(parts) > 1:
        found = [one for part in parts for one in _expanded(part, option)]
        if missing := next((part for part in found if not part.exists()), None):
            raise DataError(
                f"{option} {path} is no file, and as a list it names {missing}, which does not exist. "
                f"Check the names, or give {option} once for each file."
            )
        return found
    if is_pattern(path):
        raise DataError(f"{option} {path} fits no file. Check the pattern.")
    return [path]


def _matches(pattern: Path) -> list[Path]:
    """Return the files and folders that fit a pattern, sorted by name, without hidden files and metadata."""
    return [one for one in matching(pattern) if not one.name.startswith(".") and not _is_metadata(one)]


def _files_of(path: Path, option: str, notes: list[str]) -> list[Path]:
    """Return the data files of a folder; return a file, a missing path or a folder of classes as it is."""
    if not path.is_dir():
        return [path]
    entries = entries_of(path)
    files = [entry for entry in entries if entry.is_file() and suffix_of(entry) in DATA_SUFFIXES]
    if any(entry.is_dir() and not (files and entry.name.startswith("_")) for entry in entries):
        if files:
            notes.append(
                f"{path} holds folders, so each of them is read as a class, and {_shown(files)} beside them "
                f"{'are' if len(files) > 1 else 'is'} left out."
            )
        return [path]
    if not files:
        for entry in entries:
            refuse_no_text(entry, kind_of(entry.name))
        raise DataError(
            f"{path} is a folder without folders in it, and without files that end in {', '.join(DATA_SUFFIXES)}. "
            f"Give a folder of such files, a folder with one folder per class, or a pattern: {option} '{path}/*'."
        )
    others = [entry for entry in entries if entry.is_file() and entry not in files and not _is_metadata(entry)]
    suffix = suffix_of(files[0])
    others += [file for file in files if suffix_of(file) != suffix]
    if others:
        raise DataError(
            f"{path} holds {files[0].name} and {others[0].name}, which are of different kinds. "
            f"Choose the files by a pattern: {option} '{path}/*{suffix}'."
        )
    splits = {match.group(1).lower(): file for file in files if (match := _SPLIT.match(file.name))}
    if "train" in splits and len(splits) > 1:
        other = next(file for split, file in splits.items() if split != "train")
        raise DataError(
            f"{path} holds {splits['train'].name} and {other.name}, and training rows must not be tested on. "
            f"Choose the files by a pattern: {option} '{path}/{'test' if option == '--test' else 'train'}*'."
        )
    return files


def _is_metadata(path: Path) -> bool:
    """Return whether Spark or another writer leaves this file beside its data, as `_SUCCESS`."""
    return path.name.startswith("_") and suffix_of(path) not in DATA_SUFFIXES


def _shown(files: Sequence[Path]) -> str:
    more = len(files) - 1
    return f"{files[0].name} and {more:,} more" if more else files[0].name
