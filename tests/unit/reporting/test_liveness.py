"""Which status counts as a sign of life, and which error a probe gets."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path

import pytest

from distrain.errors import CheckpointError, RankError
from distrain.reporting import liveness, restart_note
from distrain.reporting.boot_clock import boot_clock, boot_id
from distrain.reporting.liveness import sign_of_life
from distrain.reporting.restart_note import note_restart


@pytest.fixture(autouse=True)
def _temporary_folder(tmp_path_factory, monkeypatch):
    """Notes of restarts lie in the temporary folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))


def write_status(run: Path, **values: object) -> None:
    (run / "status.json").write_text(json.dumps({"state": "training", "step": 12, "epoch": 2, **values}))


def look(run: Path, **settings: float) -> str:
    return sign_of_life(run, **{"within": 300, "now": 1000, "since": 0, **settings})


@pytest.mark.parametrize("state", ["training", "evaluating", "finishing"])
@pytest.mark.parametrize(("age", "is_alive"), [(0, True), (299, True), (301, False), (-50, True)])
def test_a_run_is_alive_for_so_long_after_its_last_sign(tmp_path, state, age, is_alive):
    write_status(tmp_path, state=state, time=1000 - age)
    if is_alive:
        assert f"is alive: {state} at step 12, epoch 2" in look(tmp_path)
    else:
        with pytest.raises(RankError, match=rf"no sign of life: {state} at step 12, epoch 2, last seen 301 s ago"):
            look(tmp_path)


@pytest.mark.parametrize(("state", "word"), [("finished", "has"), ("stopped", "was"), ("failed", "has")])
def test_a_run_that_has_ended_is_not_alive(tmp_path, state, word):
    write_status(tmp_path, state=state, time=1000, message="Why it ended.")
    with pytest.raises(RankError, match=f"{word} {state} at step 12, epoch 2. Why it ended.$"):
        look(tmp_path)


def test_a_run_is_not_alive_before_its_first_step(tmp_path):
    write_status(tmp_path, state="starting", time=999)
    with pytest.raises(RankError, match="is starting, 1 s ago: no step yet"):
        look(tmp_path)


def test_a_status_of_an_earlier_attempt_says_nothing(tmp_path):
    write_status(tmp_path, time=990)
    assert "is alive" in look(tmp_path, since=980)
    with pytest.raises(RankError, match="only the status of an earlier attempt"):
        look(tmp_path, since=995)


@pytest.mark.parametrize(("within", "is_alive"), [(25, True), (15, False)])
def test_the_age_does_not_follow_a_change_of_the_date(tmp_path, within, is_alive):
    """The status seems an hour old, or from the future, but this machine wrote it 20 s ago."""
    for shift in (-3600, 3600):
        stamp = {"boot_id": boot_id(), "boot_seconds": boot_clock() - 20}
        write_status(tmp_path, time=time.time() + shift, **stamp)
        if is_alive:
            assert "is alive" in sign_of_life(tmp_path, within=within, since=0)
        else:
            with pytest.raises(RankError, match="last seen 20 s ago"):
                sign_of_life(tmp_path, within=within, since=0)


@pytest.mark.parametrize("boot", ["", "another"])
def test_the_boot_clock_of_another_machine_says_nothing(tmp_path, boot):
    write_status(tmp_path, time=990, boot_id=boot, boot_seconds=boot_clock() - 10_000)
    assert "10 s ago" in look(tmp_path)


def test_no_status_is_no_life(tmp_path):
    with pytest.raises(RankError, match="no status yet"):
        look(tmp_path / "nowhere")


@pytest.mark.parametrize("values", [{"time": 999, "step": [1], "epoch": {}}, {"time": 999, "message": 7}])
def test_a_status_with_odd_values_is_no_trouble(tmp_path, values):
    write_status(tmp_path, **values)
    assert "is alive" in look(tmp_path)


def test_a_damaged_status_is_an_error(tmp_path):
    (tmp_path / "status.json").write_text("{")
    with pytest.raises(CheckpointError):
        look(tmp_path)


@pytest.mark.parametrize(
    ("state", "time_after_restart", "word"),
    [
        ("stopped", -5, "alive: it waits for its pods or starts again, 100 s ago"),  # the end of the attempt before
        ("training", -900, "alive: it waits"),  # its chief was lost
        ("starting", 50, "alive: it waits"),
        ("training", 90, "alive: training at step 7"),
        ("failed", 50, "failed at step 7"),
    ],
)
def test_a_pod_whose_ranks_start_again_is_alive_until_they_train(
    tmp_path, monkeypatch, state, time_after_restart, word
):
    note_restart(tmp_path)
    monkeypatch.setattr(liveness, "boot_clock", lambda: boot_clock() + 100)
    write_status(tmp_path, state=state, time=900 + time_after_restart, step=7)
    try:
        said = look(tmp_path)
    except RankError as error:
        said = str(error)
    assert word in said


def test_a_restart_counts_for_so_long_and_while_its_writer_runs(tmp_path, monkeypatch):
    note_restart(tmp_path)
    assert "starts again" in look(tmp_path)  # no status at all
    monkeypatch.setattr(liveness, "boot_clock", lambda: boot_clock() + 30_000)
    with pytest.raises(RankError, match="no status"):
        look(tmp_path)
    monkeypatch.undo()
    monkeypatch.setattr(restart_note, "process_began", lambda stat: boot_clock() + 1)  # another process of that number
    with pytest.raises(RankError, match="no status"):
        look(tmp_path)
