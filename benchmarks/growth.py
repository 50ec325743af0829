"""Growth: seconds and memory of preparing and training from 10^4 to 10^6 rows, and of `distrain plan` up to 10^7.

    python benchmarks/growth.py [--rows 10000 100000 1000000] [--plan-rows 10000 ... 10000000] [--workers 2]

Each size is synthetic text of about 40 words a row, `distrain prepare --vectorizer ngram`, and one epoch of `distrain
train`. Start-up is measured on 1,000 rows and subtracted: Python, TensorFlow, compiling the step. Sizes below a million
rows are measured `--turns` times, and the table shows medians. A cost per row is flat if the largest size is within 20%
of the size before. Memory is the peak RssAnon of a command's largest process.

`distrain plan --replicas 1024` runs on the prepared data. Larger sizes use shards without text: 65,536 rows of 60
columns by Zipf's law, written again and again.
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

from distrain.data.prepared.dataset_writer import DatasetWriter
from distrain.data.prepared.rows import Rows

START_ROWS = 1_000
SINGLE_TURN_ROWS = 1_000_000  # such a run takes long enough to measure once
TOLERANCE = 0.2
PLAN_SECONDS = 2.0
PIECE_ROWS = 65_536


class Figures(NamedTuple):
    """One size: seconds of each command, peak bytes of the largest process, and seconds of the epoch."""

    prepare: float
    train: float
    prepare_bytes: int
    train_bytes: int
    epoch: float


def measure(work: Path, rows: int, *, workers: int, batch_size: int) -> Figures:
    """Write, prepare and train on text of `rows` rows; keep `work/data-ROWS`."""
    text, data, run = work / "text", work / f"data-{rows}", work / "run"
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


def write_shards(work: Path, rows: int) -> None:
    """Write prepared data of `rows` rows without any text."""
    random = np.random.default_rng(0)
    frequencies = 1.0 / np.arange(1, 20_001)
    columns = random.choice(20_000, (PIECE_ROWS, 60), p=frequencies / frequencies.sum()).astype(np.int32)
    labels = (np.arange(PIECE_ROWS) % 4).astype(np.int32)
    piece = Rows(np.arange(PIECE_ROWS + 1) * 60, np.sort(columns, axis=1).ravel(), np.ones(columns.size, "f4"), labels)

    def pieces(count: int) -> Iterator[Rows]:
        for start in range(0, count, PIECE_ROWS):
            yield piece.slice(0, min(PIECE_ROWS, count - start))

    work.mkdir()
    writer = DatasetWriter(work, kind="ngram", num_features=20_000, classes=["a", "b", "c", "d"])
    writer.write("train", pieces(rows))
    writer.write("test", pieces(rows // 10))
    writer.finish()


def growth_table(sizes: list[int], start: Figures, found: list[Figures]) -> tuple[Table, list[str]]:
    """The table of all sizes, and a verdict for each cost per row."""
    table = Table(title="seconds per million rows, without start-up; peak RssAnon, MiB", title_justify="left")
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
            verdict = "flat" if abs(ratio - 1) <= TOLERANCE else "NOT FLAT"
            verdicts.append(
                f"{name}: seconds per row at {sizes[-1]:,} / at {sizes[-2]:,} rows = {ratio:.2f}: {verdict}"
            )
    return table, verdicts


def _mebibytes(figures: Figures) -> list[str]:
    return [f"{figures.prepare_bytes / 2**20:,.0f}", f"{figures.train_bytes / 2**20:,.0f}"]


def main() -> None:
    """Measure each size and print the tables."""
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
        work = Path(folder)
        settings = {"workers": options.workers, "batch_size": options.batch_size}
        if options.rows:
            measure(work, START_ROWS, **settings)  # warm-up: reads files and compiles kernels for the first time
            turns: dict[int, list[Figures]] = {rows: [] for rows in (START_ROWS, *options.rows)}
            for turn in range(options.turns):
                for rows, measured in turns.items():
                    if turn == 0 or rows < SINGLE_TURN_ROWS:
                        measured.append(measure(work, rows, **settings))
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
            data = work / f"data-{rows}"
            if not data.exists():
                write_shards(data, rows)
            time = ("--step-ms", 3.1, "--bandwidth-gbs", 12)
            plan = run_measured(distrain("plan", "--data", data, "--replicas", 1024, "--batch-size", 128, *time))
            table.add_row(f"{rows:,}", f"{plan.seconds:.2f}", f"{plan.peak_bytes[0] / 2**20:,.0f}")
            shutil.rmtree(data)
        console.print(table)
        console.print(f"target: below {PLAN_SECONDS:.0f} seconds at 3,600,000 rows", highlight=False)


if __name__ == "__main__":
    main()
