"""The page shows the runs, needs no network, and escapes and bounds their text."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from reported_runs import make_run, reporter_into, write_log

from distrain.errors import CheckpointError, ConfigurationError
from distrain.reporting.html.charts import charts
from distrain.reporting.html.page import unique_names, write_report
from distrain.reporting.html.tables import MISSING
from distrain.reporting.run_history import load_run


class Page(HTMLParser):
    """Text, tags, and whether each tag is closed where it should be."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(path.read_text(encoding="utf-8"))
        assert self.open == []

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in {"href", "src", "xlink:href"}]
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list) -> None:
        self.handle_starttag(tag, attributes)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_needs_no_network_and_shows_the_key_figures(tmp_path):
    run = make_run(tmp_path / "run", learning_rate=0.00125)
    write_report([run], run / "report.html")
    page = Page(run / "report.html")
    assert page.tags.count("svg") == 3  # loss, accuracy, samples per second
    assert "script" not in page.tags
    assert "link" not in page.tags
    assert all(link.startswith("#") for link in page.links)
    assert not re.search(r"https?://|url\((?!#)|@import", (run / "report.html").read_text())
    for figure in ("0.8765", "best epoch 2", "all epochs are trained", "learning_rate", "0.00125"):
        assert figure in page.text


@pytest.mark.parametrize(("size", "lines", "title"), [(3, 3, "all 3"), (14, 12, "the first 12 of 14")])
def test_a_figure_of_several_values_is_drawn_line_by_line(size, lines, title, tmp_path):
    values = [[step + number / 64 for number in range(size)] for step in range(3)]
    events = [
        ("step", 5, 1, ("precision", values[0]), ("steps_per_epoch", 10)),
        *(("epoch", 10 * n, n, ("precision", values[n]), ("val_precision", [None, *values[n][1:]])) for n in (1, 2)),
    ]
    write_log(tmp_path / "metrics.jsonl", *events)
    chart = charts([load_run(tmp_path)])[0]
    assert chart.title == f"precision, {title} values"
    write_report([tmp_path], tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert "2.0000 2.0156 2.0312" in page.text
    assert f"{MISSING} 1.0156 1.0312" in page.text
    assert chart.svg.count("stroke-dasharray") == lines
    assert chart.svg.count("stroke: var(--run-1); stroke-width: 1.6") == lines - 1, "one has no number"


def test_a_page_draws_the_learning_rate_and_evaluations_within_an_epoch(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    events = [
        ("step", 5, 1, ("loss", 0.6), ("learning_rate", 0.002), ("steps_per_epoch", 10)),
        ("evaluate", 5, 1, ("val_loss", 0.75)),
        ("epoch", 10, 1, ("loss", 0.5), ("val_loss", 0.25), ("learning_rate", 0.00015)),
    ]
    write_log(run / "metrics.jsonl", *events)
    write_report([run], run / "report.html")
    page = Page(run / "report.html")
    assert page.tags.count("svg") == 3  # loss, learning rate, samples per second
    assert page.text.count("learning rate") == 2, "a chart and a column"
    assert "0.00015" in page.text
    assert "0.0005" in page.text, "a label of the chart is not cut"
    (run / "metrics.jsonl").unlink()
    write_log(run / "metrics.jsonl", *(event for event in events if event[0] != "evaluate"))
    loss, *others = (chart.svg in (run / "report.html").read_text() for chart in charts([load_run(run)]))
    assert all(others)
    assert not loss, "the validation within the epoch is drawn"


def test_runs_side_by_side_tell_what_differs(tmp_path):
    runs = [make_run(tmp_path / name / "run", learning_rate=rate, units=64) for name, rate in [("a", 0.1), ("b", 0.2)]]
    write_report(runs, tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    table = page.text.split("Settings that differ")[1].split("Epochs")[0]
    assert "learning_rate" in table
    assert "units" not in table
    assert "a/run" in page.text
    assert "b/run" in page.text


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_run_that_has_hardly_begun_is_shown(tmp_path, epochs):
    run = make_run(tmp_path / "run", epochs=epochs, summary=False)
    write_report([run], tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert ("Unfinished" if epochs else "Nothing to draw yet") in page.text


def test_text_of_a_run_is_escaped_and_cut(tmp_path):
    evil = "<script>alert(1)</script>\"'&"
    run = make_run(tmp_path / "<b>x", evil=evil, long="z" * 100_000, **{evil: {"nested": evil}})
    reporter, _ = reporter_into(run)
    with reporter:
        reporter.epoch(epoch=5, step=50, num_examples=1, seconds=1.0, logs={evil: 1.0, "$\\frac{": 2.0})
        reporter.stop(epoch=5, step=50, reason=evil)
    write_report([run], tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert evil in page.text
    assert len(page.text) < 40_000


def test_text_of_several_runs_is_escaped(tmp_path):
    evil = "<script>alert(1)</script>\"'&"
    runs = [make_run(tmp_path / name, epochs=0, **{evil: name}) for name in ("<b>x", "<i onload='y'>")]
    for run in runs:
        (run / "summary.json").write_text(json.dumps({evil: evil, "strategy": evil}))
    write_report(runs, tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert not {"script", "b"} & set(page.tags)
    assert "<i onload='y'>" in page.text
    assert page.text.count(evil) == 9  # in one comparison; in each run a setting, a result twice and a strategy


def test_values_at_the_edge_are_drawn(tmp_path):
    run = make_run(tmp_path / "run")
    write_log(
        run / "metrics.jsonl",
        ("epoch", 50, 5, ("loss", -1e100), ("val_loss", 1e100), ("samples_per_second", 1e100)),
        ("epoch", 60, 6, ("loss", 10**90), ("val_loss", -(10**90)), ("time", 10**90)),
        ("epoch", 2**53, 0, ("loss", None), ("val_loss", "text")),
        ("stop", 2**53, 0, ("reason", 5)),
    )
    (run / "summary.json").write_text('{"validation_accuracy": NaN, "epochs": "many", "train_seconds": 1e300}')
    write_report([run, run], tmp_path / "report.html")
    assert Page(tmp_path / "report.html").tags.count("svg") == 3


@pytest.mark.parametrize("settings", ["", "[]", "{", "[" * 100_000, "\xff", '{"a": "' + "x" * 300_000 + '"}'])
@pytest.mark.parametrize("name", ["config.json", "summary.json"])
def test_a_damaged_file_is_named_with_a_cure(tmp_path, name, settings):
    run = make_run(tmp_path / "run")
    (run / name).write_text(settings, encoding="latin-1")
    with pytest.raises(CheckpointError, match=rf"{name} is damaged.*leave this run out"):
        write_report([run], tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_what_is_no_run_is_told(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere is not there"):
        write_report([tmp_path / "nowhere"], tmp_path / "report.html")
    with pytest.raises(CheckpointError, match="is not a run directory"):
        write_report([tmp_path], tmp_path / "report.html")
    run = make_run(tmp_path / "run", epochs=0)
    with pytest.raises(ConfigurationError, match="--out"):
        write_report([run], tmp_path / "nowhere" / "report.html")
    with pytest.raises(ConfigurationError, match="at least one"):
        write_report([], tmp_path / "report.html")


def test_a_long_run_stays_a_small_page(tmp_path, monkeypatch):
    monkeypatch.setattr("distrain.reporting.html.page.MAX_CHART_POINTS", 600)  # in place of 3000
    monkeypatch.setattr("distrain.reporting.html.tables.MAX_TABLE_ROWS", 20)  # in place of 200
    run = make_run(tmp_path / "run")
    line = '{"event": "%s", "step": %d, "epoch": 9, "steps_per_epoch": 99, "loss": 0.%d, "accuracy": 0.%d}\n'
    with (run / "metrics.jsonl").open("a") as log:
        for step in range(41, 1200):
            log.write(line % ("step" if step % 5 else "epoch", step, step * 7919 % 9973, step * 104729 % 9973))
    write_report([run, run, run], tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size < 70_000  # 122 kB with all points, 82 kB with all rows


def test_names_are_as_short_as_tells_runs_apart():
    assert unique_names([Path("/runs/a"), Path("/runs/b")]) == ["a", "b"]
    assert unique_names([Path("/x/run"), Path("/y/run")]) == ["x/run", "y/run"]
    assert unique_names([Path("/x/run"), Path("/x/run")]) == ["run", "run"]
    assert unique_names([Path("/")]) == ["/"]
