"""What a run leaves behind: the log and its reading, console, TensorBoard, summary and the page."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from distrain.errors import CheckpointError, ConfigurationError
from distrain.reporting.html.page import unique_names, write_report
from distrain.reporting.metrics_log import MAX_LINE_BYTES, MetricsLog, read_history
from distrain.reporting.reporter import Reporter, RunReporter, write_summary


def read_strictly(path: Path) -> list[dict]:
    """The log as any strict JSON reader sees it."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def reporter_into(
    run: Path, *, clock: Iterator[float] | None = None, width: int = 80, **settings: object
) -> tuple[RunReporter, io.StringIO]:
    shown = io.StringIO()
    console = Console(file=shown, width=width, **settings)
    times = clock or count()
    return RunReporter(run, num_epochs=3, console=console, tensorboard=False, clock=lambda: next(times)), shown


def write_log(path: Path, *events: tuple) -> None:
    with MetricsLog(path) as log:
        for event, step, epoch, *values in events:
            log.write(event, step=step, epoch=epoch, time=1e9 + step, values=dict(values))


# The log.


def test_a_log_is_strict_json_and_what_is_not_finite_is_null(tmp_path):
    path = tmp_path / "metrics.jsonl"
    values = {"loss": float("nan"), "best": True, "f": np.float32(0.5), "i": np.int64(3), "up": float("inf")}
    with MetricsLog(path) as log:
        log.write("epoch", step=np.int64(2), epoch=1, time=5.0, values={**values, "step": 99})
        assert read_strictly(path) == [
            {
                "event": "epoch",
                "step": 2,
                "epoch": 1,
                "time": 5.0,
                "loss": None,
                "best": True,
                "f": 0.5,
                "i": 3,
                "up": None,
            }
        ], "each line is on disk before the next"


def test_a_cut_last_line_is_passed_over_and_then_cut_off(tmp_path):
    path = tmp_path / "metrics.jsonl"
    write_log(path, ("epoch", 10, 1), ("epoch", 20, 2))
    path.write_bytes(path.read_bytes()[:-15])
    history = read_history(path)
    assert [event["step"] for event in history.epochs] == [10]
    assert history.damaged_lines == 0
    write_log(path, ("epoch", 20, 2))
    assert [event["step"] for event in read_strictly(path)] == [10, 20]


@pytest.mark.parametrize("tail", [b"x" * 10, b"x" * (3 * MAX_LINE_BYTES)])
def test_any_unfinished_tail_is_cut_off(tmp_path, tail):
    path = tmp_path / "metrics.jsonl"
    write_log(path, ("epoch", 10, 1))
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    MetricsLog(path).close()
    assert path.read_bytes() == whole
    path.write_bytes(tail)
    MetricsLog(path).close()
    assert path.read_bytes() == b""


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


@given(st.lists(st.integers(0, 40), max_size=60))
def test_steps_read_are_those_that_nothing_later_took_back(tmp_path_factory, steps):
    path = tmp_path_factory.mktemp("log") / "metrics.jsonl"
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
    path.write_text("".join(line % step for step in range(30_000)))
    steps = [event["step"] for event in read_history(path, capacity=100).steps]
    assert 50 <= len(steps) <= 100
    assert set(np.diff(steps)) == {steps[1] - steps[0]}
    assert steps[0] == 0
    assert steps[-1] > 29_000


# While a run goes on.


def test_one_line_an_epoch_when_nobody_watches(tmp_path):
    reporter, shown = reporter_into(tmp_path)
    logs = {"loss": 0.12341, "accuracy": 0.965, "val_loss": 0.321, "val_accuracy": 0.876}
    with reporter:
        for step in range(1, 6):
            reporter.step(epoch=3, step=step, steps_per_epoch=5, num_examples=8, logs=lambda: {"loss": 1.0})
        reporter.epoch(epoch=3, step=5, num_examples=86_591, seconds=2.1, logs=logs)
    assert shown.getvalue() == (
        "epoch 3/3  loss 0.1234  accuracy 0.9650  val_loss 0.3210  val_accuracy 0.8760  41,234 samples/s  2.1 s\n"
    )


