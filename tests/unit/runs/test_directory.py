"""A run resumes in its own directory with the settings that decide its weights; anything else is refused."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil

import keras
import numpy as np
import pytest

from distrain.cluster.world import LAUNCH_ID
from distrain.config import TrainConfig
from distrain.errors import CheckpointError, ConfigurationError
from distrain.runs.checkpoint import load_checkpoint, save_checkpoint
from distrain.runs.directory import (
    config_of,
    is_finished,
    read_settings,
    read_summary,
    write_model,
)
from distrain.runs.opening import open_run
from distrain.runs.progress import Progress, progress_arrays, progress_state

RESOLVED = {"data_digest": "abc", "strategy": "single", "num_replicas": 1, "replica_batch_size": 128}


@pytest.fixture(autouse=True)
def no_other_warnings(caplog):
    """A test that expects a warning clears the log."""
    yield
    assert caplog.get_records("call") == []


@pytest.fixture
def config(tmp_path):
    return TrainConfig(data=tmp_path / "data", run=tmp_path / "runs" / "1")


def reopen(config, *, vectorizer=None, **resolved):
    with open_run(config, RESOLVED | resolved, vectorizer=vectorizer) as restored:
        return restored


def save(config, step=3, *, best_step=None, finished="", epochs_since=0, progress=None):
    progress = progress or Progress(global_step=step)
    state = {
        **progress_state(progress),
        "early_stopping": {"best_step": best_step, "best_figures": {}, "epochs_since": epochs_since},
        "finished": finished,
        "run_seconds": 60.25,
        "data_digest": RESOLVED["data_digest"],
    }
    return save_checkpoint(config.run / "checkpoints", step, progress_arrays(progress), state)


def test_a_new_run_gets_its_settings_and_its_vectorizer(config, tmp_path):
    vectorizer = tmp_path / "vectorizer"
    vectorizer.mkdir()
    (vectorizer / "vectorizer.json").write_text("{}")
    assert reopen(config, vectorizer=vectorizer) is None
    settings = json.loads((config.run / "config.json").read_text())
    assert settings.items() >= RESOLVED.items()
    assert config_of(settings) == dataclasses.replace(config, strategy="single")  # "auto", resolved
    assert (config.run / "vectorizer" / "vectorizer.json").read_text() == "{}"


def test_a_run_goes_on_from_its_newest_checkpoint(config, caplog):
    reopen(config)
    save(config, 3)
    newest = save(config, 5)
    assert reopen(config).path == newest
    (newest / "state.json").write_text("{}")
    assert caplog.messages == []
    assert reopen(config).state["global_step"] == 3
    assert "step-00000005" in caplog.messages[0]
    caplog.clear()


def test_a_checkpoint_may_be_named(config, caplog):
    reopen(config)
    first = save(config, 3)
    later = save(config, 5)
    assert reopen(dataclasses.replace(config, resume=str(first))).path == first
    assert not later.exists()  # or the next start would go on from it
    assert ["step-00000005" in message for message in caplog.messages] == [True]
    caplog.clear()
    with pytest.raises(CheckpointError, match="nowhere"):
        reopen(dataclasses.replace(config, resume="nowhere"))


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 7},
        {"patience": 0},
        {"devices": "cpu:2"},
        {"strategy": "mirrored"},
        {"checkpoint_every": 5},
        {"keep": 9},
        {"jit_compile": False},
    ],
)
def test_where_how_fast_and_how_long_may_change(config, change):
    reopen(config)
    save(config)
    assert reopen(dataclasses.replace(config, **change)) is not None


def test_the_number_of_replicas_may_change_with_the_global_batch_kept(config):
    reopen(config)
    save(config)
    assert reopen(config, strategy="mirrored", num_replicas=4, replica_batch_size=32) is not None


@pytest.mark.parametrize(
    ("change", "resolved", "words"),
    [
        ({"seed": 1}, {}, "seed = 0, not 1"),
        ({"learning_rate": 0.1}, {}, "learning_rate = 0.001, not 0.1"),
        ({"units": 8}, {}, "units = 64, not 8"),
        ({"global_batch_size": 64}, {}, "global_batch_size = 128, not 64"),
        ({"model": "a:b"}, {}, "model"),
        ({}, {"data_digest": "other"}, "other data"),
        ({}, {"learning_rate_factor": 2.0}, "learning_rate_factor = None, not 2.0. --scale-learning-rate"),
        ({}, {"scheduled_steps": 9}, "scheduled_steps = None, not 9. The learning rate falls over these steps"),
    ],
)
def test_what_decides_the_weights_must_stay(config, change, resolved, words):
    reopen(config)
    save(config)
    before = (config.run / "config.json").read_bytes()
    with pytest.raises(CheckpointError, match=words) as caught:
        reopen(dataclasses.replace(config, **change), **resolved)
    assert str(config.run) in str(caught.value)
    assert (config.run / "config.json").read_bytes() == before


def test_a_run_that_was_never_saved_may_begin_again_with_other_settings(config):
    reopen(config)
    assert reopen(dataclasses.replace(config, seed=9)) is None
    assert json.loads((config.run / "config.json").read_text())["seed"] == 9


def test_a_batch_per_replica_is_another_model_on_more_replicas(config):
    config = dataclasses.replace(config, batch_size=16)
    reopen(config, num_replicas=2, replica_batch_size=16)
    save(config)
    with pytest.raises(CheckpointError, match=r"2 replicas .*of --batch-size 16.*--global-batch-size 32"):
        reopen(config, num_replicas=4, replica_batch_size=16)


def test_resume_never_refuses_a_run_in_use(config):
    never = dataclasses.replace(config, resume="never")
    assert reopen(never) is None
    with pytest.raises(CheckpointError, match="--resume is never"):
        reopen(never)


def test_something_else_is_never_touched(config):
    config.run.mkdir(parents=True)
    (config.run / "thesis.txt").write_text("years of work")
    with pytest.raises(CheckpointError, match="not a run"):
        reopen(config)
    assert [path.name for path in config.run.iterdir()] == ["thesis.txt"]


def test_a_second_job_is_refused_before_it_writes_or_removes_anything(config, tmp_path):
    vectorizer = tmp_path / "vectorizer"
    vectorizer.mkdir()
    (vectorizer / "vectorizer.json").write_text("{}")
    with open_run(config, RESOLVED, vectorizer=vectorizer):
        first = save(config, 3)
        save(config, 5)
        before = {path: path.read_bytes() for path in config.run.rglob("*") if path.is_file()}
        (vectorizer / "vectorizer.json").write_text("other")
        for change in ({"seed": 9}, {"epochs": 9}, {"resume": str(first)}):
            with pytest.raises(CheckpointError, match="another process trains in"):
                reopen(dataclasses.replace(config, **change), vectorizer=vectorizer)
        assert {path: path.read_bytes() for path in config.run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("left", [".lock", ".config.json.123.tmp", "vectorizer/a", ".vectorizer.tmp/a", "events/a"])
def test_what_a_killed_opening_left_is_no_obstacle(config, left):
    (config.run / left).parent.mkdir(parents=True)
    (config.run / left).write_bytes(b"")
    assert reopen(config) is None


@pytest.mark.parametrize("damage", ["missing", "cut", "a file less"])
def test_a_damaged_vectorizer_is_copied_again(config, tmp_path, caplog, damage):
    vectorizer = tmp_path / "vectorizer"
    vectorizer.mkdir()
    for name in ("vectorizer.json", "words.npy"):
        (vectorizer / name).write_text(name)
    reopen(config, vectorizer=vectorizer)
    save(config)
    reopen(config, vectorizer=vectorizer)
    assert caplog.messages == []
    copy = config.run / "vectorizer"
    if damage == "missing":
        shutil.rmtree(copy)
    elif damage == "cut":
        (copy / "words.npy").write_text("")
    else:
        (copy / "words.npy").unlink()
    assert reopen(config, vectorizer=vectorizer) is not None
    assert (copy / "words.npy").read_text() == "words.npy"
    assert "copied again" in caplog.messages[0]
    caplog.clear()


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "metrics.jsonl",
        "status.json",
        "summary.json",
        "model.keras",
        "events",
        "vectorizer",
        "checkpoints",
    ],
)
def test_nothing_is_written_through_planted_links(config, tmp_path, name):
    reopen(config)
    target = tmp_path / "target"
    if "." in name:
        target.write_text((config.run / "config.json").read_text())
    else:
        target.mkdir()
    (config.run / name).unlink(missing_ok=True)
    (config.run / name).symlink_to(target)
    before = target.read_text() if target.is_file() else sorted(target.iterdir())
    with pytest.raises(CheckpointError, match=rf"{name} is a link"):
        reopen(dataclasses.replace(config, seed=9))
    assert (target.read_text() if target.is_file() else sorted(target.iterdir())) == before


def test_leftovers_of_killed_writes_are_removed(config):
    reopen(config)
    save(config, 3).rename(config.run / "checkpoints" / ".step-00000003.old")
    for name in (".status.json.1.partial", ".model.keras.7.keras", ".config.json.9.tmp"):
        (config.run / name).write_text("half")
    (config.run / ".vectorizer.tmp").mkdir()
    (config.run / ".config.json.8.tmp").symlink_to("/dev/null")
    assert reopen(config).path == config.run / "checkpoints" / "step-00000003"
    names = sorted(path.name for path in config.run.iterdir())
    assert names == [".lock", "checkpoints", "config.json", "manifest.json"]


def test_a_full_disk_ends_the_opening_with_file_reason_and_room(config, monkeypatch):
    def refuse(path, _):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("pathlib.Path.write_bytes", refuse)
    with pytest.raises(CheckpointError, match=r"config\.json: No space left on device\).* MB are free"):
        reopen(config)


def test_a_run_that_went_back_to_a_checkpoint_goes_on_when_that_is_gone(config, caplog):
    reopen(config)
    back = dataclasses.replace(config, resume=str(save(config, 3)))
    assert reopen(back).state["global_step"] == 3
    newest = save(config, 9)
    shutil.rmtree(back.resume)
    assert reopen(back).path == newest
    assert caplog.messages == []


def test_an_empty_folder_is_taken(config):
    config.run.mkdir(parents=True)
    assert reopen(config) is None


def test_a_run_below_a_file_cannot_be_made(config):
    config.run.parent.write_text("a file")
    with pytest.raises(ConfigurationError, match=r"--run .* cannot be used"):
        reopen(config)


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000])
def test_damaged_settings_are_an_error(config, content):
    config.run.mkdir(parents=True)
    (config.run / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        reopen(config)
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_settings(config.run)


def test_settings_of_something_else_are_an_error(config):
    with pytest.raises(CheckpointError, match="does not hold the settings"):
        config_of({"data": "d"})
    with pytest.raises(CheckpointError, match="does not hold the settings"):
        config_of({"data": "d", "run": "r", "epochs": -5})


def test_settings_are_read_of_a_run_alone(config):
    with pytest.raises(CheckpointError, match="not a run directory"):
        read_settings(config.run)
    reopen(config)
    assert read_settings(config.run)["data_digest"] == "abc"


@pytest.mark.parametrize(
    ("finished", "epoch", "epochs_since", "settings", "expected"),
    [
        ("", 3, 0, {"epochs": 3}, False),
        ("epochs", 3, 0, {"epochs": 3}, True),
        ("epochs", 3, 0, {"epochs": 5}, False),  # more epochs were asked for
        ("early stopping", 3, 2, {"epochs": 5, "patience": 2}, True),
        ("early stopping", 3, 2, {"epochs": 5, "patience": 4}, False),
        ("early stopping", 3, 2, {"epochs": 5, "patience": 0}, False),
        ("callback", 3, 0, {"epochs": 5}, True),
        ("--max-steps", 0, 0, {"max_steps": 3}, True),
        ("--max-steps", 0, 0, {"max_steps": 2}, True),
        ("--max-steps", 0, 0, {"max_steps": 4}, False),
        ("--max-steps", 0, 0, {}, False),
        ("", 3, 0, {"max_steps": 3}, True),  # at the end of an epoch, which is evaluated
        ("--max-time", 0, 0, {"max_time": 60.0}, True),
        ("--max-time", 0, 0, {"max_time": 60.5}, False),
        ("--max-time", 0, 0, {}, False),
    ],
)
def test_whether_training_is_complete(config, finished, epoch, epochs_since, settings, expected):
    path = save(config, finished=finished, epochs_since=epochs_since, progress=Progress(epoch=epoch, global_step=3))
    assert is_finished(dataclasses.replace(config, **settings), load_checkpoint(path)) is expected


def test_the_part_of_an_epoch_at_the_last_step_is_not_complete_before_its_evaluation(config):
    progress = Progress(epoch=1, position=64, epoch_steps=2, global_step=3)
    path = save(config, progress=progress)
    assert not is_finished(dataclasses.replace(config, max_steps=3), load_checkpoint(path))
    path = save(config, progress=progress, finished="--max-steps")
    assert is_finished(dataclasses.replace(config, max_steps=3), load_checkpoint(path))


def test_a_summary_is_read_if_there_is_one(tmp_path):
    assert read_summary(tmp_path) is None
    (tmp_path / "summary.json").write_text('{"epochs": 3}')
    assert read_summary(tmp_path) == {"epochs": 3}


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras reads its own variables so
def test_the_model_is_written_whole(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    write_model(tmp_path, model)
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]
    again = keras.models.load_model(tmp_path / "model.keras")
    assert np.array_equal(again.get_weights()[0], model.get_weights()[0])


def test_a_model_on_a_full_disk_is_an_error_with_its_reason(tmp_path, monkeypatch):
    class Full:
        def save(self, path):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    with pytest.raises(CheckpointError, match=r"model\.keras cannot be written \(.*model\.keras: No space left"):
        write_model(tmp_path, Full())
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_keras_cannot_write_is_a_warning(tmp_path, caplog):
    class Odd(keras.Model):
        def __init__(self, function):
            super().__init__()
            self.function = function
            self.built = True

    class Halving(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step):
            return 0.1 * 0.5**step

    scheduled = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    scheduled.compile(keras.optimizers.SGD(Halving()), "mse")
    for model, named in ((Odd(len), "Object Odd was"), (scheduled, "schedule 'Halving' must override `get_config()`")):
        write_model(tmp_path, model)
        assert named in caplog.messages[0]
        assert "\n" not in caplog.messages[0]
        caplog.clear()
        assert list(tmp_path.iterdir()) == []


def test_a_new_run_begins_where_a_checkpoint_of_another_stands(config, tmp_path):
    reopen(config)
    save(config, step=2, best_step=2)
    path = save(config, step=5, best_step=2)
    branch = dataclasses.replace(config, run=tmp_path / "runs" / "2", resume=str(path), learning_rate=0.5)
    assert reopen(branch).path == path
    assert {each.name for each in (branch.run / "checkpoints").iterdir()} == {"step-00000002", "step-00000005"}
    assert reopen(branch).path == branch.run / "checkpoints" / "step-00000005"  # the same command goes on
    with pytest.raises(CheckpointError, match="has checkpoints of its own"):
        reopen(dataclasses.replace(branch, resume=str(path.with_name("step-00000002"))))
    again = reopen(dataclasses.replace(branch, resume="auto"))
    assert again.path == branch.run / "checkpoints" / "step-00000005"


def test_a_checkpoint_of_other_data_is_refused(config, tmp_path):
    reopen(config)
    path = save(config)
    branch = dataclasses.replace(config, run=tmp_path / "runs" / "2", resume=str(path))
    with pytest.raises(CheckpointError, match="trained on other data"):
        reopen(branch, data_digest="xyz")
    assert not branch.run.exists()


def test_a_restart_of_one_launch_goes_on_from_the_newest_checkpoint(config, caplog):
    """A launcher starts ranks again with the same arguments, whatever `--resume` says."""
    new = dataclasses.replace(config, resume="never")
    assert reopen(new, launch_id="first") is None
    first = save(config, 3)
    assert reopen(new, launch_id="first").path == first
    with pytest.raises(CheckpointError, match="--resume is never"):
        reopen(new, launch_id="second")
    back = dataclasses.replace(config, resume=str(first))
    save(config, 5)
    assert reopen(back, launch_id="second").path == first  # this launch opens the run for the first time
    newest = save(config, 7)
    assert reopen(back, launch_id="second").path == newest
    assert reopen(back).path == first  # the user's own repetition goes back
    caplog.clear()


def test_a_scheduler_that_replaces_a_process_names_its_job(config, monkeypatch):
    """As Kubernetes does for a drained pod 0; an empty name, as of a pod without a Job, is none."""
    new = dataclasses.replace(config, resume="never")
    monkeypatch.setenv(LAUNCH_ID, "uid of a Job")
    assert reopen(new) is None
    first = save(config, 3)
    assert reopen(new).path == first
    for other in ("uid of the next Job", "", ""):
        monkeypatch.setenv(LAUNCH_ID, other)
        with pytest.raises(CheckpointError, match="--resume is never"):
            reopen(new)


def test_a_run_without_a_job_is_nobodys(config, monkeypatch):
    new = dataclasses.replace(config, resume="never")
    monkeypatch.setenv(LAUNCH_ID, "")
    assert reopen(new) is None
    with pytest.raises(CheckpointError, match="--resume is never"):
        reopen(new)


def test_a_restart_before_the_first_checkpoint_branches_off_as_the_launch_would(config, tmp_path, caplog):
    reopen(config)
    branch = dataclasses.replace(config, run=tmp_path / "runs" / "2", resume=str(save(config, 3)))
    reopen(branch, launch_id="one")
    shutil.rmtree(branch.run / "checkpoints")  # killed between settings and checkpoints
    assert reopen(branch, launch_id="one").path.name == "step-00000003"
    caplog.clear()
