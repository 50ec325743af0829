"""Bytes and time of reading remote data, against the same data on local disk.

    python benchmarks/remote.py [--rows 2000000] [--rounds 5]

A web server in another process serves the files on loopback. Each round reads every case three times in turn: locally,
with an empty cache, and again with the cache that is now full. Beside the bytes that the server sent stand the bytes
that the case needs. Parquet needs the chunks of the chosen columns. Prepared text needs index, vectorizer and training
shards. Loopback has no latency, so the times show what reading costs by itself.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from measuring import distrain
from rich.console import Console
from rich.table import Table

from distrain import formats
from distrain.data.prepared.dataset_index import open_dataset
from distrain.remote.cache import FOLDER_VARIABLE, find_cache
from distrain.remote.path import to_path

HARNESS = Path(__file__).parents[1] / "tests" / "harness"
COLUMNS, CHOSEN = 20, ["c3", "c11"]
GROUP = 2**19  # rows of a row group; a chunk of a column has 2 MiB


def write(folder: Path, rows: int) -> dict[str, int]:
    """Write a table and prepared text; return the bytes that each case needs."""
    import pyarrow
    import pyarrow.parquet

    rng = np.random.default_rng(0)
    columns = {f"c{index}": rng.normal(size=rows).astype("float32") for index in range(COLUMNS)}
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "t.parquet", row_group_size=GROUP)
    metadata = pyarrow.parquet.read_metadata(folder / "t.parquet")
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    chunks = [group.column(index) for group in groups for index in range(COLUMNS)]
    needed = sum(chunk.total_compressed_size for chunk in chunks if chunk.path_in_schema in CHOSEN)
    for words in (
        ("synth", "--out", folder / "text", "--rows", rows // 20),
        ("prepare", "--train", folder / "text/train.csv", "--test", folder / "text/test.csv", "--out", folder / "data"),
    ):
        subprocess.run(distrain(*words), check=True, stdout=subprocess.DEVNULL)
    files = open_dataset(folder / "data").files
    shards = sum(record.bytes for name, record in files.items() if not name.startswith("test-"))
    return {"2 of 20 columns": needed, "prepared text": shards + (folder / "data/dataset.json").stat().st_size}


def read_table(base: Any) -> float:
    """Return the sum of the chosen columns."""
    source = formats.parquet([base / "t.parquet"], features=CHOSEN)
    return sum(float(source.read(at, min(at + GROUP, len(source)))[0].sum()) for at in range(0, len(source), GROUP))


def read_text(base: Any) -> float:
    """Return the sum of the column numbers of all training rows."""
    part = open_dataset(base / "data").parts["train"]
    return sum(
        float(part.read(shard.first_row, shard.first_row + shard.num_rows).columns.sum()) for shard in part.shards
    )


CASES: dict[str, Callable[[Any], float]] = {"2 of 20 columns": read_table, "prepared text": read_text}


def serve(folder: str, connection: Any) -> None:
    """Serve the files of a folder, and answer each message by the bytes that were sent so far."""
    sys.path.insert(0, str(HARNESS))
    from web_server import web_server

    with web_server() as server:
        files = [path for path in Path(folder).rglob("*") if path.is_file() and "text" not in path.parts]
        server.files = {f"/{path.relative_to(folder).as_posix()}": path.read_bytes() for path in files}
        connection.send(server.url(""))
        while connection.recv():
            connection.send((server.sent, len(server.requests)))


@contextmanager
def served(folder: Path) -> Iterator[tuple[str, Callable[[], tuple[int, int]]]]:
    """Yield the URL of the server, and a function that returns bytes and requests so far."""
    own, other = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve, args=(str(folder), other), daemon=True)
    process.start()
    url = own.recv()

    def counted() -> tuple[int, int]:
        own.send(True)
        sent, requests = own.recv()
        return int(sent), int(requests)

    try:
        yield url, counted
    finally:
        own.send(False)
        process.join()


def timed(read: Callable[[Any], float], base: Any) -> tuple[float, float]:
    """Return the seconds of reading, and what was read."""
    started = time.perf_counter()
    found = read(base)
    return time.perf_counter() - started, found


def main() -> None:
    """Measure all cases, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    table = Table(title=f"remote data, {options.rows:,} rows, medians of {options.rounds} rounds")
    for name in ("case", "needed MB", "sent MB", "sent/needed", "requests", "again MB", "local s", "cold s", "warm s"):
        table.add_column(name, justify="left" if name == "case" else "right")
    with tempfile.TemporaryDirectory() as name:
        needed = write(Path(name), options.rows)
        with served(Path(name)) as (url, counted):
            for case, read in CASES.items():
                rounds = [one_round(read, Path(name), url, counted) for _ in range(options.rounds)]
                sent, requests, again, *seconds = (statistics.median(values) for values in zip(*rounds, strict=True))
                shown = [f"{size / 1e6:.1f}" for size in (needed[case], sent)]
                shown += [f"{sent / needed[case]:.2f}", f"{requests:.0f}", f"{again / 1e6:.1f}"]
                table.add_row(case, *shown, *(f"{value:.3f}" for value in seconds))
    Console(width=120).print(table)
    print(f"load of the machine: {os.getloadavg()[0]:.1f}")


def one_round(
    read: Callable[[Any], float], folder: Path, url: str, counted: Callable[[], tuple[int, int]]
) -> tuple[float, ...]:
    """Return bytes and requests with an empty cache, bytes with a full one, and seconds: local, cold and warm."""
    with tempfile.TemporaryDirectory() as cache:
        os.environ[FOLDER_VARIABLE] = cache
        find_cache.cache_clear()
        local, expected = timed(read, folder)
        before = counted()
        cold, found = timed(read, to_path(url))
        after = counted()
        warm, again = timed(read, to_path(url))
        assert expected == found == again
        return after[0] - before[0], after[1] - before[1], counted()[0] - after[0], local, cold, warm


if __name__ == "__main__":
    main()
