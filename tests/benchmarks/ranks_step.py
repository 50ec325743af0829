"""Step time of both models with one rank and with two, one core a rank, split into compute and all-reduce.

    python tests/benchmarks/ranks_step.py [--rounds 5] [--batches 128 512] [--text DIR]

The batch is per rank (weak scaling). "Compute" is the very step without its reduction, timed in the same launch by
turns; "all-reduce" is what the whole step takes longer: what is not hidden. Efficiency is the step of one rank over
that of two. Batches are cached, so that the loader is out of it. Launches take turns; a row holds medians over the
rounds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from distrain.config import PrepareConfig, TrainConfig
from distrain.data.batches import epoch_batches, sample_batch
from distrain.data.plan import EpochPlan, epoch_order
from distrain.data.synth import write_synthetic
from distrain.prepare import prepare
from distrain.world import find_world

BIN = Path(sys.executable).parent
MPIRUN = [str(BIN / "mpirun"), "--bind-to", "core", "-n"]
WAYS = {
    "single": (1, MPIRUN),
    "mpi": (2, MPIRUN),
    "horovod, mpirun": (2, MPIRUN),
    "horovod, horovodrun --gloo": (2, [str(BIN / "horovodrun"), "--gloo", "-np"]),
}
NUM_CACHED = 8


def time_in_rank(way: str, data: Path, batch_sizes: list[int], num_turns: int) -> list[tuple[float, float]]:
    """Median milliseconds of a step and of its compute for each batch size; all ranks run this."""
    from distrain import step as steps
    from distrain.distribution import choose
    from distrain.jobs import open_job
    from distrain.task import batch_specs, make_task

    strategy = way.split(",")[0]
    config = TrainConfig(data=data, run=data / "run", strategy=strategy, devices="cpu:1")
    distribution = choose(config, os.environ)
    job = open_job(config)
    sample = sample_batch(job.train)
    replicas = distribution.local_replicas
    compiled = []
    for reduces in (True, False):
        task = make_task(job.build, sample, scope=distribution.scope(), num_columns=job.train.num_columns)
        under = distribution if reduces else _Unreduced(distribution)
        compiled.append(steps.make_train_step(task, under, batch_specs(sample)))
    medians = []
    for batch_size in batch_sizes:
        plan = EpochPlan(job.train.num_examples, distribution.num_replicas, batch_size)
        order = epoch_order(plan.num_examples, seed=0, epoch=0)
        batches = list(itertools.islice(epoch_batches(job.train, plan, order, replicas=replicas), NUM_CACHED))
        seconds: tuple[list[float], list[float]] = ([], [])
        for turn in range(num_turns + 1):
            for which, step in enumerate(compiled):
                for batch in batches:
                    distribution.exchange(b"")  # start together: waiting for a late rank is no reduction
                    began = time.perf_counter()
                    step(batch)
                    if turn > 0:
                        seconds[which].append(time.perf_counter() - began)
        medians.append(tuple(statistics.median(each) * 1000 for each in seconds))
    return medians


class _Unreduced:
    """A distribution whose sums are this replica's own."""

    def __init__(self, distribution: Any) -> None:
        self._distribution = distribution
        self.num_replicas = distribution.num_replicas
        self.local_update = distribution.local_update

    def compile(self, *arguments: Any, **settings: Any) -> Any:
        return self._distribution.compile(*arguments, **settings)

    def sum(self, gradients: Any, figures: Any) -> Any:
        from distrain.distribution.gradients import dense

        return [dense(gradient) for gradient in gradients], list(figures)


def launch(way: str, data: Path, batch_sizes: list[int], turns: int) -> list[tuple[float, float]]:
    """Time one way in a launch of its own."""
    ranks, words = WAYS[way]
    own = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    environ = {**os.environ, **own, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    command = [sys.executable, __file__, "--in-rank", way, "--data", str(data), "--turns", str(turns), "--batches"]
    command += map(str, batch_sizes)
    done = subprocess.run([*words, str(ranks), *command], env=environ, capture_output=True, text=True, timeout=900)
    for line in done.stdout.splitlines():
        if "MEDIANS" in line:
            return json.JSONDecoder().raw_decode(line.split("MEDIANS")[1])[0]  # what follows is the launcher's
    raise SystemExit(f"{way} failed:\n{done.stdout}{done.stderr}")


def prepared(text: Path, out: Path, vectorizer: str) -> Path:
    """Text as a model takes it."""
    folder = out / vectorizer
    prepare(
        PrepareConfig(train=text / "train.csv", test=text / "test.csv", out=folder, vectorizer=vectorizer),
        console=Console(quiet=True),
    )
    return folder


def main() -> None:
    """Take turns and print a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--turns", type=int, default=3, help="passes over the cached batches in a launch")
    parser.add_argument("--batches", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--text", type=Path, help="a folder with train.csv and test.csv (default: made-up text)")
    parser.add_argument("--models", nargs="+", choices=("ngram", "sequence"), default=["ngram", "sequence"])
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--in-rank", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_rank:
        medians = time_in_rank(options.in_rank, options.data, options.batches, options.turns)
        if find_world(os.environ).rank == 0:
            print(f"MEDIANS{json.dumps(medians)}", flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        text = options.text
        if text is None:
            text = Path(folder) / "text"
            write_synthetic(text, rows=20_000, classes=4, words_per_row=60, seed=0)
        for model in options.models:
            data = prepared(text, Path(folder), model)
            found: dict[str, list[list[tuple[float, float]]]] = {way: [] for way in WAYS}
            for number in range(options.rounds):
                for way in WAYS:
                    found[way].append(launch(way, data, options.batches, options.turns))
                    print(f"{model}, round {number + 1} of {options.rounds}: {way}", file=sys.stderr)
            table = Table(title=f"{model} model: ms per step, one core a rank, medians of {options.rounds} launches")
            for name in ("ranks", "batch per rank", "step", "compute", "all-reduce", "efficiency"):
                table.add_column(name, justify="left" if name == "ranks" else "right")
            alone: dict[int, float] = {}
            for way, rounds in found.items():
                for place, batch_size in enumerate(options.batches):
                    step, compute = (statistics.median(each[place][which] for each in rounds) for which in (0, 1))
                    alone.setdefault(batch_size, step)
                    ratio = alone[batch_size] / step
                    cells = (f"{step:.2f}", f"{compute:.2f}", f"{step - compute:.2f}", f"{ratio:.2f}")
                    table.add_row(f"{WAYS[way][0]} ({way})", str(batch_size), *cells)
            Console(width=100).print(table)


if __name__ == "__main__":
    main()
