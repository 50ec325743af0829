"""Pictures in files as a source: a folder with a folder per class, or a list of files with labels.

Decides: what an example of pictures holds. Never: which files are pictures (`listing.py`), or how one is decoded
(`decoding.py`).

    source = images("flowers", size=(224, 224))
    pixels, label = source[0]                          # uint8 [224, 224, 3], and the number of the class

A picture is read and decoded when an example is asked for, so the folder may be larger than memory.
"""

from __future__ import annotations

import operator
import os
import stat
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from distrain.errors import ConfigurationError, DataError
from distrain.files import describe
from distrain.formats.file_list import Paths, listed
from distrain.formats.pictures.decoding import CHANNELS, MAX_ENCODED_BYTES, ImageForm, decoded, pillow
from distrain.formats.pictures.decoding_threads import in_threads
from distrain.formats.pictures.labels import TABLE_SUFFIXES, labelled_images
from distrain.formats.pictures.listing import IMAGE_SUFFIXES, ImageListing, image_files, list_images
from distrain.remote.local_copy import local_copies, local_copy
from distrain.remote.path import is_url, to_path


def images(
    folder: Paths,
    *,
    size: tuple[int, int] | None = None,
    labels: Any = None,
    class_names: Sequence[str] | None = None,
    color_mode: str = "rgb",
    interpolation: str = "bilinear",
    antialias: bool = False,
    crop_to_aspect_ratio: bool = False,
    pad_to_aspect_ratio: bool = False,
    shrink_jpeg: bool = False,
) -> ImageSource:
    """Use pictures as a source of examples (pixels, label).

    The pixels are uint8 `[height, width, channels]`. By default, examples have the order, the class numbers and the
    rounded values of `keras.utils.image_dataset_from_directory`.

    Args:
        folder: holds a folder per class. With `labels`, a folder of pictures, a pattern, or a list of files. The files
            of a URL are fetched into the cache first.
        size: (height, width) of the pixels; None keeps the size of each picture.
        labels: a number, or an array of numbers, for each picture, in the order of the files. Or the path of a table,
            CSV, TSV or JSON Lines, with file name, label and perhaps weight of each picture; see `labels.py`.
        class_names: folders in the order of their numbers; default: all folders, by name.
        color_mode: "grayscale", "rgb" or "rgba".
        interpolation: "bilinear", "nearest", "area", "bicubic" or "lanczos3"; see `ImageForm`.
        antialias: whether "bilinear" weighs all pixels, so that shrunk pictures look smoother.
        crop_to_aspect_ratio: whether the middle is cut out, so that proportions stay.
        pad_to_aspect_ratio: whether black borders are added, so that proportions stay.
        shrink_jpeg: whether the decoder may shrink large JPEG pictures, which is faster and gives other values.

    Raises:
        DataError: the folder has no pictures, or a file is missing.
        ConfigurationError: an argument is wrong, or Pillow is not installed.
    """
    pillow()  # a missing package is told before a large folder is read
    if is_url(folder) and (to_path(folder).is_dir() or labels is None):
        folder = local_copy(to_path(folder))
    if is_url(labels):
        labels = local_copy(to_path(labels))
    form = ImageForm(
        size=size,
        color_mode=color_mode,
        interpolation=interpolation,
        antialias=antialias,
        crop_to_aspect_ratio=crop_to_aspect_ratio,
        pad_to_aspect_ratio=pad_to_aspect_ratio,
        shrink_jpeg=shrink_jpeg,
    )
    if labels is not None:
        return ImageSource(_labelled(folder, labels, class_names), form)
    if not isinstance(folder, (str, os.PathLike)):
        raise ConfigurationError("A list of pictures needs labels=, with the label of each picture.")
    return ImageSource(list_images(Path(folder), class_names), form)


def _labelled(paths: Paths, labels: Any, class_names: Sequence[str] | None) -> ImageListing:
    if isinstance(labels, (str, os.PathLike)):
        return _labelled_by_table(paths, Path(labels), class_names)
    if isinstance(paths, (str, os.PathLike)) and Path(paths).is_dir():
        files = image_files(Path(paths))
    else:
        files = [str(path) for path in local_copies(listed(paths, suffixes=IMAGE_SUFFIXES, kind="pictures"))]
    values = np.asarray(labels)
    if values.dtype.kind not in "biuf" or not values.ndim:
        raise ConfigurationError(f"labels has {values.dtype}; give a number for each picture, such as its class.")
    if len(values) != len(files):
        raise ConfigurationError(f"labels has {len(values):,} labels for {len(files):,} pictures; give one for each.")
    return ImageListing(tuple(files), values, tuple(class_names or ()))


def _labelled_by_table(paths: Paths, table: Path, class_names: Sequence[str] | None) -> ImageListing:
    if table.suffix.lower() not in TABLE_SUFFIXES:
        raise ConfigurationError(f"labels= names {table}; a table of labels ends in {', '.join(TABLE_SUFFIXES)}.")
    if not isinstance(paths, (str, os.PathLike)) or not Path(paths).is_dir():
        raise ConfigurationError(f"labels={str(table)!r} counts file names from a folder, but {paths!r} is none.")
    return labelled_images(Path(paths), table, class_names)


class ImageSource:
    """Pictures as a source by position.

    Args:
        listing: the files and their labels.
        form: size and colours of the pixels.
    """

    def __init__(self, listing: ImageListing, form: ImageForm) -> None:
        self._listing, self._form = listing, form

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes by number; empty if unknown."""
        return self._listing.class_names

    def __len__(self) -> int:
        return len(self._listing.files)

    def __getitem__(self, number: int) -> tuple[Any, ...]:
        """Return one example."""
        index = operator.index(number)
        return read_image(self._listing.files[index], self._form), *self._figures(index)

    def take(self, indices: np.ndarray) -> Any:
        """Return several examples: arrays, or a list if the pictures have several sizes."""
        files = [self._listing.files[index] for index in indices.tolist()]
        figures = self._figures(indices)
        if self._form.size is None:
            pixels = in_threads(partial(read_image, form=self._form), files)
            return list(zip(pixels, *figures, strict=True))
        batch = np.empty((len(files), *self._form.size, CHANNELS[self._form.color_mode]), np.uint8)

        def read(row: int) -> None:
            batch[row] = read_image(files[row], self._form)  # copied while the processor's cache holds the pixels

        in_threads(read, range(len(files)))
        return batch, *figures

    def read_labels(self, start: int, stop: int) -> np.ndarray:
        """Return the labels of neighbours, without their pictures."""
        return self._listing.labels[start:stop]

    def _figures(self, rows: Any) -> tuple[Any, ...]:
        """Return labels, and weights if there are weights."""
        labels, weights = self._listing.labels[rows], self._listing.weights
        return (labels,) if weights is None else (labels, weights[rows])


def read_image(path: str, form: ImageForm) -> np.ndarray:
    """Return the pixels of a file.

    Raises:
        DataError: the file cannot be read, or is no picture; the message names the file.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe would wait for its writer
        with open(descriptor, "rb") as file:  # noqa: PTH123 - a descriptor has no path
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise DataError(f"{path} is no file. Restore the picture.")
            content = file.read(min(status.st_size, MAX_ENCODED_BYTES) + 1)  # Python allocates as much as it may read
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or describe(error)}. Restore the picture.") from None
    return decoded(content, form, path)
