"""Line charts as SVG text for an HTML page.

Decides: how lines, marks and axes look. Never: which values a chart shows, or which text surrounds it.

    svg = line_chart([Series([1, 2, 3], [0.9, 0.5, 0.4], colour="var(--run-0)")])

A chart holds numbers only, and no text from a user. Its colours are CSS, so the page chooses them, light or dark. The
same values give the same bytes: no date, fixed ids.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any

WIDTH, HEIGHT = 460, 250  # in CSS pixels at scale 1, chosen so that ticks can be read on a phone
_CHARACTER_WIDTH = 6.5  # CSS pixels of a digit in the text of ticks, which has 11
_POINTS = 72 / 96  # a point of matplotlib in CSS pixels
_TEXT, _GRID = "var(--soft)", "var(--line)"
_FIRST_PLACEHOLDER = 0xA00000  # matplotlib knows no CSS colours, so it draws in placeholders


@dataclass(frozen=True)
class Series:
    """One line.

    Attributes:
        x: Positions on the horizontal axis, ascending.
        y: Values; NaN breaks the line.
        colour: CSS colour of the line.
        dashed: Draw dashes instead of a full line.
        faint: Draw a thin and pale line, for raw values behind their mean.
    """

    x: Sequence[float]
    y: Sequence[float]
    colour: str
    dashed: bool = False
    faint: bool = False


@dataclass(frozen=True)
class ChartMark:
    """A mark on a chart.

    Attributes:
        kind: "best" draws a ring at (x, y), "resume" a vertical line at x, "checkpoint" a tick on the axis at x.
        x: Position on the horizontal axis.
        colour: CSS colour of the mark.
        y: Value at the ring.
    """

    kind: str
    x: float
    colour: str
    y: float = 0.0


def line_chart(series: Sequence[Series], marks: Sequence[ChartMark] = (), *, from_zero: bool = False) -> str:
    """Draw lines over a common horizontal axis of whole numbers.

    Args:
        series: Lines, drawn in this order.
        marks: Marks, drawn over the lines.
        from_zero: Start the vertical axis at 0.

    Returns:
        An `<svg>` element of 460 x 250 CSS pixels that scales to the width of its container.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    drawn_colours = [line.colour for line in series] + [mark.colour for mark in marks]
    colours = dict.fromkeys([_TEXT, _GRID, *drawn_colours])
    placeholder = {colour: f"#{_FIRST_PLACEHOLDER + number:06x}" for number, colour in enumerate(colours)}
    settings: Any = {"svg.fonttype": "none", "svg.hashsalt": "distrain", "font.size": 11 * _POINTS}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(WIDTH / 96, HEIGHT / 96))
        axes = figure.add_subplot()
        for line in series:
            _draw_line(axes, line, placeholder[line.colour])
        if from_zero:
            axes.set_ylim(bottom=0)
        for mark in marks:
            _draw_mark(axes, mark, placeholder[mark.colour])
        axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short_number(value)))
        axes.grid(axis="y", color=placeholder[_GRID], linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, labelcolor=placeholder[_TEXT], pad=5)
        axes.spines[:].set_visible(False)
        axes.spines["bottom"].set(visible=True, color=placeholder[_GRID])
        _set_margins(figure, axes)
        drawn = StringIO()
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(drawn, format="svg", transparent=True, metadata=nothing)
    return _as_element(drawn.getvalue(), {code: colour for colour, code in placeholder.items()})


def _set_margins(figure: Any, axes: Any) -> None:
    """Leave room for the labels of the ticks.

    Matplotlib's own layouts draw the chart twice more, for the sizes of text in a font that the page does not use.
    """
    longest = max(len(short_number(tick)) for tick in axes.get_yticks())
    left = longest * _CHARACTER_WIDTH + 12  # a wide font must not be cut
    figure.subplots_adjust(left=left / WIDTH, right=1 - 14 / WIDTH, bottom=22 / HEIGHT, top=1 - 8 / HEIGHT)


def short_number(value: float) -> str:
    """Return a number in about five characters: 0.125, 1,250, 41k, 1.2M."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            scaled = value / (1e3 if suffix == "k" else size)
            return f"{scaled:,.3g}{suffix}" if abs(scaled) < 1e3 else f"{scaled:.1e}{suffix}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _draw_line(axes: Any, line: Series, colour: str) -> None:
    drawable = sum(map(math.isfinite, line.y))
    axes.plot(
        line.x,
        line.y,
        color=colour,
        linestyle=(0, (4, 2.5)) if line.dashed else "-",
        linewidth=0.8 if line.faint else 1.6,
        alpha=0.45 if line.faint else 1,
        marker="o" if not line.faint and drawable <= 40 else None,  # a single point has no line
        markersize=3,
        solid_joinstyle="round",
    )


def _draw_mark(axes: Any, mark: ChartMark, colour: str) -> None:
    if mark.kind == "best":
        axes.plot([mark.x], [mark.y], "o", markersize=9, markerfacecolor="none", markeredgewidth=1.4, color=colour)
    elif mark.kind == "resume":
        axes.axvline(mark.x, color=colour, linewidth=1, linestyle=(0, (1, 2)))
    else:
        along_axis = axes.get_xaxis_transform()
        axes.plot([mark.x], [0], "|", markersize=7, color=colour, transform=along_axis, clip_on=False)


def _as_element(svg: str, colours: dict[str, str]) -> str:
    """Turn Matplotlib's file into an element of a page: without prolog and styles, in the page's font and colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<svg [^>]*>", f'<svg viewBox="0 0 {WIDTH * _POINTS:g} {HEIGHT * _POINTS:g}" role="img">', svg)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)  # nothing refers to these ids, and every chart repeats them
    svg = re.sub(r"font-family: [^;\"]*; |font: [^;\"]*?(?=[\d.]+px)", "", svg)
    svg = re.sub(r"#a000[0-9a-f]{2}", lambda code: colours[code.group()], svg)
    svg = re.sub(r'"[^"]*"', lambda value: re.sub(r"(\d\.\d{2})\d+", r"\1", value.group()), svg)  # but no label
    return re.sub(r"\s+", " ", svg)
