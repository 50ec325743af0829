"""Measures training throughput of the sequence model, against `keras.Model.fit` on padded arrays in memory.

    python benchmarks/sequence_training.py [--rows 2560] [--turns 5] [--batch-size 128]

There are two sets of synthetic texts. One has 500 words per text. The other has the lengths of real reviews:
log-normal, half below 100, 130 on average, at most 500 words. The rival is the guide's sepCNN in stock
layers, on texts padded to 500. Both models have their default sizes, dropout and Adam.

distrain reads its texts from a memory-mapped data set and shuffles them each epoch. A third run trains on the same
batches made beforehand, which shows the cost of the loader. Epochs take turns, and the first epoch of each does not
count, because it compiles.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from distrain.batch import Batch
from distrain.config import TrainConfig
from distrain.data.batches import epoch_batches, sample_batch
from distrain.data.plan import EpochPlan
from distrain.data.prefetch import prefetched
from distrain.data.prepared.dataset_index import open_dataset
from distrain.data.prepared.dataset_writer import DatasetWriter
from distrain.data.prepared.rows import Rows
from distrain.data.row_kernels import pad_rows
from distrain.data.shuffle import epoch_order
from distrain.distribution.single import SingleDevice
from distrain.training.jobs.job import open_job
from distrain.training.steps.step import make_train_steps
from distrain.training.steps.task import batch_specs, make_task

MAX_LENGTH = 500
NUM_WORDS = 20_000
CLASSES = ["World", "Sports", "Business", "Sci/Tech"]
LENGTHS = ("all of 500 words", "as in real reviews")

Epoch = Callable[[], None]


def synthetic_rows(num_rows: int, lengths: str, seed: int) -> Rows:
    """Return texts whose words follow Zipf's law, with random labels."""
    rng = np.random.default_rng(seed)
    drawn = np.full(num_rows, MAX_LENGTH)
    if lengths != LENGTHS[0]:
        drawn = np.clip(rng.lognormal(np.log(100), 0.8, num_rows), 1, MAX_LENGTH).astype(np.int64)
    splits = np.concatenate([[0], np.cumsum(drawn)])
    words = rng.zipf(1.2, splits[-1]) % NUM_WORDS + 2
    return Rows(splits, words.astype(np.int32), None, rng.integers(0, len(CLASSES), num_rows).astype(np.int32))


def write_data(folder: Path, num_rows: int, lengths: str) -> None:
    """Write a prepared data set."""
    folder.mkdir()
    sizes = {"num_features": NUM_WORDS + 2, "classes": CLASSES, "max_length": MAX_LENGTH}
    writer = DatasetWriter(folder, kind="sequence", **sizes)
    writer.write("train", [synthetic_rows(num_rows, lengths, seed=0)])
    writer.write("test", [synthetic_rows(10, lengths, seed=1)])
    writer.finish(vectorizer=None)


def distrain_epochs(data: Path, batch_size: int) -> tuple[Epoch, Epoch]:
    """Return two functions that train an epoch: with the real loader, and on batches made beforehand."""
    job = open_job(TrainConfig(data=data, run=data / "run"))
    sample = sample_batch(job.train)
    single = SingleDevice()
    task = make_task(job.build, sample, scope=single.scope(), num_columns=job.train.num_columns)
    steps = make_train_steps(task, single, batch_specs(sample))
    plan = EpochPlan(job.train.num_examples, 1, batch_size)

    def made(epoch: int) -> list[list[Batch]]:
        order = epoch_order(plan.num_examples, seed=0, epoch=epoch)
        return list(epoch_batches(job.train, plan, order, replicas=range(1), epoch=epoch))

    epochs = iter(range(1_000_000))
    kept = made(0)

    def with_loader() -> None:
        epoch = next(epochs)
        order = epoch_order(plan.num_examples, seed=0, epoch=epoch)
        with prefetched(epoch_batches(job.train, plan, order, replicas=range(1), epoch=epoch)) as batches:
            for batch in batches:
                steps([batch])

    def beforehand() -> None:
        for batch in kept:
            steps([batch])

    return with_loader, beforehand


def keras_epoch(data: Path, batch_size: int) -> Epoch:
    """Return a function that trains the guide's model for an epoch on padded texts by `Model.fit`."""
    part = open_dataset(data).parts["train"]
    rows = part.read(0, part.num_rows)
    x = pad_rows(rows.row_splits, rows.columns, MAX_LENGTH)
    y = np.array(rows.labels)
    layers = keras.layers

    def convolution(filters: int) -> keras.layers.Layer:
        kernels = {"depthwise_initializer": "random_uniform", "bias_initializer": "random_uniform"}
        return layers.SeparableConv1D(filters, 3, activation="relu", padding="same", **kernels)

    model = keras.Sequential(
        [
            layers.Input((MAX_LENGTH,), dtype="int32"),
            layers.Embedding(NUM_WORDS + 2, 200),
            layers.Dropout(0.2),
            convolution(64),
            convolution(64),
            layers.MaxPooling1D(3),
            convolution(128),
            convolution(128),
            layers.GlobalAveragePooling1D(),
            layers.Dropout(0.2),
            layers.Dense(len(CLASSES), activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["acc"])
    return lambda: model.fit(x, y, batch_size=batch_size, epochs=1, verbose=0)


def seconds(epoch: Epoch) -> float:
    """Return the wall time of one call, in seconds."""
    began = time.perf_counter()
    epoch()
    return time.perf_counter() - began


def main() -> None:
    """Train in turn and print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=2560, help="texts in an epoch (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=128)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for number, lengths in enumerate(LENGTHS):
            data = Path(folder) / str(number)
            write_data(data, options.rows, lengths)
            epochs = [*distrain_epochs(data, options.batch_size), keras_epoch(data, options.batch_size)]
            for epoch in epochs:
                epoch()
            turns = [[seconds(epoch) for epoch in epochs] for _ in range(options.turns)]
            ours, beforehand, rival = (options.rows / statistics.median(column) for column in zip(*turns, strict=True))
            ratio = statistics.median(turn[2] / turn[0] for turn in turns)
            of_loader = statistics.median(turn[1] / turn[0] for turn in turns)
            words = open_dataset(data).parts["train"].row_lengths().mean()
            print(
                f"texts {lengths}, {words:.0f} on average, batch {options.batch_size}: distrain {ours:,.0f} samples/s; "
                f"keras.Model.fit {rival:,.0f}, ratio {ratio:.2f}; batches made beforehand {beforehand:,.0f}, the "
                f"loader keeps {of_loader:.3f} of that (medians of {options.turns} in turn)",
                flush=True,
            )


if __name__ == "__main__":
    main()
