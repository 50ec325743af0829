"""Two ranks train the weights of arrays on each format, over several shuffle windows, and in a launch that resumes."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import h5py
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import zarr
from launching import needs_mpi, run_ranks
from preloaded import preloaded_python

pytestmark = [pytest.mark.timeout(900), needs_mpi]

PROGRAM = Path(__file__).parent / "programs" / "formats_resumed.py"
NUM_EXAMPLES, GROUP = 53, 7


def write_all(folder: Path) -> None:
    rng = np.random.default_rng(7)
    pixels = rng.normal(size=(NUM_EXAMPLES, 6)).astype("float32")
    columns = {"pixels": pixels, "label": np.tanh(pixels.sum(axis=1))}
    table = pyarrow.table({name: list(values) for name, values in columns.items()})
    pyarrow.parquet.write_table(table, folder / "rows.parquet", row_group_size=GROUP)
    group = zarr.create_group(folder / "rows.zarr")
    with h5py.File(folder / "rows.h5", "w") as file:
        for name, values in columns.items():
            np.save(folder / f"{name}.npy", values)
            chunks = (GROUP, *values.shape[1:])
            file.create_dataset(name, data=values, chunks=chunks, compression="gzip")
            group.create_array(name, data=values, chunks=chunks)
    with tarfile.open(folder / "rows.tar", "w") as tar:
        for number in range(NUM_EXAMPLES):
            for name, values in columns.items():
                content = io.BytesIO()
                np.save(content, values[number])
                member = tarfile.TarInfo(f"{number:04}.{name}.npy")
                member.size = content.tell()
                content.seek(0)
                tar.addfile(member, content)


def test_formats_go_on_within_an_epoch_in_another_launch(tmp_path):
    write_all(tmp_path)
    env = {"DISTRAIN_CACHE": str(tmp_path / "cache")}
    for part in ("first", "rest"):
        done = run_ranks("mpirun", 2, [*preloaded_python(), str(PROGRAM), str(tmp_path), part], env=env)
        assert done.returncode == 0, done.stderr
    own, other = (json.loads((tmp_path / f"found.{rank}.json").read_text()) for rank in range(2))
    assert own == other
    assert set(own) == {"arrays", "Parquet", "HDF5", "Zarr", "tar shards"}
    assert len(set(own.values())) == 1
    for form in own.keys() - {"arrays"}:
        events = [json.loads(line) for line in (tmp_path / form / "metrics.jsonl").read_text().splitlines()]
        assert [event["step"] for event in events if event["event"] == "resume"] == [10], form
