"""The bar shows the values that fit, with the rate and the time that remains."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from distrain.reporting.progress_bar import ProgressBar, RatePoint


def shown(width, metrics, began, now):
    output = io.StringIO()
    bar = ProgressBar(Console(file=output, width=width, force_terminal=True, color_system=None))
    bar.show("epoch 1/3", 50, 200, metrics, began, now)
    bar.close()
    return output.getvalue()


def test_rate_and_remaining_time_come_from_the_span():
    line = shown(80, {"loss": 0.5}, RatePoint(100.0, 10, 640), RatePoint(110.0, 50, 3200))
    assert "50/200  loss 0.5000  256/s  0:38 left" in line


def test_without_a_span_there_is_no_rate():
    point = RatePoint(100.0, 10, 640)
    assert "left" not in shown(80, {"loss": 0.5}, point, point)
    assert math.isnan(point.samples_per_second_since(point))


@pytest.mark.parametrize(("width", "fits"), [(60, True), (40, False)])
def test_values_that_do_not_fit_are_left_out(width, fits):
    point = RatePoint(100.0, 10, 640)
    assert ("accuracy 0.2500" in shown(width, {"loss": 0.5, "accuracy": 0.25}, point, point)) is fits


@pytest.mark.parametrize(("seconds_a_step", "text"), [(0.02, "0:03"), (5, "12:30"), (30, "1:15:00")])
def test_the_remaining_time_reads_as_a_clock(seconds_a_step, text):
    line = shown(80, {}, RatePoint(0.0, 40, 0), RatePoint(10 * seconds_a_step, 50, 640))
    assert f"{text} left" in line


@pytest.mark.parametrize(("width", "fits"), [(60, True), (48, False)])
def test_the_learning_rate_is_the_first_value_to_go(width, fits):
    point = RatePoint(100.0, 10, 640)
    line = shown(width, {"loss": 0.5, "learning_rate": 0.00025}, point, point)
    assert "loss 0.5000" in line
    assert ("rate 0.00025" in line) is fits
