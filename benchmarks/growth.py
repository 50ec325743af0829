"""Growth: seconds and memory of preparing and training as the rows grow tenfold, and `distrain plan` at any size.

    python benchmarks/growth.py [--rows 10000 100000 1000000] [--plan-rows 10000 ... 10000000] [--workers 2]

Made-up text of about 40 words a row; `distrain prepare --vectorizer ngram`, then `distrain train` for one epoch. What
does not grow is measured on 1,000 rows and taken off: Python, TensorFlow, compiling the step. Sizes below a million
rows, which take little longer than that, are measured in `--turns` turns, and figures are medians. Flat means that
seconds per million rows at the largest size are within 20% of those at the size before. Memory is the peak of RssAnon
of the largest process of a command.

`distrain plan --replicas 1024` is run on data that were prepared where they are, and beyond on shards that are written
without text: rows of 60 columns by Zipf's law, one block again and again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from measuring import distrain, run_measured
from rich.console import Console
from rich.table import Table

from distrain.data.dataset_writer import DatasetWriter
from distrain.data.rows import Rows

START_ROWS = 1_000
ONCE = 1_000_000  # rows from which one turn is enough
TOLERANCE = 0.2
PLAN_SECONDS = 2.0
BLOCK_ROWS = 65_536


class Figures(NamedTuple):
    """One size: seconds of each command, of training alone, and the largest process' peak in bytes."""

    prepare: float
    train: float
    prepare_bytes: int
    train_bytes: int
    epoch: float


def measure(place: Path, rows: int, *, workers: int, batch_size: int) -> Figures:
    """Write text, prepare it, train on it; leaves `place/data-ROWS`."""
    text, data, run = place / "text", place / f"data-{rows}", place / "run"
    shutil.rmtree(data, ignore_errors=True)
    run_measured(distrain("synth", "--out", text, "--rows", rows))
    files = ("--train", text / "train.csv", "--test", text / "test.csv")
    prepare = run_measured(distrain("prepare", *files, "--out", data, "--vectorizer", "ngram", "--workers", workers))
    settings = ("--epochs", 1, "--global-batch-size", batch_size)
    train = run_measured(distrain("train", "--data", data, "--run", run, *settings))
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    shutil.rmtree(text)
    shutil.rmtree(run)
    return Figures(prepare.seconds, train.seconds, prepare.peak_bytes[0], train.peak_bytes[0], summary["train_seconds"])


def write_shards(place: Path, rows: int) -> None:
    """Prepared data of `rows` rows, without text."""
    random = np.random.default_rng(0)
    shares = 1.0 / np.arange(1, 20_001)
    columns = random.choice(20_000, (BLOCK_ROWS, 60), p=shares / shares.sum()).astype(np.int32)
    labels = (np.arange(BLOCK_ROWS) % 4).astype(np.int32)
    block = Rows(np.arange(BLOCK_ROWS + 1) * 60, np.sort(columns, axis=1).ravel(), np.ones(columns.size, "f4"), labels)

    def blocks(count: int) -> Iterator[Rows]:
        for start in range(0, count, BLOCK_ROWS):
            yield block.slice(0, min(BLOCK_ROWS, count - start))

    place.mkdir()
    writer = DatasetWriter(place, kind="ngram", num_features=20_000, classes=["a", "b", "c", "d"])
    writer.write("train", blocks(rows))
    writer.write("test", blocks(rows // 10))
    writer.finish()


def growth_table(sizes: list[int], start: Figures, found: list[Figures]) -> tuple[Table, list[str]]:
    """The table of all sizes, and what is and is not flat."""
    table = Table(title="seconds per million rows, start apart; peak RssAnon, MiB", title_justify="left")
    for column in ("rows", "prepare", "train", "epoch", "prepare MiB", "train MiB"):
        table.add_column(column, justify="right")
    table.add_row(
        "start, s", f"{start.prepare:.2f}", f"{start.train:.2f}", f"{start.epoch:.2f}", *_mebibytes(start), style="dim"
    )
    rates = []
    for rows, figures in zip(sizes, found, strict=True):
        millions = (rows - START_ROWS) / 1e6
        seconds = [(now - then) / millions for now, then in zip(figures, start, strict=True)]
        rates.append({"prepare": seconds[0], "train": seconds[1], "epoch": seconds[4]})
        table.add_row(f"{rows:,}", *(f"{rate:.2f}" for rate in rates[-1].values()), *_mebibytes(figures))
    verdicts = []
    if len(rates) > 1:
        for name, rate in rates[-1].items():
            ratio = rate / rates[-2][name]
            word = "flat" if abs(ratio - 1) <= TOLERANCE else "NOT FLAT"
            verdicts.append(f"{name}: seconds per row at {sizes[-1]:,} / at {sizes[-2]:,} rows = {ratio:.2f}: {word}")
    return table, verdicts


def _mebibytes(figures: Figures) -> list[str]:
    return [f"{figures.prepare_bytes / 2**20:,.0f}", f"{figures.train_bytes / 2**20:,.0f}"]


def main() -> None:
    """Measure each size, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--plan-rows", type=int, nargs="*", default=[10_000, 100_000, 1_000_000, 3_600_000, 10_000_000])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="of prepare (default: 2)")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--folder", type=Path, help="where to work (default: the temporary folder): 5 GB at 10^7 rows")
    options = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        place = Path(folder)
        settings = {"workers": options.workers, "batch_size": options.batch_size}
        if options.rows:
            measure(place, START_ROWS, **settings)  # not counted: it reads files and compiles for the first time
            turns: dict[int, list[Figures]] = {rows: [] for rows in (START_ROWS, *options.rows)}
            for turn in range(options.turns):
                for rows, measured in turns.items():
                    if turn == 0 or rows < ONCE:
                        measured.append(measure(place, rows, **settings))
            start, *found = (Figures(*map(statistics.median, zip(*each, strict=True))) for each in turns.values())
            table, verdicts = growth_table(options.rows, start, found)
            console.print(table)
            for verdict in verdicts:
                console.print(verdict, highlight=False)
        console.print("distrain plan --replicas 1024 --batch-size 128", highlight=False)
        table = Table()
        for column in ("rows", "seconds", "MiB"):
            table.add_column(column, justify="right")
        for rows in options.plan_rows:
            data = place / f"data-{rows}"
            if not data.exists():
                write_shards(data, rows)
            time = ("--step-ms", 3.1, "--bandwidth-gbs", 12)
            plan = run_measured(distrain("plan", "--data", data, "--replicas", 1024, "--batch-size", 128, *time))
            table.add_row(f"{rows:,}", f"{plan.seconds:.2f}", f"{plan.peak_bytes[0] / 2**20:,.0f}")
            shutil.rmtree(data)
        console.print(table)
        console.print(f"wanted: below {PLAN_SECONDS:.0f} seconds at 3,600,000 rows", highlight=False)


if __name__ == "__main__":
    main()
