"""Speed of reading a data set in several formats, each against the same data as `.npy` files.

    python benchmarks/formats.py [--rows 400000] [--columns 64] [--batch 512] [--rounds 5] [--step-ms 2] [--only NAME]

Each round reads one shuffled epoch in every format, in turn, and measures twice. The loader alone gives processor
seconds, and examples per second of wall time. The loader beside steps gives the speed of training: a
thread reads ahead, while the main thread waits `--step-ms` for each batch. Files lie in the page cache.
The first round does not count; it unpacks compressed groups into the cache.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from distrain import formats
from distrain.data.batches import epoch_batches
from distrain.data.examples import Examples
from distrain.data.plan import EpochPlan
from distrain.data.positional import positional_examples
from distrain.data.prefetch import prefetched

GROUP = 16_384  # rows of a row group or chunk


def write(folder: Path, rows: int, columns: int) -> dict[str, Callable[[], Examples]]:
    """Write the data in all formats; return a function for each that opens it."""
    import h5py
    import pyarrow
    import pyarrow.feather
    import pyarrow.parquet
    import zarr

    rng = np.random.default_rng(0)
    features = rng.normal(size=(rows, columns)).astype("float32")
    labels = rng.integers(10, size=rows)
    names = [f"c{index}" for index in range(columns)]
    table = pyarrow.table({**{name: features[:, index] for index, name in enumerate(names)}, "y": labels})
    (folder / "npy").mkdir()
    np.save(folder / "npy" / "x.npy", features)
    np.save(folder / "npy" / "y.npy", labels)
    pyarrow.parquet.write_table(table, folder / "table.parquet", row_group_size=GROUP)
    lists = pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(features.reshape(-1)), columns)
    vectors = pyarrow.table({"x": lists, "y": labels})
    pyarrow.parquet.write_table(vectors, folder / "vectors.parquet", row_group_size=GROUP)
    pyarrow.feather.write_feather(table, folder / "table.feather", chunksize=GROUP)
    pyarrow.feather.write_feather(vectors, folder / "vectors.arrow", chunksize=GROUP, compression="uncompressed")
    with h5py.File(folder / "plain.h5", "w") as file:
        file["x"], file["y"] = features, labels
    with h5py.File(folder / "gzip.h5", "w") as file:
        file.create_dataset("x", data=features, chunks=(GROUP, columns), compression="gzip", compression_opts=1)
        file.create_dataset("y", data=labels, chunks=(GROUP,))
    group = zarr.create_group(folder / "a.zarr")
    group.create_array("x", data=features, chunks=(GROUP, columns))
    group.create_array("y", data=labels, chunks=(GROUP,))
    sources = {
        ".npy": lambda: formats.npy(folder / "npy"),
        "Parquet, numbers": lambda: formats.parquet(folder / "table.parquet"),
        "Parquet, lists": lambda: formats.parquet(folder / "vectors.parquet"),
        "Feather, LZ4": lambda: formats.arrow(folder / "table.feather"),
        "Arrow, lists": lambda: formats.arrow(folder / "vectors.arrow"),
        "HDF5": lambda: formats.hdf5(folder / "plain.h5"),
        "HDF5, gzip": lambda: formats.hdf5(folder / "gzip.h5"),
        "Zarr, zstd": lambda: formats.zarr(folder / "a.zarr"),
    }
    return {name: lambda source=source: positional_examples(source()) for name, source in sources.items()}


def read_epoch(examples: Examples, batch_size: int, epoch: int, step_seconds: float) -> tuple[float, float]:
    """Read an epoch; return wall and processor seconds, without the waiting of the steps in the second."""
    plan = EpochPlan(examples.num_examples, 1, batch_size)
    order = examples.order(seed=0, epoch=epoch)
    began, used = time.perf_counter(), time.process_time()
    batches = epoch_batches(examples, plan, order, replicas=range(1), epoch=epoch)
    with prefetched(batches, in_thread=step_seconds > 0) as ready:
        for _ in ready:
            time.sleep(step_seconds)
    return time.perf_counter() - began, time.process_time() - used


def main() -> None:
    """Measure all formats and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400_000)
    parser.add_argument("--columns", type=int, default=64)
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--step-ms", type=float, default=2.0)
    parser.add_argument("--only", nargs="+", help="formats beside .npy, by their names in the table (default: all)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        written = write(Path(folder), arguments.rows, arguments.columns)
        chosen = [".npy", *arguments.only] if arguments.only else written
        opened = {name: written[name]() for name in chosen}
        alone: dict[str, list[tuple[float, float]]] = {name: [] for name in opened}
        beside: dict[str, list[float]] = {name: [] for name in opened}
        for number in range(arguments.rounds + 1):
            for name, examples in opened.items():
                figures = read_epoch(examples, arguments.batch, number, 0)
                seconds, _ = read_epoch(examples, arguments.batch, number, arguments.step_ms / 1000)
                if number:  # the first round warms up
                    alone[name].append(figures)
                    beside[name].append(seconds)
    table = Table("format", "loader, examples/s", "loader, CPU seconds", "beside steps, examples/s", "ratio to .npy")
    baseline = statistics.median(beside[".npy"])
    for name in opened:
        wall, used = (statistics.median(values) for values in zip(*alone[name], strict=True))
        seconds = statistics.median(beside[name])
        speeds = f"{arguments.rows / wall:,.0f}", f"{used:.2f}", f"{arguments.rows / seconds:,.0f}"
        table.add_row(name, *speeds, f"{baseline / seconds:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
