"""The audit of a plan refuses every break of the plan, the order or the loader that loses or repeats an example."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from distrain.data.plan import EpochPlan
from distrain.data.shuffle import ShuffledOrder
from distrain.data.window_reader import WindowReader
from distrain.errors import DataError
from distrain.planning import audit as auditing
from distrain.planning.audit import audit

POSITIONS = EpochPlan.positions
POSITIONS_BETWEEN = EpochPlan.positions_between
WINDOW_OF = ShuffledOrder.window_of
LOAD = WindowReader.load


def planned(num_examples=90, num_replicas=3, batch_size=7):
    return EpochPlan(num_examples, num_replicas, batch_size)


@given(st.integers(1, 400), st.integers(1, 9), st.integers(1, 40), st.integers(0, 2**64 - 1), st.integers(0, 9))
@settings(max_examples=40)
def test_every_plan_passes(num_examples, num_replicas, batch_size, seed, epoch):
    audit(planned(num_examples, num_replicas, batch_size), seed=seed, epoch=epoch)


@pytest.mark.parametrize("is_terminal", [True, False])
def test_only_a_terminal_shows_progress(is_terminal):
    output = io.StringIO()
    audit(planned(), seed=0, epoch=0, console=Console(file=output, force_terminal=is_terminal))
    assert ("audit of epoch 1" in output.getvalue()) == is_terminal


@pytest.fixture
def small_windows(monkeypatch):
    """Several windows in 90 examples; the last window is short."""
    epoch_order = auditing.epoch_order
    monkeypatch.setattr(auditing, "epoch_order", lambda *a, **k: epoch_order(*a, **k, window_size=20, span_size=5))


def test_windows_shorter_than_a_step_pass(small_windows):
    audit(planned(), seed=5, epoch=1)
    audit(planned(num_examples=91, num_replicas=13, batch_size=2), seed=5, epoch=1)


def without_the_last(self, start, stop, replicas):
    return POSITIONS_BETWEEN(self, start, stop, replicas)[:-1]


def of_the_next_replica(self, start, stop, replicas):
    replica = (replicas.start + 1) % self.num_replicas
    return POSITIONS_BETWEEN(self, start, stop, range(replica, replica + 1))


def cut_at_whole_steps(self, start, stop, replicas):
    """Lose the last step of each window, which an audit with formulas of its own did not see."""
    last = stop - (stop - self.first_position) % self.global_batch_size
    return POSITIONS_BETWEEN(self, start, last, replicas)


def late_by_one(self, step, replica):
    positions = POSITIONS(self, step, replica)
    return range(min(positions.start + 1, self.num_examples), min(positions.stop + 1, self.num_examples))


def of_the_first_replica(self, step, replica):
    return POSITIONS(self, step, 0)


def never_first(self, step, replica):
    return POSITIONS(self, step, replica)[1:]


def one_step_less(self):
    return max(0, -(-self.num_batches // self.num_replicas) - 1)


def repeating(self, position):
    window = WINDOW_OF(self, position)
    permutation = window.permutation.copy()
    permutation[:2] = permutation[0]
    return window._replace(permutation=permutation)


def spans_of_the_first_window(self, position):
    window, first = WINDOW_OF(self, position), WINDOW_OF(self, 0)
    return window._replace(spans=first.spans) if window.size == first.size else window


def previous_window(self, window):
    """The reader keeps the first window that it loaded."""
    if self._rows is None:
        return LOAD(self, window)
    return self._rows


@pytest.mark.parametrize(
    ("owner", "name", "broken"),
    [
        (EpochPlan, "positions_between", without_the_last),
        (EpochPlan, "positions_between", of_the_next_replica),
        (EpochPlan, "positions_between", cut_at_whole_steps),
        (EpochPlan, "positions", late_by_one),
        (EpochPlan, "positions", of_the_first_replica),
        (EpochPlan, "positions", never_first),
        (EpochPlan, "num_steps", property(one_step_less)),
        (ShuffledOrder, "window_of", repeating),
        (ShuffledOrder, "window_of", spans_of_the_first_window),
        (WindowReader, "load", previous_window),
    ],
)
def test_each_break_of_the_loader_is_refused(monkeypatch, small_windows, owner, name, broken):
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises(DataError, match=r"In epoch 3 example \d+ is read \d+ times, and \d+ others"):
        audit(planned(), seed=0, epoch=2)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda numbers: np.where(numbers == 7, 8, numbers), "example 7 is read 0 times, and 1 others"),
        (lambda numbers: numbers % 45, "example 0 is read 2 times, and 89 others"),
    ],
)
def test_the_error_names_an_example(monkeypatch, spoil, words):
    load = auditing._load_example_numbers

    def spoiled(*arguments, **named):
        read = load(*arguments, **named)
        return lambda start, stop: (*map(spoil, read(start, stop)[:2]), ())

    monkeypatch.setattr(auditing, "_load_example_numbers", spoiled)
    with pytest.raises(DataError, match=f"epoch 3 {words}"):
        audit(planned(), seed=0, epoch=2)
