"""Step time of both models with one rank and with two, one core a rank, split into data, compute and all-reduce.

    python benchmarks/ranks_step.py [--rounds 5] [--batches 128 512 2048 8192] [--text DIR]

The batch is per rank (weak scaling). The columns are:

- compute: the step without its reduction, on cached batches.
- all-reduce: extra time of the step with its reduction, hidden parts excluded.
- data: extra mean time with shuffled batches from the real loader.
- bare alone: `MPI.Allreduce` of as many bytes as the step sends, on a buffer in the cache, by otherwise idle ranks.
- bare in the step: the same `MPI.Allreduce` after a step's computation, with a cold cache and ranks that arrive late.
- ratio: all-reduce over each bare time.
- efficiency: the whole step of one rank over the whole step of two ranks.

Within a launch all measurements alternate, and launches alternate. A row holds medians over the rounds.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from launched_ranks import figures_of, tell
from measuring import BIN
from rich.console import Console
from rich.table import Table

from distrain.config import PrepareConfig, TrainConfig
from distrain.data.batches import epoch_batches, sample_batch
from distrain.data.plan import EpochPlan
from distrain.data.prefetch import prefetched
from distrain.data.shuffle import epoch_order
from distrain.prepare.pipeline import prepare
from distrain.text.synthetic.corpus import write_synthetic

MPIRUN = [str(BIN / "mpirun"), "--bind-to", "core", "-n"]
WAYS = {
    "single": (1, MPIRUN),
    "mpi, one rank": (1, MPIRUN),  # packs and unpacks gradients as each of several ranks does
    "mpi": (2, MPIRUN),
    "horovod, mpirun": (2, MPIRUN),
    "horovod, horovodrun --gloo": (2, [str(BIN / "horovodrun"), "--gloo", "-np"]),
}
NUM_CACHED = 8
LOADED_STEPS = 24  # steps on the real loader in a turn, at least: several blocks of large batches
TURN_SECONDS = 1.0  # batches are timed again and again, up to this long a turn

Split = dict[str, float]  # milliseconds of "loaded", "step", "compute", "computed and bare", "bare"; "megabytes" sent


def time_in_rank(way: str, data: Path, batch_sizes: list[int], num_turns: int) -> list[Split]:
    """Medians for each batch size; all ranks run this."""
    from distrain.distribution.choose import choose
    from distrain.distribution.multi_process import MultiProcess
    from distrain.training.jobs.job import open_job
    from distrain.training.steps import step as steps
    from distrain.training.steps.task import batch_specs, make_task

    strategy = way.split(",")[0]
    config = TrainConfig(data=data, run=data / "run", strategy=strategy, devices="cpu:1")
    distribution = choose(config, os.environ)
    job = open_job(config)
    sample = sample_batch(job.train)
    replicas = distribution.local_replicas
    ways = {"step": distribution, "compute": _Unreduced(distribution)}
    sent: list[int] = []
    if isinstance(distribution, MultiProcess):  # what would travel between machines
        ways["travelling"] = MultiProcess(_counting(distribution.collectives, sent), distribution.group)
    compiled = {}
    for name, under in ways.items():
        task = make_task(job.build, sample, scope=distribution.scope(), num_columns=job.train.num_columns)
        compiled[name] = steps.make_train_steps(task, under, batch_specs(sample))
    medians = []
    for batch_size in batch_sizes:
        plan = EpochPlan(job.train.num_examples, distribution.num_replicas, batch_size)
        order = epoch_order(plan.num_examples, seed=0, epoch=0)
        whole_steps = plan.num_examples // (batch_size * distribution.num_replicas)
        cached = list(
            itertools.islice(epoch_batches(job.train, plan, order, replicas=replicas), min(NUM_CACHED, whole_steps))
        )
        sent.clear()
        if "travelling" in compiled:
            compiled["travelling"]([cached[0]])
        num_bytes, allreduce = sum(sent), _allreduce(sum(sent)) if strategy == "mpi" else None
        calls = {"loaded": compiled["step"], "step": compiled["step"], "compute": compiled["compute"]}
        if allreduce:
            calls["computed and bare"] = _one_after_the_other(compiled["compute"], allreduce)
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for turn in range(num_turns + 1):
            for name in sorted(calls.keys() - {"loaded"}):
                passes = 1 if turn == 0 else _passes(distribution, seconds[name], len(cached))
                took = _time_steps(distribution, calls[name], cached * passes)
                seconds[name] += took if turn else [statistics.median(took)]
            ahead = epoch_batches(job.train, plan, order, replicas=replicas, epoch=turn)
            num_steps = min(whole_steps, LOADED_STEPS * _passes(distribution, seconds["step"], LOADED_STEPS))
            with prefetched(ahead, in_thread=distribution.prefetches) as batches:
                took = _time_steps(distribution, calls["loaded"], itertools.islice(batches, num_steps))
            seconds["loaded"].append(statistics.mean(took[1:]))  # not the median: a block is read in one step of many
        split = {name: statistics.median(each[1:]) * 1000 for name, each in seconds.items()}
        medians.append({**split, "megabytes": num_bytes / 1e6, "bare": _median_alone(allreduce) if allreduce else 0.0})
    return medians


def _one_after_the_other(compute: Callable[[Any], Any], allreduce: Callable[[], None]) -> Callable[[Any], None]:
    def both(batches: Any) -> None:
        compute(batches)
        allreduce()

    return both


def _time_steps(distribution: Any, call: Callable[[Any], Any], batches: Iterable[Any]) -> list[float]:
    """Seconds of each step."""
    took = []
    distribution.group.barrier()  # start together: waiting for a late rank is no reduction
    before = time.perf_counter()
    for batch in batches:
        call([batch])
        now = time.perf_counter()
        took.append(now - before)
        before = now
    return took


def _passes(distribution: Any, seconds: list[float], num_batches: int) -> int:
    """How often to go over the cached batches in a turn; the same on all ranks."""
    own = TURN_SECONDS / (num_batches * max(1e-5, seconds[0]))
    return max(1, min(30, min(int(float(each)) for each in distribution.group.all_gather_bytes(str(own).encode()))))


def _counting(collectives: Any, sent: list[int]) -> Any:
    """The collectives, which append the bytes of each reduction to `sent`."""

    def counted(function: Any) -> Any:
        def counting(buffer: Any, **settings: Any) -> None:
            sent.append(buffer.nbytes)
            function(buffer, **settings)

        return counting

    own = {name: counted(getattr(collectives, name)) for name in ("all_reduce_sum", "all_reduce_or")}
    return SimpleNamespace(**{**vars(collectives), **own})


def _allreduce(num_bytes: int) -> Callable[[], None]:
    """A bare `MPI.Allreduce` in place of a buffer of that size."""
    import numpy as np
    from mpi4py import MPI

    buffer = np.zeros(num_bytes // 4, np.float32)
    return lambda: MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, buffer)


def _median_alone(allreduce: Callable[[], None]) -> float:
    """Median milliseconds, one after the other."""
    from mpi4py import MPI

    seconds = []
    for _ in range(200):
        MPI.COMM_WORLD.Barrier()
        began = time.perf_counter()
        allreduce()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds) * 1000


class _Unreduced:
    """A distribution whose sums are this replica's own."""

    def __init__(self, distribution: Any) -> None:
        self._distribution = distribution

    def __getattr__(self, name: str) -> Any:
        return getattr(self._distribution, name)

    def sum(self, gradients: Any, metrics: Any) -> Any:
        from distrain.distribution.indexed_slices import dense

        return [dense(gradient) for gradient in gradients], list(metrics)


