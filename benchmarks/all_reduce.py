"""Milliseconds of an all-reduce between two processes: Horovod over Gloo and MPI, mpi4py, and bare `MPI.Allreduce`.

    python benchmarks/all_reduce.py [--ranks 2] [--rounds 5] [--megabytes 0.1 1 5 64]

A compiled function calls distrain's backends without shared memory, like ranks on several machines. Bare
`MPI.Allreduce` sums NumPy buffers in place. A round launches each way once. A row holds medians over the rounds of each
launch's median.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from launched_ranks import figures_of, tell
from measuring import BIN, MPIRUN
from rich.console import Console
from rich.table import Table

from distrain.config import TrainConfig

WAYS = {
    "bare MPI.Allreduce": MPIRUN,
    "mpi": MPIRUN,
    "horovod, mpirun": MPIRUN,
    "horovod, horovodrun --mpi": [str(BIN / "horovodrun"), "--mpi", "-np"],
    "horovod, horovodrun --gloo": [str(BIN / "horovodrun"), "--gloo", "-np"],
}
SECONDS_PER_SIZE = 1.0


def time_in_rank(way: str, megabytes: list[float]) -> list[float]:
    """Median milliseconds of each size on this rank; all ranks run this."""
    medians = []
    for size in megabytes:
        reduce = _bare(int(size * 250_000)) if way.startswith("bare") else _compiled(way, int(size * 250_000))
        repetitions = max(5, min(200, int(SECONDS_PER_SIZE / (0.0005 + size * 0.001))))
        for _ in range(3):
            reduce()
        seconds = []
        for _ in range(repetitions):
            began = time.perf_counter()
            reduce()
            seconds.append(time.perf_counter() - began)
        medians.append(statistics.median(seconds) * 1000)
    return medians


def _bare(num_floats: int) -> Callable[[], object]:
    from mpi4py import MPI

    buffer = np.ones(num_floats, np.float32)
    return lambda: MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, buffer)


def _compiled(way: str, num_floats: int) -> Callable[[], object]:
    import tensorflow as tf

    from distrain.distribution.choose import choose
    from distrain.distribution.multi_process import MultiProcess

    strategy = way.split(",")[0]
    joined = choose(TrainConfig(data=Path(), run=Path(), strategy=strategy, devices="cpu:1"), os.environ)
    distribution = MultiProcess(joined.collectives, joined.group)  # without the memory that they could share
    gradient = tf.ones(num_floats)

    @tf.function(autograph=False)
    def reduce():
        return distribution.sum([gradient], [tf.ones(())])[1]

    return lambda: reduce()[0].numpy()


def launch(way: str, ranks: int, megabytes: list[float]) -> list[float]:
    """Time one way in a launch of its own."""
    apart = {"HOROVOD_CYCLE_TIME": "1"}  # its own default, as on several machines
    words = [sys.executable, __file__, "--in-rank", way, "--megabytes", *map(str, megabytes)]
    found: list[float] = figures_of([*WAYS[way], str(ranks), *words], seconds=500, environ=apart)
    return found


def main() -> None:
    """Take turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--megabytes", type=float, nargs="+", default=[0.1, 1, 5, 64])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--in-rank", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_rank:
        tell(time_in_rank(options.in_rank, options.megabytes))
        return
    found: dict[str, list[list[float]]] = {way: [] for way in options.ways}
    for number in range(options.rounds):
        for way in options.ways:
            found[way].append(launch(way, options.ranks, options.megabytes))
            print(f"round {number + 1} of {options.rounds}: {way}", file=sys.stderr)
    table = Table(title=f"ms per all-reduce, {options.ranks} processes, medians of {options.rounds} launches")
    table.add_column("way")
    for size in options.megabytes:
        table.add_column(f"{size:g} MB", justify="right")
    for way, rounds in found.items():
        table.add_row(way, *(f"{statistics.median(column):.2f}" for column in zip(*rounds, strict=True)))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
