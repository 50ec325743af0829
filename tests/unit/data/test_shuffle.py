"""The shuffled order: a permutation that depends on seed and epoch alone, of few spans per window."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distrain.data.shuffle import epoch_order, stable_order
from distrain.errors import ConfigurationError

counts = st.integers(0, 120)
seeds = st.integers(0, 2**64 - 1)
epochs = st.integers(0, 2**40)


def pieces_of(items, size):
    return [items[start : start + size] for start in range(0, len(items), size)]


def order_of(n, *, seed=0, epoch=0, **settings):
    return epoch_order(n, seed=seed, epoch=epoch, **settings).examples(range(n)).tolist()


@given(st.lists(st.integers(0, 9), max_size=40) | st.lists(st.integers(0, 2**64 - 1), max_size=40))
def test_stable_order_sorts_equal_keys_stably(keys):
    order = stable_order(np.array(keys, np.uint64))
    assert order.tolist() == sorted(range(len(keys)), key=keys.__getitem__)


@given(counts, seeds, epochs, st.integers(1, 60), st.integers(1, 12), st.data())
def test_any_slices_of_the_order_agree(n, seed, epoch, window_size, span_size, data):
    settings = {"seed": seed, "epoch": epoch, "window_size": window_size, "span_size": span_size}
    whole = epoch_order(n, **settings).examples(range(n)).tolist()
    order = epoch_order(n, **settings)
    for _ in range(4):
        start, stop = sorted([data.draw(st.integers(0, n)), data.draw(st.integers(0, n))])
        assert order.examples(range(start, stop)).tolist() == whole[start:stop]


def test_epochs_and_seeds_differ_and_repeat():
    orders = {(seed, epoch): tuple(order_of(500, seed=seed, epoch=epoch)) for seed in range(5) for epoch in range(5)}
    assert len(set(orders.values())) == 25
    assert tuple(order_of(500, seed=3, epoch=4)) == orders[3, 4]


def test_the_order_never_changes_between_releases():
    assert order_of(12, seed=7, epoch=2) == [1, 9, 10, 3, 8, 0, 11, 6, 4, 7, 5, 2]
    assert order_of(12, seed=7, epoch=2, window_size=4, span_size=2) == [9, 1, 8, 0, 10, 11, 3, 2, 5, 6, 7, 4]
    assert order_of(5, seed=7, epoch=2, shuffle=False) == [0, 1, 2, 3, 4]


def test_small_data_is_shuffled_in_one_window():
    order = epoch_order(60_000, seed=1, epoch=0)
    assert order.window_of(0).size == 60_000
    # The first tenth of the epoch draws about 600 examples from each tenth of the data, sigma about 22.
    tenths = np.histogram(order.examples(range(6_000)), bins=10, range=(0, 60_000))[0]
    assert np.all(np.abs(tenths - 600) < 5 * 22)


@given(st.integers(1, 600), seeds)
def test_a_window_has_few_spans(n, seed):
    window_size, span_size = 64, 8
    order = order_of(n, seed=seed, window_size=window_size, span_size=span_size)
    for part in pieces_of(order, 32):  # half as long as a window, so in at most two windows
        assert len({example // span_size for example in part}) <= 2 * (window_size // span_size)
    whole = epoch_order(n, seed=seed, epoch=0, window_size=window_size, span_size=span_size)
    for start in range(0, n, window_size):
        window = whole.window_of(start)
        assert window.size <= window_size
        assert len(window.spans) <= window_size // span_size


def test_windows_mix_distant_parts_of_the_data():
    order = order_of(6_400, seed=5, window_size=640, span_size=64)
    halves = [sum(example < 3_200 for example in part) / 640 for part in pieces_of(order, 640)]
    assert len({round(half, 3) for half in halves}) > 1
    assert all(0 < half < 1 for half in halves)


@pytest.mark.parametrize(
    "wrong", [{"span_size": 0}, {"window_size": 0}, {"seed": -1}, {"seed": 2**64}, {"epoch": -1}, {"span_size": -3}]
)
def test_numbers_out_of_range_are_refused(wrong):
    (name,) = wrong
    with pytest.raises(ConfigurationError, match=f"{name} is {wrong[name]}, but it must be at least"):
        epoch_order(10, **{"seed": 0, "epoch": 0} | wrong)
