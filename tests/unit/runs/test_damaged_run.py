"""A damaged run directory: what opening it to train heals, what it tells, and what it refuses."""

from __future__ import annotations

import contextlib
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from distrain.config import TrainConfig
from distrain.errors import CheckpointError, StopRequested
from distrain.inference.finished_run import open_finished_run
from distrain.runs.checkpoint import ARRAYS_NAME, load_checkpoint, remove_checkpoints, save_checkpoint
from distrain.runs.manifest import check_files, rewriting
from distrain.runs.opening import open_run
from distrain.runs.served import load_served
from distrain.runs.verification import verify_run

RESOLVED = {"data_digest": "abc", "strategy": "single", "num_replicas": 1, "replica_batch_size": 128}


@pytest.fixture
def run(tmp_path):
    """A run of two checkpoints, which a request to stop ended."""
    try:
        with open_run(config(tmp_path / "run"), RESOLVED, vectorizer=None):
            for step in (3, 5):
                state = {"global_step": step, "data_digest": "abc"}
                save_checkpoint(tmp_path / "run" / "checkpoints", step, {"weight": np.ones(step)}, state)
            with rewriting(tmp_path / "run", "summary.json", "model.keras"):
                (tmp_path / "run" / "summary.json").write_text('{"epochs": 2}')
                (tmp_path / "run" / "model.keras").write_bytes(bytes(90))
            for name in ("metrics.jsonl", "status.json", "events/events.out"):
                (tmp_path / "run" / name).parent.mkdir(exist_ok=True)
                (tmp_path / "run" / name).write_text('{"event": "stop"}\n')
            raise StopRequested("stopped")
    except StopRequested:
        return tmp_path / "run"


def config(run):
    return TrainConfig(data=run.parent / "data", run=run)


def reopened(run):
    with open_run(config(run), RESOLVED, vectorizer=None) as restored:
        return restored.state["global_step"]


def damage(path):
    path.write_bytes(path.read_bytes()[:-1] + b"?")


def test_the_end_of_a_job_leaves_no_file_unrecorded(run):
    findings = verify_run(run)
    assert findings.faults == {}
    assert findings.unknown == ()
    assert findings.unchecked == {".lock": "it names the job that holds the run"}


def test_damaged_settings_are_refused(run):
    damage(run / "config.json")
    words = r"config\.json was changed: .* Copy it anew, or train into another --run with --resume .*step-00000005\."
    for use in (reopened, open_finished_run):
        with pytest.raises(CheckpointError, match=words):
            use(run)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("summary.json", "is written again at the end"),
        ("model.keras", "is written again at the end"),
        ("metrics.jsonl", "the report may show wrong figures"),
    ],
)
@pytest.mark.parametrize("change", [damage, lambda path: path.unlink()])
def test_other_damage_is_told_and_training_goes_on(run, caplog, name, words, change):
    change(run / name)
    with pytest.raises(CheckpointError, match=name):
        check_files(run, name)
    assert reopened(run) == 5
    (message,) = caplog.messages
    assert f"{run / name} " in message
    assert words in message


def test_a_damaged_manifest_is_written_again(run, caplog):
    damage(run / "manifest.json")
    with pytest.raises(CheckpointError, match=r"manifest\.json is damaged"):
        open_finished_run(run)
    assert reopened(run) == 5
    assert "manifest.json is damaged" in caplog.messages[0]
    assert verify_run(run).faults == {}


def test_a_run_of_an_earlier_version_gets_a_manifest(run, caplog):
    (run / "manifest.json").unlink()
    assert reopened(run) == 5
    assert "has no manifest.json" in caplog.messages[0]
    assert verify_run(run).faults == {}


def test_a_missing_checkpoint_is_told(run, caplog):
    shutil.rmtree(run / "checkpoints" / "step-00000005")
    assert reopened(run) == 3
    assert caplog.messages == [
        f"{run}/checkpoints/step-00000005 is missing. Training goes on from the newest checkpoint that is there."
    ]
    assert verify_run(run).faults == {}


def test_the_damaged_file_of_a_checkpoint_is_told_from_its_manifest(run):
    folder = run / "checkpoints" / "step-00000005"
    manifest = (folder / "manifest.json").read_bytes()
    changed = bytearray(manifest)
    digit = manifest.index(b'"sha256": "') + len(b'"sha256": "')
    changed[digit] = ord("1" if changed[digit] == ord("0") else "0")
    (folder / "manifest.json").write_bytes(changed)
    assert list(verify_run(run).faults) == ["checkpoints/step-00000005/manifest.json"]
    with pytest.raises(CheckpointError, match=r"manifest\.json is changed: its digest does not fit"):
        load_checkpoint(folder)
    (folder / "manifest.json").write_bytes(manifest)
    damage(folder / "state.json")
    assert list(verify_run(run).faults) == ["checkpoints/step-00000005/state.json"]


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "name",
    ["manifest.json", *(f"checkpoints/step-00000005/{name}" for name in ("manifest.json", "state.json", ARRAYS_NAME))],
)
def test_a_pipe_in_place_of_a_file_is_told_without_a_wait(run, name):
    (run / name).unlink()
    os.mkfifo(run / name)
    assert list(verify_run(run).faults) == [name]
    with pytest.raises(CheckpointError, match=r"(it is no regular|is no) file"):
        load_served(run)


@pytest.mark.timeout(20)
def test_a_checkpoint_of_another_size_is_refused_before_it_is_read(run):
    path = run / "checkpoints" / "step-00000005" / ARRAYS_NAME
    os.truncate(path, 1 << 42)  # a hole of 4 TB, which no test could read in time
    with pytest.raises(CheckpointError, match=r"has 4,398,046,511,104 bytes instead of"):
        load_checkpoint(path.parent)
    assert reopened(run) == 3


def test_the_manifest_of_another_checkpoint_is_named(run):
    for step, other in ((3, 5), (5, 3)):
        folders = [run / "checkpoints" / f"step-{number:08d}" for number in (step, other)]
        before = (folders[0] / "manifest.json").read_bytes()
        shutil.copy(folders[1] / "manifest.json", folders[0] / "manifest.json")
        assert verify_run(run).faults == {f"checkpoints/step-{step:08d}/manifest.json": f"belongs to step {other}"}
        (folders[0] / "manifest.json").write_bytes(before)


def test_a_kill_while_a_run_goes_back_to_a_checkpoint_is_no_damage(run, monkeypatch):
    def killed(paths):
        remove_checkpoints(paths)
        raise KeyboardInterrupt

    earlier = replace(config(run), resume=str(run / "checkpoints" / "step-00000003"))
    monkeypatch.setattr("distrain.runs.opening.remove_checkpoints", killed)
    with contextlib.suppress(KeyboardInterrupt), open_run(earlier, RESOLVED, vectorizer=None):
        pass
    assert load_served(run).path.name == "step-00000003"
    assert verify_run(run).faults == {}
