"""Prefetching: order, errors, the end of the thread, and the number of items made ahead."""

from __future__ import annotations

import itertools
import threading

import numpy as np
import pytest

from distrain.data.prefetch import PREFETCH_BYTES, prefetched


def test_prefetching_keeps_the_order_and_ends():
    with prefetched(iter(range(50)), depth=3) as items:
        assert list(items) == list(range(50))


def prefetch_threads():
    return [thread for thread in threading.enumerate() if thread.name == "distrain-prefetch"]


def test_an_error_reaches_the_consumer_after_earlier_items():
    def items():
        yield 1
        yield 2
        raise OSError("disk is gone")

    seen = []
    with pytest.raises(OSError, match="disk is gone"), prefetched(items()) as source:
        seen.extend(source)
    assert seen == [1, 2]
    assert prefetch_threads() == []


def test_closing_early_ends_the_thread():
    made = []

    def items():
        for number in itertools.count():
            made.append(number)
            yield number

    with prefetched(items(), depth=2) as source:
        assert next(source) == 0
        assert len(prefetch_threads()) == 1
    assert prefetch_threads() == []
    assert len(made) <= 5  # 1 consumed, 2 ready, 1 blocked, and 1 made while closing


@pytest.mark.parametrize(("size", "ahead"), [(PREFETCH_BYTES, 4), (PREFETCH_BYTES // 16, 16), (1, 64)])
def test_more_small_batches_are_made_ahead(size, ahead):
    made = threading.Semaphore(0)

    def items():
        while True:
            made.release()
            yield [{"x": np.zeros(size, np.uint8)}]

    with prefetched(items()) as source:
        next(source)
        for _ in range(ahead + 1):  # 1 consumed, and the ready items
            assert made.acquire(timeout=10)
        made.acquire(timeout=0.3)  # one more may be in the making
        assert not made.acquire(timeout=0.3)
