"""The manifest notices damage to the files of a run, and a kill at any moment leaves a run that opens."""

from __future__ import annotations

import contextlib
import json
import shutil

import numpy as np
import pytest

from distrain.errors import CheckpointError
from distrain.fingerprints import GrowingFile
from distrain.runs.checkpoint import newest_checkpoint, save_checkpoint
from distrain.runs.manifest import (
    check_files,
    load_own_checkpoint,
    read_manifest,
    record_end,
    record_growth,
    rewriting,
    take_back_checkpoint,
)
from distrain.runs.served import load_served
from distrain.runs.verification import verify_run


@pytest.fixture
def run(tmp_path):
    """A run with settings, a vectorizer, a log and a checkpoint."""
    with rewriting(tmp_path, "config.json", "vectorizer"):
        (tmp_path / "config.json").write_text('{"seed": 0}')
        (tmp_path / "vectorizer").mkdir()
        for name in ("vectorizer.json", "vectorizer.safetensors"):
            (tmp_path / "vectorizer" / name).write_bytes(b"words" * 50)
    save(tmp_path, 3)
    (tmp_path / "metrics.jsonl").write_text('{"step": 3}\n')
    record_growth(tmp_path, GrowingFile(tmp_path / "metrics.jsonl"))
    return tmp_path


def save(run, step):
    return save_checkpoint(run / "checkpoints", step, {"weight": np.ones(3)}, {"global_step": step})


def flip(path, place=0):
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["config.json", "vectorizer/vectorizer.json", "metrics.jsonl"])
@pytest.mark.parametrize("damage", [flip, lambda path: path.unlink(), lambda path: path.write_bytes(b"")])
def test_a_damaged_file_is_named(run, name, damage):
    check_files(run, "config.json", "vectorizer", "metrics.jsonl")
    damage(run / name)
    with pytest.raises(CheckpointError, match=name):
        check_files(run, name.partition("/")[0])
    assert list(verify_run(run).faults) == [name]


def test_a_log_may_grow(run):
    with (run / "metrics.jsonl").open("a") as log:
        log.write('{"step": 4}\n')
    check_files(run, "metrics.jsonl")
    log = GrowingFile(run / "metrics.jsonl")
    record_growth(run, log)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 5}\n')
    record_growth(run, log)
    flip(run / "metrics.jsonl", -3)
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl was changed"):
        check_files(run, "metrics.jsonl")


def test_a_kill_while_a_file_is_replaced_leaves_a_run_that_opens(run):
    class Killed(BaseException):
        pass

    def killed_after(content):
        with rewriting(run, "config.json"):
            (run / "config.json").write_text(content)
            raise Killed

    for content in ('{"seed": 0}', '{"seed": 1}'):
        with pytest.raises(Killed):
            killed_after(content)
        check_files(run, "config.json")
        assert verify_run(run).faults == {}
        assert verify_run(run).unchecked == {"config.json": "a job that replaces it has not ended"}
    with rewriting(run, "config.json"):
        pass
    assert verify_run(run).unchecked == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + b" ",
        lambda text: text.replace(b'"bytes": 11', b'"bytes": 12'),
        lambda text: text.replace(b"config.json", b"../settings"),
        lambda text: text[:50],
        lambda text: b"[]",
        lambda text: b"[" * 100_000,
    ],
)
def test_a_damaged_manifest_is_an_error_until_it_is_written_again(run, change, caplog):
    path = run / "manifest.json"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(CheckpointError, match=r"manifest\.json is damaged"):
        check_files(run, "config.json")
    assert list(verify_run(run).faults) == ["manifest.json"]
    with rewriting(run, "config.json"):
        pass
    assert "written again" in caplog.messages[-1]
    assert verify_run(run).faults == {}


def test_a_kill_while_checkpoints_are_removed_leaves_a_run_that_opens(run):
    class Killed(BaseException):
        pass

    later = save(run, 5)
    record_growth(run, GrowingFile(run / "metrics.jsonl"))
    with contextlib.suppress(Killed), rewriting(run, "config.json", "checkpoints", begins=True):
        shutil.rmtree(later)
        raise Killed
    assert load_served(run).path.name == "step-00000003"
    assert verify_run(run).faults == {}


