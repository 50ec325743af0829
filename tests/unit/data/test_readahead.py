"""Pages that the system reads from disk, as `mincore` reports them."""

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
from distrain.data.plan import EpochPlan
from distrain.data.prepared.dataset_index import open_dataset
from distrain.data.prepared.dataset_writer import DatasetWriter
from distrain.data.prepared.rows import Rows
from distrain.data.readahead import read_ahead, read_on_request
from distrain.data.shuffle import epoch_order
from distrain.data.sources import array_examples

PAGES = 1200
NUMBERS = mmap.PAGESIZE // 4  # per page


def in_memory(array):
    """Whether each page of a mapped array is in memory, bool `[pages]`."""
    first = address_of(array) & -mmap.PAGESIZE
    size = address_of(array) + array.nbytes - first
    pages = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
    assert ctypes.CDLL(None).mincore(ctypes.c_void_p(first), ctypes.c_size_t(size), pages) == 0
    return np.frombuffer(pages, np.uint8) & 1 == 1


def pages_of(array, start, stop):
    """Page numbers of elements start .. stop - 1."""
    begin = address_of(array) % mmap.PAGESIZE
    return range((begin + 4 * start) // mmap.PAGESIZE, -(-(begin + 4 * stop) // mmap.PAGESIZE))


def forget(path):
    """Evict a file from the page cache."""
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
    """A mapped array without any page in memory."""
    path = tmp_path / "numbers.npy"
    np.save(path, np.arange(PAGES * NUMBERS, dtype=np.int32))
    array = np.lib.format.open_memmap(path, mode="r")
    forget(path)
    if in_memory(array)[1:].any():
        pytest.skip("this file system ignores requests to evict files")
    return array


def test_only_spans_are_read_ahead(numbers):
    spans = [(100 * NUMBERS, 130 * NUMBERS + 1), (200 * NUMBERS, 200 * NUMBERS), (300 * NUMBERS, 301 * NUMBERS)]
    read_on_request(numbers)
    read_ahead(numbers, spans)
    wanted = sorted({page for start, stop in spans if start < stop for page in pages_of(numbers, start, stop)})
    wait_for(numbers, wanted)
    assert np.flatnonzero(in_memory(numbers)).tolist() == wanted


def test_reading_on_request_reads_single_pages(numbers):
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


def test_only_announced_rows_are_read_from_disk(tmp_path):
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
        pytest.skip("this file system ignores requests to evict files")
    spans = [(400, 420), (900, 910)]
    part.will_need(np.array(spans))
    for array in arrays:
        wanted = [page for span in spans for page in pages_of(array, *(row * NUMBERS // 2 for row in span))]
        wait_for(array, wanted)
        found = np.flatnonzero(in_memory(array))
        assert found[found > 100].tolist() == wanted  # reading the header also read the pages after the header
    rows = part.read(1500, 1501)
    assert rows.values.sum() == len(rows.columns) == NUMBERS // 2
    for array in arrays:
        wanted = pages_of(array, 1500 * NUMBERS // 2, 1501 * NUMBERS // 2)
        found = np.flatnonzero(in_memory(array))
        assert found[found > 600].tolist() == list(wanted)  # and no neighbouring pages


def test_each_window_is_announced_before_it_is_loaded():
    calls = []
    examples = array_examples(np.arange(100, dtype=np.float32)[:, None], np.arange(100))

    def load(spans, indices, memory=None, epoch=0):
        if len(spans) > 1:  # an idle replica loads a single example
            calls.append(("load", spans.tolist()))
        return examples.load(spans, indices)

    watched = type(examples)(100, load, {}, "", will_need=lambda spans: calls.append(("will_need", spans.tolist())))
    order = epoch_order(100, seed=0, epoch=0, window_size=30, span_size=5)
    plan = EpochPlan(100, 2, 5, first_position=37)
    list(epoch_batches(watched, plan, order, replicas=range(2)))
    windows = [order.window_of(position).spans.tolist() for position in (30, 60, 90)]
    begun = [("will_need", windows[0]), ("load", windows[0]), ("will_need", windows[1]), ("load", windows[1])]
    assert calls == [*begun, ("will_need", windows[2]), ("load", windows[2]), ("will_need", [])]


def test_memory_maps_of_a_user_are_announced_too(numbers):
    images = numbers.reshape(PAGES, NUMBERS)
    examples = array_examples({"image": images, "age": np.zeros(PAGES)}, np.zeros(PAGES, np.int32))
    forget(Path(numbers.filename))  # the digest read the first and last rows
    wanted = pages_of(numbers, 600 * NUMBERS, 601 * NUMBERS)
    assert not in_memory(numbers)[list(wanted)].any()
    examples.will_need(np.array([[600, 601]]))
    wait_for(numbers, wanted)
