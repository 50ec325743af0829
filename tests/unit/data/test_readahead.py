"""What is read from disk, and when: asked of the system, page by page."""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from pathlib import Path

import numpy as np
import pytest

from distrain.aligned_memory import address_of
from distrain.data.batches import epoch_batches
from distrain.data.dataset_index import open_dataset
from distrain.data.dataset_writer import DatasetWriter
from distrain.data.plan import EpochPlan
from distrain.data.readahead import read_ahead, read_on_request
from distrain.data.rows import Rows
from distrain.data.shuffle import epoch_order
from distrain.data.sources import array_examples

PAGES = 1200
NUMBERS = mmap.PAGESIZE // 4  # in a page


def in_memory(array):
    """Of each page of a mapped array whether it is in memory."""
    first = address_of(array) & -mmap.PAGESIZE
    size = address_of(array) + array.nbytes - first
    pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    assert ctypes.CDLL(None).mincore(ctypes.c_void_p(first), ctypes.c_size_t(size), pages) == 0
    return np.frombuffer(pages, np.uint8) & 1 == 1


def pages_of(array, start, stop):
    """The pages of elements start up to stop."""
    begin = address_of(array) % mmap.PAGESIZE
    return range((begin + 4 * start) // mmap.PAGESIZE, -(-(begin + 4 * stop) // mmap.PAGESIZE))


def forget(path):
    """Take a file out of the system's memory."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def wait_for(array, pages):
    """Wait until the pages are in memory."""
    for _ in range(500):
        if in_memory(array)[list(pages)].all():
            return
        time.sleep(0.01)
    pytest.fail("the pages were not read")


@pytest.fixture
def numbers(tmp_path):
    """An array in a file of which nothing is in memory."""
    path = tmp_path / "numbers.npy"
    np.save(path, np.arange(PAGES * NUMBERS, dtype=np.int32))
    array = np.lib.format.open_memmap(path, mode="r")
    forget(path)
    if in_memory(array)[1:].any():
        pytest.skip("this file system keeps files in memory, whatever one says")
    return array


def test_runs_are_read_ahead_and_nothing_else(numbers):
    runs = [(100 * NUMBERS, 130 * NUMBERS + 1), (200 * NUMBERS, 200 * NUMBERS), (300 * NUMBERS, 301 * NUMBERS)]
    read_on_request(numbers)
    read_ahead(numbers, runs)
    wanted = sorted({page for start, stop in runs if start < stop for page in pages_of(numbers, start, stop)})
    wait_for(numbers, wanted)
    assert np.flatnonzero(in_memory(numbers)).tolist() == wanted


def test_what_is_touched_is_read_alone_where_that_was_asked_for(numbers):
    read_on_request(numbers)
    assert numbers[200 * NUMBERS] == 200 * NUMBERS
    assert in_memory(numbers)[1:].sum() == 1


def test_views_of_a_mapped_array_are_found(numbers):
    view = np.asarray(numbers)[50 * NUMBERS :].reshape(-1, NUMBERS)
    read_on_request(view)
    read_ahead(view, [(50, 52)])
    wait_for(numbers, [101, 102])


def test_arrays_in_memory_and_in_another_order_are_left_alone(numbers):
    read_ahead(np.arange(5), [(0, 5)])
    read_on_request(np.arange(5))
    before = in_memory(numbers).sum()
    read_on_request(numbers)
    read_ahead(numbers.reshape(NUMBERS, PAGES).T, [(0, PAGES)])
    time.sleep(0.1)
    assert in_memory(numbers).sum() == before


def test_rows_that_are_expected_are_read_and_nothing_around_them(tmp_path):
    lengths = np.full(2000, NUMBERS // 2)
    splits = np.concatenate([[0], np.cumsum(lengths)])
    columns = np.tile(np.arange(NUMBERS // 2, dtype=np.int32), 2000)
    rows = Rows(splits, columns, np.ones(len(columns), np.float32), np.zeros(2000, np.int32))
    writer = DatasetWriter(tmp_path, kind="ngram", num_features=NUMBERS, classes=["a", "b"])
    writer.write("train", [rows])
    writer.write("test", [])
    writer.finish()
    part = open_dataset(tmp_path).parts["train"]
    stems = [f"train-00000.{name}.npy" for name in ("columns", "values")]
    arrays = [np.lib.format.open_memmap(tmp_path / stem, mode="r") for stem in stems]
    for stem in stems:
        forget(tmp_path / stem)
    if in_memory(arrays[0])[1:].any():
        pytest.skip("this file system keeps files in memory, whatever one says")
    runs = [(400, 420), (900, 910)]
    part.will_need(np.array(runs))
    for array in arrays:
        wanted = [page for run in runs for page in pages_of(array, *(row * NUMBERS // 2 for row in run))]
        wait_for(array, wanted)
        found = np.flatnonzero(in_memory(array))
        assert found[found > 100].tolist() == wanted  # headers were read with what is behind them
    rows = part.read(1500, 1501)
    assert rows.values.sum() == len(rows.columns) == NUMBERS // 2
    for array in arrays:
        wanted = pages_of(array, 1500 * NUMBERS // 2, 1501 * NUMBERS // 2)
        found = np.flatnonzero(in_memory(array))
        assert found[found > 600].tolist() == list(wanted)  # and nothing around them


def test_each_block_is_expected_before_it_is_loaded():
    told = []
    examples = array_examples(np.arange(100, dtype=np.float32)[:, None], np.arange(100))

    def load(runs, chosen, memory=None):
        if len(runs) > 1:  # else what an idle replica is fed
            told.append(("load", runs.tolist()))
        return examples.load(runs, chosen)

    watched = type(examples)(100, load, {}, "", will_need=lambda runs: told.append(("expect", runs.tolist())))
    order = epoch_order(100, seed=0, epoch=0, block=30, run=5)
    plan = EpochPlan(100, 2, 5, first_position=37)
    list(epoch_batches(watched, plan, order, replicas=range(2)))
    blocks = [order.window_of(position).spans.tolist() for position in (30, 60, 90)]
    begun = [("expect", blocks[0]), ("load", blocks[0]), ("expect", blocks[1]), ("load", blocks[1])]
    assert told == [*begun, ("expect", blocks[2]), ("load", blocks[2]), ("expect", [])]


def test_memory_maps_of_a_user_are_expected_too(numbers):
    images = numbers.reshape(PAGES, NUMBERS)
    examples = array_examples({"image": images, "age": np.zeros(PAGES)}, np.zeros(PAGES, np.int32))
    forget(Path(numbers.filename))  # its first and last rows were read, to tell it from other data
    wanted = pages_of(numbers, 600 * NUMBERS, 601 * NUMBERS)
    assert not in_memory(numbers)[list(wanted)].any()
    examples.will_need(np.array([[600, 601]]))
    wait_for(numbers, wanted)
