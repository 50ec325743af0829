"""Writes a folder of arrays, as `folder` opens it, from examples in order.

Decides: the files of a part. Never: where examples come from, or what the manifest records (`manifest`).

    writer = ArrayWriter(folder)                       # an existing, empty folder
    writer.write("train", stream.layout, stream.blocks())
    writer.finish({"train": "a digest"})

The number of examples is known at the end alone, so the header of each file is written twice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np

from distrain.data.array_folders.folder import KINDS
from distrain.data.array_folders.manifest import write_manifest
from distrain.data.by_position.elements import Layout, Leaf
from distrain.data.examples import RowNests
from distrain.data.nests import is_nest, leaves
from distrain.errors import ConfigurationError
from distrain.files import naming


class ArrayWriter:
    """Writes the parts of one folder.

    Args:
        folder: an existing, empty folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._rows: dict[str, int] = {}

    def write(
        self,
        part: str,
        layout: Layout,
        blocks: Iterable[tuple[int, RowNests]],
        progress: Callable[[int], None] = lambda rows: None,
    ) -> int:
        """Write one part; return the number of its examples.

        Args:
            part: name of the part, as "train".
            layout: layout of each example.
            blocks: number of examples, and their arrays.
            progress: receives the number of examples so far.

        Raises:
            ConfigurationError: the examples nest too deeply, or a name is no name of a file.
        """
        rows = 0
        with ExitStack() as stack:
            files = []
            for kind, nest in zip(KINDS, layout.parts, strict=True):
                for name, leaf in _named_leaves(nest):
                    path = self._folder / ".".join(filter(None, (part, kind, name, "npy")))
                    files.append((path, stack.enter_context(path.open("wb")), leaf))
                    _write_header(path, files[-1][1], leaf, 0)
            for count, arrays in blocks:
                values = [value for nest in arrays for _, value in leaves(nest)]
                for (path, file, _), value in zip(files, values, strict=True):
                    with naming(path):
                        file.write(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
                rows += count
                progress(rows)
            for path, file, leaf in files:
                _write_header(path, file, leaf, rows)
        self._rows[part] = rows
        return rows

    def finish(self, source: Mapping[str, str]) -> None:
        """Write the manifest, which names each file with its checksum.

        Args:
            source: identity of the data of each part.
        """
        write_manifest(self._folder, self._rows, source)


def _named_leaves(nest: Any) -> list[tuple[str, Leaf]]:
    """Return name and layout of each array of a nest of one level."""
    found = leaves(nest)
    for name, _ in found:
        is_of_dict = isinstance(nest, dict)
        is_plain = re.fullmatch(r"[^\W][^/\\\0]*", name) is not None and not (is_of_dict and name.isdecimal())
        if is_nest(nest) and not is_plain:
            raise ConfigurationError(
                f"an array is named {name!r}, which is no name of a file: give each example as arrays, or as one list "
                "or dict of arrays with plain names."
            )
    return found


def _write_header(path: Path, file: IO[bytes], leaf: Leaf, rows: int) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(leaf.dtype), "fortran_order": False, "shape": (rows, *leaf.shape)}
    with naming(path):
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, header)  # has room for any number of rows
