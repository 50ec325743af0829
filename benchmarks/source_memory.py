"""Memory: peaks of training on a source larger than the memory limit, by the form of the source.

    python benchmarks/source_memory.py [--gigabytes 4] [--forms npy parquet hdf5 made] [--workers 0] [--folder DIR]

The script writes the examples in each form and trains one epoch by `distrain train --data module:function`. It prints
the peak RssAnon of all processes together, which excludes mapped files. The target is less than 1.5 GiB.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from measuring import distrain, run_measured
from rich.console import Console
from rich.table import Table

TARGET_BYTES = 1.5 * 2**30
WIDTH = 1024  # float32 numbers of an example: 4 KiB, so that a shuffle window holds all of its 256 MiB
PIECE = 2**14  # examples made at a time
MODULE = '''
import keras
import numpy as np
from distrain import formats

NUM_EXAMPLES, WIDTH = {num_examples}, {width}


class Made:
    """Examples made by number; nothing is stored."""

    def __len__(self):
        return NUM_EXAMPLES

    def __getitem__(self, number):
        x = np.full(WIDTH, number % 251, np.float32)
        x[number % WIDTH] = 1
        return x, np.float32(number % 2)


def npy():
    return np.load("x.npy", mmap_mode="r"), np.load("y.npy", mmap_mode="r")


def parquet():
    return formats.parquet("rows.parquet", features="x", label="y")


def hdf5():
    return formats.hdf5("rows.h5", features="x", label="y")


def made():
    return Made()


def build():
    model = keras.Sequential([keras.Input((WIDTH,)), keras.layers.Dense(1, activation="sigmoid")])
    model.compile("sgd", "binary_crossentropy")
    return model
'''


def pieces(num_examples: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yield start, features and labels of consecutive examples."""
    rng = np.random.default_rng(0)
    for start in range(0, num_examples, PIECE):
        count = min(PIECE, num_examples - start)
        yield start, rng.random((count, WIDTH), np.float32), rng.integers(0, 2, count).astype(np.float32)


def write_npy(folder: Path, num_examples: int) -> None:
    """Write x.npy and y.npy."""
    x = np.lib.format.open_memmap(folder / "x.npy", "w+", np.float32, (num_examples, WIDTH))
    y = np.lib.format.open_memmap(folder / "y.npy", "w+", np.float32, (num_examples,))
    for start, features, labels in pieces(num_examples):
        x[start : start + len(labels)], y[start : start + len(labels)] = features, labels


def write_parquet(folder: Path, num_examples: int) -> None:
    """Write rows.parquet, whose row groups hold 16 MiB."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema({"x": pa.list_(pa.float32(), WIDTH), "y": pa.float32()})
    with pq.ParquetWriter(folder / "rows.parquet", schema, compression="none", use_dictionary=False) as writer:
        for _, features, labels in pieces(num_examples):
            x = pa.FixedSizeListArray.from_arrays(features.ravel(), WIDTH)
            writer.write_table(pa.table([x, labels], schema=schema), row_group_size=4096)


def write_hdf5(folder: Path, num_examples: int) -> None:
    """Write rows.h5 in chunks of 1 MiB."""
    import h5py

    with h5py.File(folder / "rows.h5", "w") as file:
        x = file.create_dataset("x", (num_examples, WIDTH), np.float32, chunks=(256, WIDTH))
        y = file.create_dataset("y", (num_examples,), np.float32)
        for start, features, labels in pieces(num_examples):
            x[start : start + len(labels)], y[start : start + len(labels)] = features, labels


WRITERS: dict[str, Callable[[Path, int], None]] = {
    "npy": write_npy,
    "parquet": write_parquet,
    "hdf5": write_hdf5,
    "made": lambda folder, num_examples: None,
}


def main() -> None:
    """Write, train, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--forms", nargs="+", choices=WRITERS, default=list(WRITERS))
    parser.add_argument("--workers", type=int, default=0, help="of train (default: 0)")
    parser.add_argument("--folder", type=Path, help="where to work (default: the temporary folder)")
    options = parser.parse_args()
    num_examples = round(options.gigabytes * 1e9 / (4 * WIDTH))
    table = Table(title=f"{num_examples:,} examples of 4 KiB, {options.workers} workers", title_justify="left")
    for column in ("form", "seconds", "CPU seconds", "peak RssAnon together, MiB"):
        table.add_column(column, justify="right")
    is_met = True
    for form in options.forms:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            if shutil.disk_usage(folder).free < 1.2e9 * options.gigabytes:
                sys.exit(f"{folder} has too little room: give --folder.")
            os.chdir(folder)
            Path("rows_of_benchmark.py").write_text(MODULE.format(num_examples=num_examples, width=WIDTH))
            WRITERS[form](Path(folder), num_examples)
            model = ("--model", "rows_of_benchmark:build", "--epochs", 1, "--global-batch-size", 512)
            data = ("--data", f"rows_of_benchmark:{form}", "--data-workers", options.workers)
            measured = run_measured(distrain("train", *data, *model, "--run", "run"))
            trained = json.loads(Path("run/summary.json").read_text(encoding="utf-8"))["examples_trained"]
            assert trained == num_examples
            os.chdir("/")
        peak = sum(measured.peak_bytes)
        is_met = is_met and peak < TARGET_BYTES
        table.add_row(form, f"{measured.seconds:,.0f}", f"{measured.cpu_seconds:,.0f}", f"{peak / 2**20:,.0f}")
    Console().print(table)
    print("below 1.5 GiB" if is_met else "NOT below 1.5 GiB")


if __name__ == "__main__":
    main()