def test_the_end_of_a_job_records_what_it_wrote_all_the_time(run):
    (run / "events").mkdir()
    for name in ("events/events.out.1", "status.json"):
        (run / name).write_text("value")
    assert verify_run(run).unchecked.keys() == {"events/events.out.1", "status.json"}
    record_end(run)
    assert verify_run(run).unchecked == {}
    with (run / "metrics.jsonl").open("a") as log:
        log.write("{}")
    assert list(verify_run(run).faults) == ["metrics.jsonl"]
    with rewriting(run, "config.json", begins=True):
        pass
    for name in ("metrics.jsonl", "status.json"):
        with (run / name).open("a") as file:
            file.write("{}")
    assert verify_run(run).faults == {}


def save_elsewhere(folder, step):
    """Return a whole checkpoint of another run."""
    return save_checkpoint(folder / "checkpoints", step, {"weight": np.zeros(3)}, {"global_step": step})


def test_the_checkpoint_of_another_run_is_noticed(run, tmp_path_factory, caplog):
    own = save(run, 5)
    record_growth(run, GrowingFile(run / "metrics.jsonl"), saved=5)
    other = save_elsewhere(tmp_path_factory.mktemp("other"), 5)
    shutil.rmtree(own)
    shutil.copytree(other, own)
    words = r"step-00000005 is not the checkpoint that its run saved: it belongs to another run"
    with pytest.raises(CheckpointError, match=words):
        load_served(run)
    assert list(verify_run(run).faults) == ["checkpoints/step-00000005/manifest.json"]
    for begins in (True, False):  # a later job does not take the strange checkpoint for its own
        with rewriting(run, "config.json", "checkpoints", begins=begins):
            pass
    newest = newest_checkpoint(run / "checkpoints", load_own_checkpoint)
    assert newest.state["global_step"] == 3
    assert "it belongs to another run" in caplog.text


def test_a_kill_while_a_checkpoint_is_saved_again_leaves_a_run_that_opens(run):
    take_back_checkpoint(run, 3)
    assert verify_run(run).faults == {}
    save_elsewhere(run, 3)  # and the job is killed
    assert load_served(run).arrays["weight"].sum() == 0
    assert verify_run(run).faults == {}
    save(run, 3)
    record_growth(run, GrowingFile(run / "metrics.jsonl"), saved=3)
    save_elsewhere(run, 3)
    with pytest.raises(CheckpointError, match="is not the checkpoint that its run saved"):
        load_served(run)


def test_a_missing_older_checkpoint_is_noticed(run):
    save(run, 5)
    record_growth(run, GrowingFile(run / "metrics.jsonl"))
    (run / "checkpoints" / "step-00000003").rename(run / "elsewhere")
    assert verify_run(run).faults == {"checkpoints/step-00000003": "is missing"}


def test_a_missing_newest_checkpoint_is_noticed(run):
    later = save(run, 5)
    record_growth(run, GrowingFile(run / "metrics.jsonl"))
    later.rename(run / "elsewhere")
    with pytest.raises(CheckpointError, match=r"step-00000005 is missing.*: step-00000003\."):
        load_served(run)
    assert verify_run(run).faults == {"checkpoints/step-00000005": "is missing"}
    save(run, 6)  # a job killed before it wrote the manifest may have removed step 5
    assert verify_run(run).faults == {}


def test_a_run_of_an_earlier_version_is_told_once(run, caplog):
    (run / "manifest.json").unlink()
    for _ in range(3):
        check_files(run, "config.json")
    assert [run.name in message and "has no manifest.json" in message for message in caplog.messages] == [True]
    assert list(verify_run(run).faults) == ["manifest.json"]


def test_the_manifest_names_the_files_as_json(run):
    content = json.loads((run / "manifest.json").read_text())
    assert content["checkpoints"] == [3]
    assert content["files"]["config.json"]["bytes"] == 11
    assert read_manifest(run).files.keys() == content["files"].keys()
