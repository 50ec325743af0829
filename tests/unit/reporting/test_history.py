"""A log is read without the events that were lost, damaged lines and values that cannot be drawn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from reported_runs import read_strictly, write_log

from distrain.reporting.history import read_history
from distrain.reporting.metrics_log import MAX_LINE_BYTES


def test_a_cut_last_line_is_passed_over_and_then_cut_off(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_log(path, ("epoch", 10, 1), ("epoch", 20, 2))
    path.write_bytes(path.read_bytes()[:-15])
    history = read_history(path)
    assert [event["step"] for event in history.epochs] == [10]
    assert history.damaged_lines == 0
    write_log(path, ("epoch", 20, 2))
    assert [event["step"] for event in read_strictly(path)] == [10, 20]


def test_steps_that_were_lost_and_trained_again_count_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    first = [("step", 10, 1, ("loss", 1)), ("epoch", 10, 1, ("loss", 1)), ("checkpoint", 10, 1)]
    lost = [("step", 15, 2, ("loss", 2)), ("step", 18, 2, ("loss", 2)), ("checkpoint", 18, 2)]
    again = [
        ("resume", 10, 2),
        ("step", 12, 2, ("loss", 3)),
        ("step", 15, 2, ("loss", 3)),
        ("epoch", 20, 2, ("loss", 3)),
    ]
    write_log(path, *first, *lost, *again)
    history = read_history(path)
    assert [(event["step"], event["loss"]) for event in history.steps] == [(10, 1), (12, 3), (15, 3)]
    assert [event["step"] for event in history.epochs] == [10, 20]
    assert [event["step"] for event in history.checkpoints] == [10]
    assert [event["step"] for event in history.resumes] == [10]


def test_a_checkpoint_that_is_written_late_takes_no_step_back(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_log(path, ("step", 10, 1), ("step", 11, 1), ("step", 12, 1), ("checkpoint", 10, 1), ("step", 13, 1))
    history = read_history(path)
    assert [event["step"] for event in history.steps] == [10, 11, 12, 13]
    assert [event["step"] for event in history.checkpoints] == [10]


@given(st.lists(st.integers(0, 40), max_size=60))
def test_steps_read_are_those_that_nothing_later_took_back(tmp_path_factory, steps):
    path = tmp_path_factory.getbasetemp() / "metrics.jsonl"
    path.unlink(missing_ok=True)
    write_log(path, *(("step", step, 1) for step in steps))
    kept = [step for i, step in enumerate(steps) if all(later >= step for later in steps[i:])]
    assert [event["step"] for event in read_history(path).steps] == kept


@pytest.mark.parametrize(
    "line",
    [
        b"not json",
        b"[]",
        b'{"event": "epoch"}',
        b'{"event": "party", "step": 1, "epoch": 1}',
        b'{"event": "step", "step": -1, "epoch": 1}',
        b'{"event": "step", "step": true, "epoch": 1}',
        b'{"event": "step", "step": 1.5, "epoch": 1}',
        b'{"event": ["step"], "step": 1, "epoch": 1}',
        b'{"event": "step", "step": 1' + b"0" * 6000 + b', "epoch": 1}',
        b"[" * 60_000,
        b"\xff\xfe\x00",
        b"y" * (2 * MAX_LINE_BYTES + 5),
        b"",
    ],
)
def test_damaged_lines_are_passed_over_and_counted(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    write_log(path, ("epoch", 10, 1))
    path.write_bytes(line + b"\n" + path.read_bytes() + line + b"\n")
    history = read_history(path)
    assert [event["step"] for event in history.epochs] == [10]
    assert history.damaged_lines == 2


def test_values_that_cannot_be_drawn_are_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"event": "epoch", "step": 1, "epoch": 1, "loss": 1e999, "x": NaN, "y": {"z": 1}, "w": 1e200}\n')
    assert read_history(path).epochs == [{"event": "epoch", "step": 1, "epoch": 1, "x": None}]


def test_a_long_log_is_thinned_evenly(tmp_path):
    path = tmp_path / "metrics.jsonl"
    line = '{"event": "step", "step": %d, "epoch": 1, "time": 1.0, "loss": 0.5}\n'
    path.write_text("".join(line % step for step in range(3000)))
    steps = [event["step"] for event in read_history(path, capacity=100).steps]
    assert 50 <= len(steps) <= 100
    assert set(np.diff(steps)) == {steps[1] - steps[0]}
    assert steps[0] == 0
    assert steps[-1] > 2900
