"""A figure of several numbers reads as a list; a long one is cut."""

from __future__ import annotations

import pytest

from distrain.reporting.console import epoch_line


@pytest.mark.parametrize(
    ("figure", "text"),
    [
        (0.5, "0.5000"),
        (0.0, "0.0000"),
        (0.000123, "1.23e-04"),
        ([0.5, 0.25], "[0.5000 0.2500]"),
        ([1.0] * 9, f"[{'1.0000 ' * 8}...]"),
        ([], "[]"),
    ],
)
def test_an_epoch_names_each_figure_but_not_the_learning_rate(figure, text):
    line = epoch_line(1, 2, {"f1": figure, "learning_rate": 0.1}, samples_per_second=10.0, seconds=1.0)
    assert line == f"epoch 1/2  f1 {text}  10 samples/s  1.0 s"