def test_steps_are_logged_once_a_second_with_the_rate_between(tmp_path):
    fetched = []

    def logs() -> dict[str, float]:
        fetched.append(1)
        return {"loss": 0.5}

    reporter, _ = reporter_into(tmp_path, clock=(i / 64 for i in count()))
    with reporter:
        for step in range(1, 64 * 5 + 1):
            reporter.step(epoch=1, step=step, steps_per_epoch=1000, num_examples=100, logs=logs)
    events = read_strictly(tmp_path / "metrics.jsonl")
    assert [event["step"] for event in events] == [1, 65, 129, 193, 257]
    assert [event["samples_per_second"] for event in events] == [None, 6400, 6400, 6400, 6400]
    assert len(fetched) == len(events), "values are fetched from the device only when they are written"


def test_time_between_epochs_is_no_part_of_the_rate(tmp_path):
    now = [0.0]
    reporter = RunReporter(
        tmp_path, num_epochs=2, console=Console(file=io.StringIO()), tensorboard=False, clock=lambda: now[0]
    )
    with reporter:
        for step in range(1, 5):
            reporter.step(epoch=1, step=step, steps_per_epoch=4, num_examples=10, logs=dict)
            now[0] += 2
        now[0] += 1000  # evaluation
        reporter.epoch(epoch=1, step=4, num_examples=40, seconds=8.0, logs={})
        now[0] += 2
        reporter.step(epoch=2, step=5, steps_per_epoch=4, num_examples=10, logs=dict)
    assert read_strictly(tmp_path / "metrics.jsonl")[-1]["samples_per_second"] == 5


def test_a_terminal_gets_a_bar_that_fits_and_vanishes(tmp_path):
    reporter, shown = reporter_into(tmp_path, force_terminal=True)
    with reporter:
        for step in range(1, 2001):
            reporter.step(
                epoch=1,
                step=step * 1000,
                steps_per_epoch=2_500_000,
                num_examples=64,
                logs=lambda: {"loss": 0.5, "accuracy": 0.25, "top_5_accuracy": 0.75},
            )
    plain = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown.getvalue())
    lines = [line for line in re.split(r"[\r\n]+", plain) if line.strip()]
    assert any("2,000,000/2,500,000" in line and "loss 0.5000" in line for line in lines)
    assert max(map(len, lines)) <= 80
    assert not any("\N{HORIZONTAL ELLIPSIS}" in line for line in lines), "what does not fit is left out whole"
    assert shown.getvalue().rstrip().endswith("\x1b[2K"), "the last thing done is to clear the line"


def test_messages_are_not_read_as_markup(tmp_path):
    reporter, shown = reporter_into(tmp_path)
    with reporter:
        reporter.note("run [bold]x[/nothing] " + "long " * 30)
    assert shown.getvalue() == "run [bold]x[/nothing] " + "long " * 30 + "\n"


def test_the_log_names_checkpoints_within_the_run(tmp_path):
    reporter, shown = reporter_into(tmp_path)
    path = tmp_path / "checkpoints" / "step-00000005"
    with reporter:
        reporter.checkpoint(epoch=1, step=5, path=path, seconds=0.5, best=True)
        reporter.evaluate(epoch=1, step=5, seconds=0.5, logs={"val_loss": 1.0})
        reporter.resume(epoch=1, step=5, path=path)
        reporter.stop(epoch=1, step=5, reason="all epochs are trained")
    events = read_strictly(tmp_path / "metrics.jsonl")
    assert [event["event"] for event in events] == ["checkpoint", "evaluate", "resume", "stop"]
    assert events[0]["path"] == events[2]["path"] == "checkpoints/step-00000005"
    assert "step 5: all epochs are trained." in shown.getvalue()


def test_ranks_other_than_the_chief_leave_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with Reporter() as reporter:
        reporter.note("x")
        reporter.step(epoch=1, step=1, steps_per_epoch=1, num_examples=1, logs=lambda: pytest.fail("was fetched"))
        reporter.epoch(epoch=1, step=1, num_examples=1, seconds=1.0, logs={})
        reporter.evaluate(epoch=1, step=1, seconds=1.0, logs={})
        reporter.checkpoint(epoch=1, step=1, path=tmp_path, seconds=1.0)
        reporter.resume(epoch=1, step=1, path=tmp_path)
        reporter.stop(epoch=1, step=1, reason="x")
        reporter.finish({})
    assert capsys.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_tensorboard_reads_the_scalars_back(tmp_path):
    tf = pytest.importorskip("tensorflow")
    from tensorflow.core.util import event_pb2

    with RunReporter(tmp_path, num_epochs=1, console=Console(file=io.StringIO())) as reporter:
        reporter.epoch(epoch=1, step=7, num_examples=10, seconds=2.0, logs={"loss": 0.25, "bad": float("nan")})
    (path,) = (tmp_path / "events").iterdir()
    found = {}
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        event = event_pb2.Event.FromString(record)
        for value in event.summary.value:
            assert value.metadata.plugin_data.plugin_name == "scalars"
            found[value.tag] = (event.step, float(tf.make_ndarray(value.tensor)))
    assert found == {"epoch/loss": (7, 0.25), "epoch/samples_per_second": (7, 5.0), "epoch/seconds": (7, 2.0)}


