"""Training throughput of the n-gram MLP beside the text classification guide's dense generator with `Model.fit`.

    python benchmarks/ngram_training.py                          # made-up text
    python benchmarks/ngram_training.py --text DIR               # with train.csv and test.csv: class, text

All train the same model (20,000 features, 64 units, dropout 0.2, Adam) on the same prepared rows in one process. The
guide's generator yields dense batches, `x[start:end].toarray()` of the sparse matrix that its vectorizer makes; beside
it a generator that slices a dense matrix in memory, made beforehand, which is possible for small data alone. An
epoch of each in turn, after one of each that is not counted, as it compiles; distrain's epochs are those of its own
loop, with its real loader, shuffling, and an evaluation between two epochs, which is not counted. "Cached" is as many
of distrain's steps on one batch that is made beforehand; `--no-rivals` leaves the others out, and
`--steps-per-execution K` takes K steps in a call.
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
from distrain.data.dataset_index import open_dataset
from distrain.data.plan import EpochPlan
from distrain.data.prefetch import PREFETCH_STEPS, prefetched
from distrain.data.shuffle import epoch_order
from distrain.distribution.single import SingleDevice
from distrain.prepare.pipeline import prepare
from distrain.runs.progress import Progress, Sums
from distrain.text.synthetic.corpus import write_synthetic
from distrain.training.evaluation import evaluate_all
from distrain.training.job import open_job
from distrain.training.loop import EpochSteps, TrainingLoop, run_epochs
from distrain.training.step import figures as step_figures
from distrain.training.step import make_evaluate_step, make_train_steps
from distrain.training.task import batch_specs, make_task

MAX_DENSE_ROWS = 10_000  # 800 MB as a dense matrix of 20,000 columns


Run = Callable[[], int]


def distrain_epochs(data: Path, batch_size: int, at_once: int) -> tuple[Callable[..., None], Run, float]:
    """A function that trains epochs with distrain, one that takes as many steps on one batch; and mean entries a row.

    The first takes the number of epochs and a function that is told the samples/s of each, when it is over; the second
    returns the number of examples.
    """
    job = open_job(TrainConfig(data=data, run=data / "run"))
    sample = sample_batch(job.train)
    single = SingleDevice()
    task = make_task(job.build, sample, scope=single.scope(), num_columns=job.train.num_columns)
    train = make_train_steps(task, single, batch_specs(sample), steps_per_execution=at_once)
    judge = make_evaluate_step(task, single, batch_specs(sample))
    plan = EpochPlan(job.train.num_examples, 1, batch_size)

    def figures(sums: Sums) -> dict[str, float]:
        return step_figures(sums, task.metrics)

    def open_epoch(progress: Progress) -> EpochSteps:
        order = epoch_order(plan.num_examples, seed=0, epoch=progress.epoch)
        loader = epoch_batches(job.train, plan, order, replicas=range(1), epoch=progress.epoch)
        batches = prefetched(loader, depth=max(PREFETCH_STEPS, 2 * at_once))
        return EpochSteps(plan.num_steps, lambda step: len(plan.global_positions(step)), batches)

    def evaluate() -> dict[str, float] | None:
        test = EpochPlan(job.validation.num_examples, 1, batch_size)
        order = epoch_order(test.num_examples, seed=0, epoch=0, shuffle=False)
        batches = prefetched(epoch_batches(job.validation, test, order, replicas=range(1)))
        return evaluate_all(batches, lambda fed: judge(fed).sums, figures)

    def run(num_epochs: int, tell: Callable[[float], None]) -> None:
        loop = TrainingLoop(
            num_epochs=num_epochs,
            open_epoch=open_epoch,
            train_steps=lambda group: [outcome.sums for outcome in train(group)],
            steps_per_execution=at_once,
            evaluate=evaluate,
            metrics_of=figures,
            after_epoch=[lambda event: tell(event.num_examples / event.seconds)],
        )
        run_epochs(loop, Progress())

    cached = next(epoch_batches(job.train, plan, epoch_order(plan.num_examples, seed=0, epoch=0), replicas=range(1)))

    def run_cached() -> int:
        calls = -(-plan.num_steps // at_once)
        for _ in range(calls):
            train([cached] * at_once)
        return calls * at_once * batch_size

    part = open_dataset(data).parts["train"]
    return run, run_cached, float(part.row_lengths().mean())


def guide_epoch(data: Path, batch_size: int, *, dense: bool) -> Callable[[], int]:
    """A function that trains one epoch as the guide does: dense batches from a generator, `Model.fit`.

    With `dense` the whole matrix is dense in memory; else it is sparse, and each batch is made dense.
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
    """Examples a second in one call."""
    began = time.perf_counter()
    examples = run()
    return examples / (time.perf_counter() - began)


def measure(ours: Callable[..., None], others: list[Run], *, num_rounds: int) -> list[list[float]]:
    """Samples/s of an epoch of distrain and of each other, in turn."""
    rounds: list[list[float]] = []
    ours(num_rounds, lambda speed: rounds.append([speed, *map(samples_per_second, others)]))
    return rounds


def main() -> None:
    """Prepare, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, help="folder with train.csv and test.csv")
    parser.add_argument("--rows", type=int, default=20_000, help="rows of made-up text")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[128, 512])
    parser.add_argument("--words", type=int, default=45, help="words in a row of made-up text")
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
            for place, (name, speed) in enumerate(zip(["distrain", *runs], speeds, strict=True)):
                ratio = statistics.median(row[0] / row[place] for row in rounds)
                print(f"  {name:18} {speed:9,.0f} samples/s" + (f", distrain / it {ratio:.2f}" if place else ""))


if __name__ == "__main__":
    main()
