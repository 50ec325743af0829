"""Data workers give what the process itself reads: in order, with the same errors, and only a little ahead."""

from __future__ import annotations

import os
import pickle
import signal
import time
from concurrent.futures import CancelledError
from dataclasses import replace

import numpy as np
import pytest
from worker_sources import Deadly, Numbered, Ranged, doubled, noisy, same, unlucky
from written_formats import arrays, write_parquet

from distrain import formats
from distrain.data import shuffle
from distrain.data.batches import epoch_batches
from distrain.data.by_position.array_source import ArraySource
from distrain.data.by_position.transforms import Transform
from distrain.data.plan import EpochPlan
from distrain.data.positional import positional_examples
from distrain.data.sources import array_examples
from distrain.data.workers.messages import _pickled
from distrain.data.workers.pool import WorkerPool
from distrain.data.workers.process import WORKER_VARIABLE, refuse_in_worker, worker_setup
from distrain.data.workers.reading import AHEAD
from distrain.errors import ConfigurationError, DataError, RankError

COUNT = 203


def batches(examples, *, epoch=0, rank=0, size=1, batch_size=9):
    plan = EpochPlan(examples.num_examples, size, batch_size)
    order = examples.order(seed=5, epoch=epoch)
    found = epoch_batches(examples, plan, order, replicas=range(rank, rank + 1), epoch=epoch)
    return [(batch.features.tobytes(), batch.labels.tobytes()) for (batch,) in found]