def launch(way: str, data: Path, batch_sizes: list[int], turns: int) -> list[Split]:
    """Time one way in a launch of its own."""
    ranks, words = WAYS[way]
    command = [sys.executable, __file__, "--in-rank", way, "--data", str(data), "--turns", str(turns), "--batches"]
    command += map(str, batch_sizes)
    found: list[Split] = figures_of([*words, str(ranks), *command], seconds=900)
    return found


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
    parser.add_argument("--turns", type=int, default=3, help="times that each is timed in a launch")
    parser.add_argument("--batches", type=int, nargs="+", default=[128, 512, 2048, 8192])
    parser.add_argument("--text", type=Path, help="a folder with train.csv and test.csv (default: made-up text)")
    parser.add_argument("--rows", type=int, default=200_000, help="rows of made-up text")
    parser.add_argument("--models", nargs="+", choices=("ngram", "sequence"), default=["ngram", "sequence"])
    parser.add_argument("--data", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--in-rank", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_rank:
        tell(time_in_rank(options.in_rank, options.data, options.batches, options.turns))
        return
    with tempfile.TemporaryDirectory() as folder:
        text = options.text
        if text is None:
            text = Path(folder) / "text"
            write_synthetic(text, rows=options.rows, classes=4, words_per_row=200, seed=0)
        for model in options.models:
            data = prepared(text, Path(folder), model)
            found: dict[str, list[list[Split]]] = {way: [] for way in WAYS}
            for number in range(options.rounds):
                for way in WAYS:
                    found[way].append(launch(way, data, options.batches, options.turns))
                    print(f"{model}, round {number + 1} of {options.rounds}: {way}", file=sys.stderr)
            Console(width=140).print(table_of(found, options.batches, f"{model} model, medians of {options.rounds}"))


def table_of(found: dict[str, list[list[Split]]], batch_sizes: list[int], title: str) -> Table:
    """Medians over the rounds."""
    table = Table(title=f"{title} launches: ms per step, one core a rank")
    names = ("ranks", "batch per rank", "step", "data", "compute", "all-reduce", "MB", "bare alone", "ratio")
    names += ("bare in the step", "ratio", "efficiency")
    for name in names:
        table.add_column(name, justify="left" if name == "ranks" else "right", no_wrap=name == "ranks")

    def median(way: str, place: int, name: str) -> float:
        return statistics.median(each[place][name] for each in found[way])

    for way in found:
        for place, batch_size in enumerate(batch_sizes):
            loaded, step, compute = (median(way, place, name) for name in ("loaded", "step", "compute"))
            cells = [f"{loaded:.2f}", f"{loaded - step:.2f}", f"{compute:.2f}"]
            if WAYS[way][0] > 1:
                all_reduce, alone = step - compute, median("mpi", place, "bare")
                in_step = median("mpi", place, "computed and bare") - median("mpi", place, "compute")
                cells += [f"{all_reduce:.2f}", f"{median(way, place, 'megabytes'):.2f}"]
                cells += [cell for bare in (alone, in_step) for cell in (f"{bare:.2f}", f"{all_reduce / bare:.2f}")]
                cells += [f"{median('single', place, 'loaded') / loaded:.2f}"]
            table.add_row(f"{WAYS[way][0]} ({way})", str(batch_size), *cells)
    return table


if __name__ == "__main__":
    main()
