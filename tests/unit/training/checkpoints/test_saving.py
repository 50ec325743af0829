"""Saves run in a thread: training goes on, each save waits for the save before, and no failure is lost."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from distrain.array_files import PIECE_BYTES
from distrain.cluster.process_group import SingleProcess
from distrain.errors import CheckpointError, DivergenceError
from distrain.runs.checkpoint import load_checkpoint, save_checkpoint
from distrain.runs.lock import hold_run
from distrain.runs.manifest import load_own_checkpoint, read_manifest
from distrain.runs.progress import Progress
from distrain.training.checkpoints import saving
from distrain.training.checkpoints.saving import Saver


class Reports:
    """Remembers the steps of reported checkpoints."""

    def __init__(self):
        self.steps = []

    def checkpoint(self, *, step, path, **_):
        assert load_checkpoint(path).state["global_step"] == step
        self.steps.append(step)


class Run:
    """A saver of a held run directory, whose writes wait for `may_write`."""

    def __init__(self, folder, monkeypatch):
        self.may_write, self.reports = threading.Event(), Reports()
        self.weights, self.callback_state = np.zeros(3, np.float32), np.zeros(2)
        config = SimpleNamespace(run=folder, keep=2, epochs=9)
        setup = SimpleNamespace(
            config=config,
            distribution=SimpleNamespace(group=SingleProcess()),
            was_complete=True,
            model_state=SimpleNamespace(layout=dict),
            description={},
            architecture=None,
            job=SimpleNamespace(data_digest="0"),
        )
        monkeypatch.setattr(saving, "StateCheck", lambda setup: self)
        monkeypatch.setattr(saving, "save_checkpoint", self._save)
        early_stopping = SimpleNamespace(best_step=1, state=dict)
        callbacks = SimpleNamespace(state=lambda: ({}, {"callback": self.callback_state}))
        limits = SimpleNamespace(seconds=lambda: 1.0)
        self.make_saver = lambda: Saver(setup, early_stopping, callbacks, limits, self.reports)
        self.saver = self.make_saver()

    def _save(self, *arguments):
        assert self.may_write.wait(20)
        return save_checkpoint(*arguments)

    def arrays(self, step):
        return {"model/0000": self.weights.copy()}

    def save(self, step):
        self.saver.save(Progress(global_step=step), epoch=0)


@pytest.fixture
def run(tmp_path, monkeypatch):
    with hold_run(tmp_path / "run"):
        run = Run(tmp_path / "run", monkeypatch)
        yield run
        run.may_write.set()


def test_training_goes_on_while_a_copy_is_written(run, tmp_path):
    with run.saver as saver:
        run.save(1)
        run.weights += 1
        run.callback_state += 1
        saver.poll(None)
        assert run.reports.steps == []
        run.may_write.set()
        saver.wait()
        assert run.reports.steps == [1]
        arrays = load_checkpoint(tmp_path / "run" / "checkpoints" / "step-00000001").arrays
        assert not arrays["model/0000"].any()
        assert not arrays["callback"].any()


def test_each_save_waits_for_the_save_before_and_the_end_for_the_last(run):
    with run.saver:
        run.save(1)
        second = threading.Thread(target=run.save, args=(2,))
        second.start()
        second.join(0.2)
        assert second.is_alive()
        run.may_write.set()
        second.join(20)
        assert run.reports.steps == [1]
    assert run.reports.steps == [1, 2]


def test_a_step_that_is_saved_again_has_no_record_until_it_is_whole(run, tmp_path):
    record, records = "checkpoints/step-00000001/manifest.json", []
    run.may_write.set()
    with run.saver as saver:
        for weight in (1, 2):
            run.weights[:] = weight
            run.may_write.clear()
            run.save(1)
            manifest = read_manifest(tmp_path / "run")
            records.append(manifest and manifest.files[record])
            run.may_write.set()
            saver.wait()
            assert read_manifest(tmp_path / "run").files[record]
            saved = load_own_checkpoint(tmp_path / "run" / "checkpoints" / "step-00000001")
            assert saved.arrays["model/0000"][0] == weight
    assert records == [None, None]  # at first no manifest, then no record in it


def test_old_checkpoints_are_removed_after_each_save(run, tmp_path):
    run.may_write.set()
    with run.saver:
        for step in (1, 2, 3, 4):
            run.save(step)
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["step-00000001", "step-00000003", "step-00000004"]


@pytest.mark.parametrize("waits", ["next save", "end"])
def test_the_thread_rests_between_pieces_until_somebody_waits(run, monkeypatch, waits):
    monkeypatch.setattr(saving, "CORE_SHARE", 1e-9)
    run.may_write.set()
    run.weights = np.zeros(3 * PIECE_BYTES, np.uint8)
    saver = run.saver = run.make_saver()
    with saver:
        run.save(1)
        save = saver._running.written
        with pytest.raises(TimeoutError):
            save.result(0.5)
        if waits == "next save":
            run.save(2)
            assert run.reports.steps == [1]
            with pytest.raises(TimeoutError):  # the next save rests again
                saver._running.written.result(0.5)
    assert run.reports.steps == [1, 2] if waits == "next save" else [1]


def fail(run, tmp_path):
    (tmp_path / "run" / "checkpoints").write_text("in the way")
    run.may_write.set()
    run.save(1)


def test_the_next_step_tells_of_a_failed_save(run, tmp_path):
    with run.saver as saver:
        fail(run, tmp_path)
        while not saver._running.written.done():
            threading.Event().wait(0.01)
        with pytest.raises(CheckpointError, match="step-00000001 cannot be written"):
            saver.poll(None)
    assert run.reports.steps == []


def test_a_failed_save_is_told_at_the_end_as_well(run, tmp_path, caplog):
    with pytest.raises(CheckpointError, match="cannot be written"), run.saver:
        fail(run, tmp_path)


def test_a_failed_save_beside_another_error_is_a_warning(run, tmp_path, caplog):
    fail(run, tmp_path)
    with pytest.raises(DivergenceError, match="first"), run.saver:
        raise DivergenceError("first")
    assert "step-00000001 cannot be written" in caplog.text