def test_a_summary_is_whole_or_the_old_one(tmp_path, monkeypatch):
    write_summary(tmp_path, {"validation_accuracy": np.float32(0.5), "epochs": 2, "validation_loss": float("nan")})
    assert read_strictly_whole(tmp_path) == {"validation_accuracy": 0.5, "epochs": 2, "validation_loss": None}

    def fail(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_summary(tmp_path, {"epochs": 3})
    assert read_strictly_whole(tmp_path)["epochs"] == 2


def read_strictly_whole(run: Path) -> dict:
    return json.loads((run / "summary.json").read_text(), parse_constant=pytest.fail)


# The page.


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


def make_run(run: Path, *, epochs: int = 4, summary: bool = True, **settings: object) -> Path:
    run.mkdir(parents=True)
    (run / "config.json").write_text(json.dumps({"seed": 0, "strategy": "mirrored", **settings}))
    reporter, _ = reporter_into(run)
    with reporter:
        for epoch in range(1, epochs + 1):
            for step in range(10 * epoch - 9, 10 * epoch + 1):
                reporter.step(epoch=epoch, step=step, steps_per_epoch=10, num_examples=8, logs=lambda: {"loss": 0.5})
            losses = {"loss": 1 / epoch, "accuracy": 0.5, "val_loss": abs(epoch - 2.5), "val_accuracy": 0.71}
            reporter.epoch(epoch=epoch, step=10 * epoch, num_examples=80, seconds=1.0, logs=losses)
            reporter.checkpoint(epoch=epoch, step=10 * epoch, path=run / "checkpoints" / "x", seconds=0.0)
        if summary:
            reporter.stop(epoch=epochs, step=10 * epochs, reason="all epochs are trained")
            reporter.finish({"validation_accuracy": 0.8765, "num_replicas": 2, "epochs": epochs})
    return run


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


def test_the_same_runs_give_the_same_page_in_another_process(tmp_path):
    run = make_run(tmp_path / "run")
    write_report([run], tmp_path / "here.html")
    code = (
        "import sys, pathlib; from distrain.reporting.html.page import write_report; "
        "write_report([pathlib.Path(sys.argv[1])], pathlib.Path(sys.argv[2]))"
    )
    subprocess.run([sys.executable, "-c", code, str(run), str(tmp_path / "there.html")], check=True)
    assert (tmp_path / "here.html").read_bytes() == (tmp_path / "there.html").read_bytes()


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
    run = make_run(tmp_path / "run")
    with pytest.raises(ConfigurationError, match="--out"):
        write_report([run], tmp_path / "nowhere" / "report.html")
    with pytest.raises(ConfigurationError, match="at least one"):
        write_report([], tmp_path / "report.html")


def test_a_long_run_stays_a_small_page(tmp_path):
    run = make_run(tmp_path / "run")
    line = '{"event": "%s", "step": %d, "epoch": 9, "steps_per_epoch": 99, "loss": 0.%d, "accuracy": 0.%d}\n'
    with (run / "metrics.jsonl").open("a") as log:
        for step in range(41, 50_000):
            log.write(line % ("step" if step % 5 else "epoch", step, step * 7919 % 9973, step * 104729 % 9973))
    write_report([run, run, run], tmp_path / "report.html")
    assert (tmp_path / "report.html").stat().st_size < 1_000_000


def test_names_are_as_short_as_tells_runs_apart():
    assert unique_names([Path("/runs/a"), Path("/runs/b")]) == ["a", "b"]
    assert unique_names([Path("/x/run"), Path("/y/run")]) == ["x/run", "y/run"]
    assert unique_names([Path("/x/run"), Path("/x/run")]) == ["run", "run"]
    assert unique_names([Path("/")]) == ["/"]


def test_nothing_heavy_is_imported_before_it_is_needed():
    heavy = "{'tensorflow', 'matplotlib', 'keras'}"
    code = f"import sys, distrain.reporting.reporter, distrain.reporting.html.page; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
