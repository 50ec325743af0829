"""Valid files of every format that `distrain.formats` reads, for mutations as of `fuzzed_files`.

for subject in format_subjects(folder):
    subject.try_mutation(random.Random(7))           # an error that is no sentence is raised

Of a folder or a store, one file is mutated. TFRecord checksums are made right again, where a forger could.
"""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from fuzzed_files import FuzzSubject
from written_formats import write_feather, write_hdf5, write_npy, write_parquet, write_plain_arrow, write_zarr

from distrain import formats

ROWS_AT_ONCE = 256


def format_subjects(folder: Path, names: Collection[str] = ()) -> list[FuzzSubject]:
    """Write a valid file of each format, or of those that are named, into a folder of its own."""
    subjects = []
    for name, function, write in _FORMATS:
        if names and name not in names:
            continue
        place = folder / name.replace(" ", "-")
        place.mkdir(parents=True)
        given, path = write(place)
        subjects.append(FuzzSubject(name, path, path.read_bytes(), partial(_read, getattr(formats, function), given)))
    subject = next(one for one in subjects if one.name == "x.tfrecord")
    subjects.append(
        FuzzSubject(
            "forged x.tfrecord", subject.path, subject.content, lambda: _read_with_checksums(subject.path, subject.read)
        )
    )
    return subjects


def _read(function: Callable[..., Any], given: Path | dict[str, Any]) -> None:
    """Read all examples of a source, as training does."""
    source = function(**given) if isinstance(given, dict) else function(given)
    if not len(source):
        return
    source[0], source[len(source) - 1]
    for start in range(0, len(source), ROWS_AT_ONCE):
        stop = min(start + ROWS_AT_ONCE, len(source))
        if hasattr(source, "take"):
            source.take(np.arange(start, stop)[::-1])
        else:
            source.read(start, stop)


def _in(write: Callable[[Path], Path], name: str = "") -> Callable[[Path], tuple[Path, Path]]:
    """Return a function that writes a file or a folder, and returns its path and the path of the mutated file."""

    def written(folder: Path) -> tuple[Path, Path]:
        path = write(folder)
        return path, path / name if name else path

    return written


def _npz(folder: Path) -> tuple[Path, Path]:
    path = folder / "a.npz"
    np.savez(path, x=np.arange(60.0).reshape(20, 3), y=np.arange(20) % 3)
    return path, path


def _packed_npz(folder: Path) -> tuple[Path, Path]:
    path = folder / "a.npz"
    np.savez_compressed(path, x=np.arange(60.0).reshape(20, 3), y=np.arange(20) % 3)
    return path, path


def _zarr_zip(folder: Path) -> tuple[Path, Path]:
    store, path = write_zarr(folder), folder / "z.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(store.rglob("*")):
            if file.is_file():
                archive.write(file, file.relative_to(store))
    return path, path


def _lists(folder: Path) -> tuple[Path, Path]:
    """Write a stream of Arrow with texts and lists, whose offsets a mutation moves."""
    import pyarrow as pa

    table = pa.table({"x": [[1.0, 2.0]] * 50, "text": ["a" * (row % 7) for row in range(50)], "y": list(range(50))})
    path = folder / "lists.arrow"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=20)
    return path, path


def _tfrecord(folder: Path) -> tuple[Path, Path]:
    path = folder / "x.tfrecord"
    path.write_bytes(b"".join(_frame(_example(number)) for number in range(20)))
    return path, path


def _example(number: int) -> bytes:
    """Return a tf.train.Example with the features x, y and text."""

    def field(tag: int, content: bytes) -> bytes:
        return bytes([tag << 3 | 2, len(content)]) + content

    values = {
        b"x": field(2, field(1, struct.pack("<3f", number, 1, 2))),
        b"y": field(3, field(1, bytes([number]))),
        b"text": field(1, field(1, b"text")),
    }
    return field(1, b"".join(field(1, field(1, name) + field(2, value)) for name, value in values.items()))


def _frame(content: bytes) -> bytes:
    from distrain.formats.records.tfrecord_records import _masked_crc32c

    length = struct.pack("<Q", len(content))
    checksum = _masked_crc32c()
    return length + struct.pack("<I", checksum(length)) + content + struct.pack("<I", checksum(content))


def _read_with_checksums(path: Path, read: Callable[[], None]) -> None:
    """Make the checksums of all whole frames right before the file is read."""
    raw, place, frames = path.read_bytes(), 0, []
    while place + 16 <= len(raw):
        size = min(struct.unpack_from("<Q", raw, place)[0], len(raw) - place - 16)
        frames.append(_frame(raw[place + 12 : place + 12 + size]))
        place += size + 16
    path.write_bytes(b"".join(frames) + raw[place:])
    read()


def _picture(suffix: str) -> Callable[[Path], tuple[dict[str, Any], Path]]:
    def written(folder: Path) -> tuple[dict[str, Any], Path]:
        path = folder / "photos" / "cat" / f"1.{suffix}"
        path.parent.mkdir(parents=True)
        path.write_bytes(_encoded(suffix))
        return {"folder": folder / "photos", "size": (8, 8)}, path

    return written


def _encoded(suffix: str) -> bytes:
    from PIL import Image

    output = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(output, format={"jpg": "JPEG"}.get(suffix, suffix.upper()))
    return output.getvalue()


def _image_labels(folder: Path) -> tuple[dict[str, Any], Path]:
    for name in ("1.png", "2.png"):
        (folder / name).write_bytes(_encoded("png"))
    path = folder / "labels.csv"
    path.write_text("file_name,label,weight\n1.png,cat,1\n2.png,dog,2.5\n", encoding="utf-8")
    return {"folder": folder, "labels": path, "size": (8, 8)}, path


def _tar(folder: Path) -> tuple[Path, Path]:
    path = folder / "a.tar"
    array = io.BytesIO()
    np.save(array, np.arange(6.0))
    with tarfile.open(path, "w") as tar:
        for number in range(6):
            contents = {"x.npy": array.getvalue(), "cls": b"%d" % (number % 3), "json": b'{"a": [1]}', "txt": b"text"}
            for ending, content in contents.items():
                member = tarfile.TarInfo(f"{number:03}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path, path


_FORMATS: list[tuple[str, str, Callable[[Path], tuple[Any, Path]]]] = [
    ("x.npy", "npy", _in(write_npy, "x.npy")),
    ("a.npz", "npy", _npz),
    ("packed.npz", "npy", _packed_npz),
    ("table.parquet", "parquet", _in(write_parquet, "part-0.parquet")),
    ("a.feather", "arrow", _in(write_feather)),
    ("plain.arrow", "arrow", _in(write_plain_arrow)),
    ("lists.arrow", "arrow", _lists),
    ("a.h5", "hdf5", _in(write_hdf5)),
    ("zarr.json", "zarr", _in(write_zarr, "x/zarr.json")),
    ("zarray", "zarr", _in(partial(write_zarr, version=2), "x/.zarray")),
    ("zarr chunk", "zarr", _in(write_zarr, "x/c/0/0")),
    ("zarr.zip", "zarr", _zarr_zip),
    ("x.tfrecord", "tfrecord", _tfrecord),
    ("a.tar", "webdataset", _tar),
    ("1.jpg", "images", _picture("jpg")),
    ("1.png", "images", _picture("png")),
    ("1.webp", "images", _picture("webp")),
    ("1.gif", "images", _picture("gif")),
    ("1.bmp", "images", _picture("bmp")),
    ("labels.csv", "images", _image_labels),
]
