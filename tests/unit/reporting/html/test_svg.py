"""A chart is SVG with CSS colours, the same at each drawing."""

from __future__ import annotations

import math

import pytest

from distrain.reporting.html.svg import ChartMark, Series, line_chart, short_number


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.125, "0.125"), (1250, "1,250"), (41_000, "41k"), (1.2e6, "1.2M"), (3e9, "3G"), (-41_000, "-41k"), (0, "0")],
)
def test_numbers_on_an_axis_are_short(value, text):
    assert short_number(value) == text


def test_a_chart_has_css_colours_and_no_matplotlib_styles():
    series = [
        Series([1, 2, 3], [0.9, math.nan, 0.4], colour="var(--run-0)", dashed=True),
        Series([1], [0.5], colour="var(--run-1)", faint=True),
    ]
    marks = [ChartMark(kind, 2, "var(--run-2)", 0.5) for kind in ("best", "resume", "checkpoint")]
    svg = line_chart(series, marks, from_zero=True)
    assert svg.startswith("<svg viewBox=")
    for colour in ("var(--run-0)", "var(--run-1)", "var(--run-2)", "var(--soft)", "var(--line)"):
        assert colour in svg
    for trace in ("#a000", "<style", "<metadata", "font-family"):
        assert trace not in svg
    assert line_chart(series, marks, from_zero=True) == svg
