"""The step that `distrain plan` predicts for two CPU ranks, beside the measured step.

    python benchmarks/plan_step.py [--rounds 5] [--batches 128 512 2048] [--models ngram sequence]

A round times, one launch after the other: a step of one rank, two all-reduces of two ranks, and a step of two ranks.
Each rank has one core. The first two are what `distrain plan --replicas 2` takes as `--step-ms`, `--bandwidth-gbs` and
`--latency-ms` for its prediction. A single rank has `--strategy mpi` too, which packs gradients on the host. An
all-reduce of 1 KB measures the latency. One of 8 MB, a quarter of whose rows is not zero, measures the bandwidth.

The batch is per rank. Figures are medians over the rounds of the median step on cached batches, because the mean of a
busy machine tells of its other programs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from launched_ranks import figures_of, tell
from ranks_step import MPIRUN, launch, prepared
from rich.console import Console
from rich.table import Table

from distrain.config import PlanConfig, TrainConfig
from distrain.data.prepared.dataset_index import open_dataset
from distrain.planning.links import Link
from distrain.planning.outlook import outlook
from distrain.planning.run_plan import plan_run
from distrain.planning.scale_out import MeasuredStep
from distrain.text.synthetic.corpus import write_synthetic

SIZES = (1_024, 8_192_000)  # bytes; the first takes the latency alone
WIDTH = 64  # of a gradient, as the first layer of the n-gram model has
TOUCHED = 4  # one of so many rows is not zero, as in the gradient of a batch of some hundred texts
MATRIX = 400  # a product of 3 ms on one core
CALLS = 60


def time_link_in_rank() -> list[float]:
    """Seconds that an all-reduce of each size adds to a computation of about a step; all ranks run this.

    Ranks that only sum would find their buffers in the cache, and no rank would be late. A gradient has rows of zeros,
    which ranks of one machine find, leave out and write again; a bare vector has none.
    """
    import tensorflow as tf

    from distrain.distribution.choose import choose

    distribution = choose(TrainConfig(data=Path(), run=Path(), strategy="mpi", devices="cpu:1"), os.environ)
    matrix = tf.ones((MATRIX, MATRIX))

    def compiled(num_bytes: int, *, sums: bool) -> Callable[[], Any]:
        touched = tf.range(num_bytes // (4 * WIDTH)) % TOUCHED == 0
        gradient = tf.tile(tf.cast(touched, tf.float32)[:, tf.newaxis], (1, WIDTH))

        @tf.function(autograph=False)
        def step() -> Any:
            computed = gradient * tf.linalg.matmul(matrix, matrix)[0, 0]
            total = distribution.sum([computed], [tf.ones(())])[0][0] if sums else computed
            return tf.reduce_sum(total)

        return lambda: step().numpy()

    medians = []
    for num_bytes in SIZES:
        seconds = {sums: [] for sums in (False, True)}
        calls = {sums: compiled(num_bytes, sums=sums) for sums in seconds}
        for _ in range(CALLS):
            for sums, call in calls.items():
                distribution.group.barrier()
                began = time.perf_counter()
                call()
                seconds[sums].append(time.perf_counter() - began)
        medians.append(statistics.median(seconds[True][5:]) - statistics.median(seconds[False][5:]))
    return medians


def measured_link() -> Link:
    """Start two ranks that time their all-reduces."""
    small, large = figures_of([*MPIRUN, "2", sys.executable, __file__, "--in-rank"], seconds=300)
    return Link((SIZES[1] - SIZES[0]) / max(1e-9, large - small), small)  # two ranks: a ring sends all once


def main() -> None:
    """Take turns and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--turns", type=int, default=2, help="times that each is timed in a launch")
    parser.add_argument("--batches", type=int, nargs="+", default=[128, 512, 2048])
    parser.add_argument("--models", nargs="+", choices=("ngram", "sequence"), default=["ngram"])
    parser.add_argument("--rows", type=int, default=40_000, help="rows of made-up text")
    parser.add_argument("--in-rank", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_rank:
        tell(time_link_in_rank())
        return
    table = Table(title=f"ms a step on two CPU ranks, medians of {options.rounds} rounds")
    for name in ("model", "batch", "one rank", "latency", "GB/s", "predicted", "measured", "ratio"):
        table.add_column(name, justify="right")
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text"
        write_synthetic(text, rows=options.rows, classes=4, words_per_row=200, seed=0)
        for model in options.models:
            data = prepared(text, Path(folder), model)
            for row in compare(data, options.batches, options.rounds, options.turns):
                table.add_row(model, *row)
    Console(width=100).print(table)


def compare(data: Path, batch_sizes: list[int], rounds: int, turns: int) -> list[list[str]]:
    """Return the cells of a row for each batch size."""
    one, two, links = [], [], []
    for number in range(rounds):
        one.append([each["step"] for each in launch("mpi, one rank", data, batch_sizes, turns)])
        links.append(measured_link())
        two.append([each["step"] for each in launch("mpi", data, batch_sizes, turns)])
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
    latency = statistics.median(link.latency_seconds for link in links)
    link = Link(statistics.median(link.bytes_per_second for link in links), latency)
    rows = []
    for place, batch_size in enumerate(batch_sizes):
        single, measured = (statistics.median(each[place] for each in found) for found in (one, two))
        config = TrainConfig(data=data, run=data / "run", batch_size=batch_size)
        bandwidth, latency_ms = link.bytes_per_second / 1e9, 1000 * link.latency_seconds
        asked = PlanConfig(replicas=2, step_ms=single, bandwidth_gbs=bandwidth, latency_ms=latency_ms, floor_ms=0.0)
        plan = plan_run(open_dataset(data), config, num_replicas=2)
        predicted = 1000 * outlook(plan, config, asked, MeasuredStep(single / 1000, batch_size, 0.0))[-1].seconds
        cells = (single, 1000 * latency, link.bytes_per_second / 1e9, predicted, measured, predicted / measured)
        rows.append([str(batch_size), *(f"{cell:.2f}" for cell in cells)])
    return rows


if __name__ == "__main__":
    main()
