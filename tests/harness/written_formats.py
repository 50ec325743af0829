"""One data set in every format that `distrain.formats` reads: columns a, b, c of float32, and labels y."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

NUM = 1000
GROUP = 300  # rows that a format stores together


def arrays(num: int = NUM) -> tuple[np.ndarray, np.ndarray]:
    """Return features `[num, 3]` and labels `[num]`."""
    features = np.random.default_rng(0).normal(size=(num, 3)).astype("float32")
    return features, np.arange(num) % 4


def table(num: int = NUM):
    """Return the data as a `pyarrow.Table`."""
    import pyarrow

    features, labels = arrays(num)
    return pyarrow.table({**{name: features[:, index] for index, name in enumerate("abc")}, "y": labels})


def write_parquet(folder: Path) -> Path:
    """Write two files of several row groups."""
    import pyarrow.parquet

    (folder / "table").mkdir()
    for part, (start, stop) in enumerate([(0, 350), (350, NUM)]):
        path = folder / "table" / f"part-{part}.parquet"
        pyarrow.parquet.write_table(table()[start:stop], path, row_group_size=GROUP)
    return folder / "table"


def write_feather(folder: Path) -> Path:
    """Write a compressed file of several record batches."""
    import pyarrow.feather

    pyarrow.feather.write_feather(table(), folder / "a.feather", chunksize=GROUP)
    return folder / "a.feather"


def write_plain_arrow(folder: Path) -> Path:
    """Write an uncompressed file of several record batches."""
    import pyarrow.feather

    pyarrow.feather.write_feather(table(), folder / "plain.arrow", chunksize=GROUP, compression="uncompressed")
    return folder / "plain.arrow"


def write_arrow_stream(folder: Path) -> Path:
    """Write a stream, as `datasets` of Hugging Face does."""
    import pyarrow

    path = folder / "stream.arrow"
    with pyarrow.OSFile(str(path), "wb") as file, pyarrow.ipc.new_stream(file, table().schema) as writer:
        writer.write_table(table(), max_chunksize=GROUP)
    return path


def write_npy(folder: Path) -> Path:
    """Write a folder of two arrays."""
    (folder / "arrays").mkdir()
    for name, values in zip("xy", arrays(), strict=True):
        np.save(folder / "arrays" / f"{name}.npy", values)
    return folder / "arrays"


def write_hdf5(folder: Path) -> Path:
    """Write compressed chunks, in a group."""
    import h5py

    with h5py.File(folder / "a.h5", "w") as file:
        for name, values in zip("xy", arrays(), strict=True):
            file.create_dataset(f"train/{name}", data=values, chunks=(GROUP, *values.shape[1:]), compression="gzip")
    return folder / "a.h5"


def write_zarr(folder: Path, version: int = 3) -> Path:
    """Write a group of compressed arrays."""
    import zarr

    group = zarr.create_group(folder / "a.zarr", zarr_format=version)
    for name, values in zip("xy", arrays(), strict=True):
        group.create_array(name, data=values, chunks=(GROUP, *values.shape[1:]))
    return folder / "a.zarr"


WRITERS = {
    "npy": ("npy", write_npy),
    "parquet": ("parquet", write_parquet),
    "feather": ("arrow", write_feather),
    "arrow": ("arrow", write_plain_arrow),
    "stream": ("arrow", write_arrow_stream),
    "hdf5": ("hdf5", write_hdf5),
    "zarr 2": ("zarr", partial(write_zarr, version=2)),
    "zarr 3": ("zarr", write_zarr),
}