def in_small_windows(source, function, workers=None):
    transform = None if function is None else Transform(function, seed=3)
    examples = positional_examples(source, transform=transform, name="train", workers=workers)
    return replace(examples, window_size=60, span_size=20)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Examples that the process reads itself, beside the same read by two workers; they have two sources more."""
    path = tmp_path_factory.mktemp("mapped") / "x.npy"
    np.save(path, np.arange(COUNT * 6, dtype=np.float64).reshape(COUNT, 6))
    mapped = np.load(path, mmap_mode="r")
    listed = [Numbered(COUNT)[number] for number in range(COUNT)]
    arrays = tuple(np.array(values) for values in zip(*listed, strict=True))
    cases = [
        (Numbered(COUNT), None),
        (Numbered(COUNT), noisy),
        (Ranged(COUNT), noisy),
        (listed, noisy),
        (ArraySource(*arrays), noisy),
        (ArraySource(mapped[2:, 1:3], np.arange(COUNT - 2)), doubled),
        (Numbered(COUNT), unlucky),
        (Ranged(COUNT, fails_at=199), doubled),
    ]
    with WorkerPool(2) as workers:
        found = [(in_small_windows(*case), in_small_windows(*case, workers)) for case in cases]
        workers.start()
        yield found


@pytest.mark.parametrize("case", range(6))
def test_batches_are_those_of_the_process_itself(pairs, case):
    own, by_workers = pairs[case]
    assert batches(own, epoch=1) == batches(by_workers, epoch=1)
    for rank in range(3):
        assert batches(own, rank=rank, size=3) == batches(by_workers, rank=rank, size=3)
    assert own.digest == by_workers.digest


@pytest.mark.parametrize("case", [6, 7])
def test_an_error_reads_as_that_of_the_process_itself(pairs, case):
    messages = []
    for examples in pairs[case]:
        with pytest.raises(DataError) as caught:
            batches(examples)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert "example 77" in messages[0] or "199" in messages[0]


def test_an_epoch_that_is_left_early_and_two_at_once_do_no_harm(pairs):
    own, by_workers = pairs[1]
    plan, order = EpochPlan(COUNT, 1, 9), by_workers.order(seed=5, epoch=0)
    left = epoch_batches(by_workers, plan, order, replicas=range(1))
    next(left)
    other = batches(pairs[2][1])
    del left
    assert other == batches(pairs[2][0])
    assert batches(by_workers) == batches(own)


def test_workers_read_a_bounded_number_of_examples_ahead(tmp_path):
    log = tmp_path / "log"
    with WorkerPool(1) as workers:
        examples = positional_examples(Numbered(2000, seconds=0.01, log=str(log)), workers=workers)
        workers.start()
        log.unlink()
        rows = examples.load(np.array([[0, 2000]]), np.arange(2000))
        rows(0, 8)
        read = [0, len(log.read_text().splitlines())]
        while read[-1] != read[-2]:  # until the worker rests
            time.sleep(0.3)
            read.append(len(log.read_text().splitlines()))
        assert 8 < read[-1] <= (AHEAD + 1) * 16
        assert {line.split()[0] for line in log.read_text().splitlines()} != {str(os.getpid())}


@pytest.mark.parametrize(
    ("ends_by", "words"),
    [
        (signal.SIGKILL, r"data worker 1 of 1 was killed by SIGKILL while it read .* of train\. Most often memory"),
        (None, "data worker 1 of 1 ended with exit code 9 while it read .* Code of the source or of map= ended"),
    ],
)
def test_a_lost_worker_is_told_at_once(ends_by, words):
    with WorkerPool(1) as workers:
        examples = positional_examples(Deadly(100, 50, ends_by), name="train", workers=workers)
        workers.start()
        started = time.monotonic()
        with pytest.raises(RankError, match=words):
            batches(examples)
        assert time.monotonic() - started < 60
        with pytest.raises(RankError, match=words):
            batches(examples)


def test_what_cannot_travel_is_refused_in_a_sentence(monkeypatch):
    class Local(Numbered):
        pass

    for source, function, words in [
        (Local(9), None, r"^train cannot be sent to data workers: .*Local.*top level of a module"),
        (Numbered(9), lambda example: example, r"^map= of train cannot be sent to data workers: .*lambda"),
    ]:
        with WorkerPool(1) as workers:
            in_small_windows(source, function, workers)
            with pytest.raises(ConfigurationError, match=words):
                workers.start()
    monkeypatch.delattr("__main__.__file__", raising=False)  # a process of pytest-xdist has none
    with pytest.raises(ConfigurationError, match="in a notebook or an interactive session"):
        worker_setup(needs_main=True)
    monkeypatch.setenv(WORKER_VARIABLE, "1")
    with pytest.raises(ConfigurationError, match=r'calls distrain.fit while .* under if __name__ == "__main__"'):
        refuse_in_worker()


def test_a_mapped_array_travels_as_the_name_of_its_file(tmp_path):
    values = np.arange(60_000.0).reshape(600, 100)
    np.save(tmp_path / "x.npy", values)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for array, wanted in [(mapped, values), (mapped[17:500], values[17:500]), (mapped[17:500][3], values[20])]:
        packed = _pickled({"x": array})
        assert len(packed) < 1000
        found = pickle.loads(packed)["x"]
        assert isinstance(found, np.memmap)
        np.testing.assert_array_equal(found, wanted)
    for array in (mapped[:, 3:5], mapped[[4, 2]], np.load(tmp_path / "x.npy", mmap_mode="c")):
        np.testing.assert_array_equal(pickle.loads(_pickled(array)), array)


def test_without_anything_to_do_no_worker_starts():
    with WorkerPool(2) as workers:
        positional_examples([Numbered(9)[number] for number in range(9)], workers=workers)
        workers.start()
        assert not workers.is_running


def test_a_pool_that_is_closed_leaves_nobody_waiting():
    with WorkerPool(1) as workers:
        reader = positional_examples(Numbered(COUNT), transform=Transform(doubled, seed=3), workers=workers)
        workers.start()
        rows = reader.load(np.array([[0, COUNT]]), np.arange(COUNT))
        rows(0, 3)
    with pytest.raises(CancelledError):
        rows(50, 60)


def test_workers_read_shuffled_row_groups_from_their_copy(tmp_path, monkeypatch, cache_folder):
    monkeypatch.setattr(shuffle, "SHUFFLE_WINDOW", 256)
    monkeypatch.setattr(shuffle, "SHUFFLE_SPAN", 8)
    source = formats.parquet(write_parquet(tmp_path))
    with WorkerPool(2) as workers:
        examples = positional_examples(source, transform=Transform(same, seed=0), workers=workers)
        workers.start()
        assert batches(examples) == batches(array_examples(*arrays()))
    assert list(cache_folder.glob("remote-1/*/0-*"))
