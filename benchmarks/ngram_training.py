"""Measures training throughput of the n-gram model, against `Model.fit` on the guide's dense generator.

    python benchmarks/ngram_training.py                          # synthetic text
    python benchmarks/ngram_training.py --text DIR               # with train.csv and test.csv: class, text

All programs train the same model on the same prepared rows in one process: 20,000 features, 64 units, dropout 0.2,
Adam.

- distrain: epochs of its own loop, with the real loader, shuffling, and an evaluation between two epochs. The
  evaluation does not count.
- cached: as many of distrain's steps on one batch made beforehand.
- guide's generator: dense batches, `x[start:end].toarray()`, of the sparse matrix that the guide's vectorizer makes.
- dense matrix: slices of a dense matrix in memory, which only small data allows.

Epochs take turns. The first epoch of each program does not count, because it compiles.

The option `--no-rivals` leaves out the last two programs, and `--steps-per-execution K` takes K steps in one call.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import scipy.sparse
from rich.console import Console

from distrain.config import PrepareConfig, TrainConfig
from distrain.data.batches import epoch_batches, sample_batch
from distrain.data.plan import EpochPlan
from distrain.data.prefetch import PREFETCH_STEPS, prefetched
from distrain.data.prepared.dataset_index import open_dataset
from distrain.data.shuffle import epoch_order
from distrain.distribution.single import SingleDevice
from distrain.prepare.pipeline import prepare
from distrain.runs.progress import Progress, Sums
from distrain.text.synthetic.corpus import write_synthetic
from distrain.training.figures.evaluation import evaluate_all
from distrain.training.jobs.job import open_job
from distrain.training.loop.loop import EpochSteps, TrainingLoop, run_epochs
from distrain.training.steps.step import make_evaluate_step, make_train_steps
from distrain.training.steps.task import batch_specs, make_task

MAX_DENSE_ROWS = 10_000  # 800 MB as a dense matrix of 20,000 columns


Run = Callable[[], int]


def distrain_epochs(data: Path, batch_size: int, steps_per_call: int) -> tuple[Callable[..., None], Run, float]:
    """Build the distrain runs of one batch size.

    Returns:
        A function (num_epochs, on_epoch) that trains epochs and calls `on_epoch` with the samples/s of each epoch.
        A function that takes as many steps on one cached batch and returns the number of examples.
        The mean number of entries per row.
    """
    job = open_job(TrainConfig(data=data, run=data / "run"))
    sample = sample_batch(job.train)
    single = SingleDevice()
    task = make_task(job.build, sample, scope=single.scope(), num_columns=job.train.num_columns)
    train = make_train_steps(task, single, batch_specs(sample), steps_per_execution=steps_per_call)
    evaluate_step = make_evaluate_step(task, single, batch_specs(sample))
    plan = EpochPlan(job.train.num_examples, 1, batch_size)

    def figures(sums: Sums) -> dict[str, float]:
        return task.metrics.results(sums)

    def open_epoch(progress: Progress) -> EpochSteps:
        order = epoch_order(plan.num_examples, seed=0, epoch=progress.epoch)
        loader = epoch_batches(job.train, plan, order, replicas=range(1), epoch=progress.epoch)
        batches = prefetched(loader, depth=max(PREFETCH_STEPS, 2 * steps_per_call))
        return EpochSteps(plan.num_steps, lambda step: len(plan.global_positions(step)), batches)

    def evaluate() -> dict[str, float] | None:
        test = EpochPlan(job.validation.num_examples, 1, batch_size)
        order = epoch_order(test.num_examples, seed=0, epoch=0, shuffle=False)
        batches = prefetched(epoch_batches(job.validation, test, order, replicas=range(1)))
        return evaluate_all(batches, lambda fed: evaluate_step(fed).sums, figures)

    def run(num_epochs: int, on_epoch: Callable[[float], None]) -> None:
        loop = TrainingLoop(
            num_epochs=num_epochs,
            open_epoch=open_epoch,
            train_steps=lambda group: [outcome.sums for outcome in train(group)],
            steps_per_execution=steps_per_call,
            evaluate=evaluate,
            metrics_of=figures,
            after_epoch=[lambda event: on_epoch(event.num_examples / event.seconds)],
        )
        run_epochs(loop, Progress())

    cached = next(epoch_batches(job.train, plan, epoch_order(plan.num_examples, seed=0, epoch=0), replicas=range(1)))

    def run_cached() -> int:
        calls = -(-plan.num_steps // steps_per_call)
        for _ in range(calls):
            train([cached] * steps_per_call)
        return calls * steps_per_call * batch_size

    part = open_dataset(data).parts["train"]
    return run, run_cached, float(part.row_lengths().mean())


def guide_epoch(data: Path, batch_size: int, *, dense: bool) -> Callable[[], int]:
    """Return a function that trains one epoch as the guide does: dense batches from a generator, `Model.fit`.

    With `dense`, the whole matrix is dense in memory. Otherwise it is sparse, and the generator makes batches dense.
    """
    dataset = open_dataset(data)
    part = dataset.parts["train"]
    rows = part.read(0, min(part.num_rows, MAX_DENSE_ROWS) if dense else part.num_rows)
    shape = (rows.num_rows, dataset.num_features)
    x = scipy.sparse.csr_matrix((rows.values, rows.columns, rows.row_splits), shape=shape)
    x = x.toarray() if dense else x
    y = np.array(rows.labels)
    layers = keras.layers
    outputs = len(dataset.classes)
    model = keras.Sequential(
        [
            layers.Input((dataset.num_features,)),
            layers.Dropout(0.2),
            layers.Dense(64, activation="relu"),
            layers.Dropout(0.2),
            layers.Dense(outputs, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["acc"])
    num_batches = -(-x.shape[0] // batch_size)

    def generator() -> Iterator[Any]:
        while True:
            for number in range(num_batches):
                rows = slice(number * batch_size, (number + 1) * batch_size)
                yield x[rows] if dense else x[rows].toarray(), y[rows]

    batches = generator()

    def run() -> int:
        model.fit(batches, steps_per_epoch=num_batches, epochs=1, verbose=0, shuffle=False)
        return x.shape[0]

    return run


def samples_per_second(run: Callable[[], int]) -> float:
    """Return the examples per second of one call."""
    began = time.perf_counter()
    examples = run()
    return examples / (time.perf_counter() - began)


def measure(ours: Callable[..., None], others: list[Run], *, num_rounds: int) -> list[list[float]]:
    """Return samples/s of distrain and of each other run, one row per round, in turn."""
    rounds: list[list[float]] = []
    ours(num_rounds, lambda speed: rounds.append([speed, *map(samples_per_second, others)]))
    return rounds


def main() -> None:
    """Prepare data, measure, print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, help="folder with train.csv and test.csv")
    parser.add_argument("--rows", type=int, default=20_000, help="rows of synthetic text (default: %(default)s)")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[128, 512])
    parser.add_argument(
        "--words", type=int, default=45, help="mean words per row of synthetic text (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-rivals", action="store_true")
    parser.add_argument("--steps-per-execution", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        text = options.text or Path(folder) / "text"
        if options.text is None:
            write_synthetic(text, rows=options.rows, words_per_row=options.words)
        data = Path(folder) / "data"
        config = PrepareConfig(train=text / "train.csv", test=text / "test.csv", out=data, vectorizer="ngram")
        prepare(config, console=Console(quiet=True))
        for batch_size in options.batch_size:
            ours, cached, entries = distrain_epochs(data, batch_size, options.steps_per_execution)
            runs = {"cached": cached}
            if not options.no_rivals:
                runs["guide's generator"] = guide_epoch(data, batch_size, dense=False)
                runs["dense matrix"] = guide_epoch(data, batch_size, dense=True)
            _, *rounds = measure(ours, list(runs.values()), num_rounds=1 + options.rounds)
            speeds = [statistics.median(column) for column in zip(*rounds, strict=True)]
            print(f"batch {batch_size}, {entries:.0f} entries a row, medians of {options.rounds} in turn:")
            for index, (name, speed) in enumerate(zip(["distrain", *runs], speeds, strict=True)):
                ratio = statistics.median(row[0] / row[index] for row in rounds)
                print(f"  {name:18} {speed:9,.0f} samples/s" + (f", distrain / it {ratio:.2f}" if index else ""))


if __name__ == "__main__":
    main()
