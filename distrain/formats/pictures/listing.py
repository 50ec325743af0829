"""The pictures of a folder with a folder per class, in the order of `keras.utils.image_dataset_from_directory`.

Decides: which files are pictures, the number of each class, and which folders are refused. Never: opens a file.

    listing = list_images(Path("flowers"))
    listing.files[0], listing.labels[0], listing.class_names      # "flowers/daisy/1.jpg", 0, ("daisy", "rose")

Classes count from 0 in the order of their names. Files come in the order of class and name, also from folders inside
the folder of a class. Hidden files and folders are left out. Links are followed.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distrain.errors import ConfigurationError, DataError
from distrain.formats.columns import shown

_LOG = logging.getLogger(__name__)

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif")
_OTHER_IMAGE_SUFFIXES = (".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".svg", ".ppm", ".pgm", ".raw", ".dng")
_SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation", "eval", "dev"}


@dataclass(frozen=True)
class ImageListing:
    """Pictures and their classes.

    Attributes:
        files: path of each picture.
        labels: int64 `[n]`: class of each picture; or other numbers.
        class_names: names of the classes by number.
        weights: float32 `[n]`: weight of each picture; None without weights.
    """

    files: tuple[str, ...]
    labels: np.ndarray
    class_names: tuple[str, ...]
    weights: np.ndarray | None = None


def list_images(folder: Path, class_names: Sequence[str] | None = None) -> ImageListing:
    """Return the pictures of a folder.

    Args:
        folder: holds a folder per class.
        class_names: folders to read, in the order of their numbers; default: all, by name.

    Raises:
        DataError: the folder has no folders of pictures, or a picture has a format that is not read. Two names of one
            folder are an error as well.
        ConfigurationError: `class_names` names a folder twice.
    """
    present = _class_folders(folder, class_names)
    names = tuple(present if class_names is None else class_names)
    if len(set(names)) < len(names):
        raise ConfigurationError(f"class_names has a name twice: {', '.join(map(repr, names))}.")
    if unknown := [name for name in names if name not in present]:
        raise DataError(f"{folder} has no folder {unknown[0]!r}, which class_names names. It has {shown(present)}.")
    if left_out := [name for name in present if name not in names]:
        _LOG.warning(f"{folder} has {shown(left_out)}, which class_names does not name; their pictures are left out.")
    files: list[str] = []
    counts: list[int] = []
    others: list[str] = []
    seen: set[tuple[int, int]] = set()
    for name in names:
        before = len(files)
        for file in _files(folder / name, seen):
            (files if file.lower().endswith(IMAGE_SUFFIXES) else others).append(file)
        counts.append(len(files) - before)
    _tell(folder, names, counts, others)
    return ImageListing(tuple(files), np.repeat(np.arange(len(names)), counts), names)


def image_files(folder: Path) -> list[str]:
    """Return the pictures of a folder and of the folders in it, by name.

    Raises:
        DataError: there are none, or the folder cannot be read.
    """
    files = [file for file in _files(folder, set()) if file.lower().endswith(IMAGE_SUFFIXES)]
    if not files:
        raise DataError(f"{folder} has no pictures, which end in {', '.join(IMAGE_SUFFIXES)}.")
    return files


def _class_folders(folder: Path, class_names: Sequence[str] | None) -> list[str]:
    if not folder.exists():
        raise DataError(f"{folder} does not exist. Correct the path.")
    if not folder.is_dir():
        raise DataError(f"{folder} is a file. Give a folder with a folder per class, or a list of files and labels=.")
    entries = _entries(folder)
    folders = [entry.name for entry in entries if entry.is_dir()]
    beside = [entry.path for entry in entries if not entry.is_dir() and entry.name.lower().endswith(IMAGE_SUFFIXES)]
    if not folders:
        raise DataError(
            f"{folder} has no folders in it{' but pictures' if beside else ''}. Give a folder with a folder per class, "
            "or labels= with the label of each picture."
        )
    if beside:
        raise DataError(
            f"{beside[0]} lies beside folders of classes, so it has no class. Move it into one of them, or out of here."
        )
    if len(splits := [name for name in folders if name.lower() in _SPLITS]) > 1 and class_names is None:
        raise DataError(
            f"{folder} has the folders {shown(splits)}, which are parts of the data, not classes. "
            f"Give one of them, {folder / splits[0]}, or name the classes by class_names=."
        )
    return folders


def _files(folder: Path, seen: set[tuple[int, int]]) -> list[str]:
    """Return the files of a folder and of the folders in it, in Keras' order: by folder, then by name.

    Args:
        folder: the folder.
        seen: device and inode of each folder that was read; this folder is added.
    """
    files, waiting = [], [folder]
    while waiting:
        current = waiting.pop()
        entries = _entries(current)
        status = current.stat()
        if (identity := (status.st_dev, status.st_ino)) in seen:
            raise DataError(f"{current} is a link to a folder that is read as well, so pictures would count twice.")
        seen.add(identity)
        files += [_checked(entry) for entry in entries if not entry.is_dir()]
        waiting += [Path(entry.path) for entry in entries if entry.is_dir()]
    return sorted(files, key=os.path.split)


def _checked(entry: os.DirEntry[str]) -> str:
    if entry.name.lower().endswith(IMAGE_SUFFIXES) and not entry.is_file():
        what = "is a link to nothing" if entry.is_symlink() else "is no file"
        raise DataError(f"{entry.path} {what}. Restore the picture, or remove the name.")
    if entry.name.lower().endswith(_OTHER_IMAGE_SUFFIXES):
        raise DataError(f"{entry.path} has a format that is not read. Save it as JPEG, PNG or WebP, or remove it.")
    return entry.path


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}. Check the path and your permissions.") from None


def _tell(folder: Path, names: Sequence[str], counts: Sequence[int], others: Sequence[str]) -> None:
    """Refuse a folder without pictures; warn of empty classes, and of files that are left out."""
    if not sum(counts):
        found = f", but files such as {others[0]}" if others else ""
        raise DataError(f"{folder} has no pictures in its folders{found}. Pictures end in {', '.join(IMAGE_SUFFIXES)}.")
    if empty := [name for name, count in zip(names, counts, strict=True) if not count]:
        _LOG.warning(f"{folder} has no pictures of {shown(empty)}; each keeps its class number.")
    if others:
        _LOG.warning(f"{folder} has {len(others):,} files that are no pictures and are left out, such as {others[0]}.")
