"""Zarr stores of both versions are read, and nothing in them runs code."""

from __future__ import annotations

import json
import pickle
import tracemalloc

import numpy as np
import pytest
import zarr

from distrain import formats
from distrain.errors import ConfigurationError, DataError

X = np.arange(24.0).reshape(8, 3)


def test_a_single_array_and_arrays_in_groups_have_names(tmp_path):
    zarr.save_array(tmp_path / "x.zarr", X)
    assert formats.zarr(tmp_path / "x.zarr", features="x").read(0, 8)[0].tolist() == X.tolist()
    group = zarr.create_group(tmp_path / "g.zarr")
    group.create_array("train/x", data=X.astype(">f8"), chunks=(2, 3), shards=(4, 3))
    group.create_array("train/y", data=np.arange(8))
    source = formats.zarr(tmp_path / "g.zarr")
    assert (source[5][0].tolist(), source[5][1]) == (X[5].tolist(), 5)
    assert source.read(0, 1)[0].dtype == np.float64
    with zarr.storage.ZipStore(tmp_path / "z.zip", mode="w") as store:
        zarr.create_group(store).create_array("x", data=X)
    assert formats.zarr(tmp_path / "z.zip")[1][0].tolist() == X[1].tolist()


class Trap:
    """Writes a file when it is read from pickle."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


@pytest.mark.parametrize("where", ["filters", "compressor"])
@pytest.mark.parametrize("dtype", ["|O", "<f8"])
def test_pickle_is_never_read(tmp_path, where, dtype):
    store, trap = tmp_path / "x.zarr", tmp_path / "trapped"
    store.mkdir()
    codec = {"id": "pickle", "protocol": 5}
    metadata = {"zarr_format": 2, "shape": [8], "chunks": [8], "dtype": dtype, "fill_value": 0, "order": "C"}
    metadata |= {"filters": [codec] if where == "filters" else None}
    metadata |= {"compressor": codec if where == "compressor" else None}
    (store / ".zarray").write_text(json.dumps(metadata))
    (store / "0").write_bytes(pickle.dumps(Trap(trap)))
    with pytest.raises(DataError, match=r"x\.zarr"):
        formats.zarr(store).read(0, 8)
    assert not trap.exists()


def test_other_types_and_sizes_are_refused(tmp_path):
    group = zarr.create_group(tmp_path / "g.zarr")
    group.create_array("complex", shape=(8,), dtype="c8")
    group.create_array("huge", shape=(8, 2**40), dtype="f8", chunks=(8, 2**30))
    group.create_array("long", shape=(2**50,), dtype="i1", chunks=(2**10,))
    refused = {"complex": "is of type complex64", "huge": "has rows or chunks of", "long": "declares 1,125,899,"}
    for name, message in refused.items():
        with pytest.raises(DataError, match=rf"g\.zarr: the column '{name}' {message}"):
            formats.zarr(tmp_path / "g.zarr", features=name)
    with pytest.raises(ConfigurationError, match="names the column 'wings'"):
        formats.zarr(tmp_path / "g.zarr", features="wings")


def test_what_is_no_store_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.zip").write_bytes(b"no archive")
    for name in ("empty", "a.zip"):
        with pytest.raises(DataError, match=rf"{name} cannot be read as a Zarr store"):
            formats.zarr(tmp_path / name)


def test_a_damaged_chunk_is_named(tmp_path):
    zarr.create_group(tmp_path / "g.zarr").create_array("x", data=X, chunks=(4, 3))
    (tmp_path / "g.zarr" / "x" / "c" / "1" / "0").write_bytes(b"damaged")
    source = formats.zarr(tmp_path / "g.zarr")
    assert source.read(0, 4)[0].tolist() == X[:4].tolist()
    with pytest.raises(DataError, match=r"g\.zarr cannot be read as a Zarr store"):
        source.read(4, 8)


@pytest.mark.parametrize("version", [2, 3])
def test_missing_chunks_of_the_chosen_arrays_are_told_once(version, tmp_path, caplog):
    group = zarr.create_group(tmp_path / "a.zarr", zarr_format=version)
    for name in ("x", "y", "other"):
        group.create_array(name, data=np.ones(50) + np.arange(50), chunks=(10,), fill_value=7)
    formats.zarr(tmp_path / "a.zarr", features="x", label="y")
    assert not caplog.messages
    keys = {2: ("2", "4"), 3: ("c/2", "c/4")}[version]
    for name in ("x", "other"):
        for key in keys:
            (tmp_path / "a.zarr" / name / key).unlink()
    source = formats.zarr(tmp_path / "a.zarr", features="x", label="y")
    (message,) = caplog.messages
    assert f"a.zarr: 'x' lacks 2 chunks, the first one {keys[0]!r} of rows 20 to 29." in message
    assert "as 7.0" in message
    assert source.read(18, 22)[0].tolist() == [19, 20, 7, 7]


def test_a_store_that_declares_countless_chunks_is_told_at_once(tmp_path, caplog):
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("x", shape=(1000, 10**7), chunks=(1, 1), dtype="u1")
    tracemalloc.start()
    formats.zarr(tmp_path / "a.zarr", features="x")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20  # the numbers of all columns take 400 MiB
    assert "'x' lacks 10,000,000,000 chunks, the first one 'c/0/0' of rows 0 to 0" in caplog.messages[0]
