"""A checkpoint is whole or absent, and cannot run code."""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path

import numpy as np
import pytest

import distrain
from distrain.errors import CheckpointError
from distrain.runs.checkpoint import (
    checkpoint_path,
    find_checkpoint,
    list_checkpoints,
    load_checkpoint,
    newest_checkpoint,
    remove_checkpoints,
    retain_checkpoints,
    save_checkpoint,
    tidy_checkpoints,
)

ARRAYS = {
    "model/0000": np.arange(6, dtype=np.float32).reshape(2, 3).T,  # not contiguous
    "model/0001": np.array([7], np.uint32),
    "optimizer/iteration": np.int64(2**40),
    "empty": np.zeros((0, 3), np.float16),
}
STATE = {"epoch": 3, "position": 64, "name": "é", "loss": 0.1}


@pytest.fixture(autouse=True)
def no_other_warnings(caplog):
    """A test that expects a warning clears the log."""
    yield
    assert caplog.get_records("call") == []


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_was_saved_is_loaded(tmp_path):
    path = save_checkpoint(tmp_path / "checkpoints", 12, ARRAYS, STATE)
    assert path == tmp_path / "checkpoints" / "step-00000012"
    checkpoint = load_checkpoint(path)
    assert checkpoint.state == STATE
    assert set(checkpoint.arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        loaded = checkpoint.arrays[name]
        assert (loaded.shape, loaded.dtype) == (np.shape(array), array.dtype)
        assert np.array_equal(loaded, array)
    assert len({file.stat().st_mode for file in path.iterdir()}) == 1, "who may read one may read all"
    assert checkpoint.arrays["optimizer/iteration"].shape == ()


def test_one_of_the_same_step_is_replaced(tmp_path):
    save_checkpoint(tmp_path, 1, ARRAYS, {"epoch": 1})
    save_checkpoint(tmp_path, 1, ARRAYS, {"epoch": 2})
    assert names(tmp_path) == ["step-00000001"]
    assert newest_checkpoint(tmp_path).state == {"epoch": 2}


@pytest.mark.parametrize("moment", ["state", "arrays", "sync", "rename"])
def test_an_exception_while_saving_leaves_what_was_there(tmp_path, monkeypatch, moment):
    save_checkpoint(tmp_path, 1, ARRAYS, STATE)
    arrays, state = dict(ARRAYS), dict(STATE)

    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    if moment == "state":
        state["bad"] = object()
    elif moment == "arrays":
        arrays["bad"] = np.array([object()])
    elif moment == "sync":
        monkeypatch.setattr(os, "fsync", fail)
    else:
        monkeypatch.setattr(Path, "rename", fail)
    with pytest.raises(Exception, match=r"JSON|object|dtype|No space"):
        save_checkpoint(tmp_path, 2, arrays, state)
    assert names(tmp_path) == ["step-00000001"]
    assert newest_checkpoint(tmp_path).state == STATE


def test_every_file_is_synced_before_the_checkpoint_appears(tmp_path, monkeypatch):
    """Data and manifest reach the disk first, then the name does."""
    events = []
    fsync, rename = os.fsync, Path.rename

    def watched_fsync(descriptor):
        events.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def watched_rename(self, target):
        events.append(f"-> {Path(target).name}")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", watched_fsync)
    monkeypatch.setattr(Path, "rename", watched_rename)
    save_checkpoint(tmp_path, 5, ARRAYS, STATE)
    files = ["arrays.safetensors", "manifest.json", "state.json"]
    assert events == [*files, ".step-00000005.tmp", "-> step-00000005", tmp_path.name]


def spoilt_manifest(**changes):
    def spoil(path):
        manifest = json.loads((path / "manifest.json").read_text())
        (path / "manifest.json").write_text(json.dumps(manifest | changes))

    return spoil


def flip(path):
    content = bytearray((path / "arrays.safetensors").read_bytes())
    content[-1] ^= 1
    (path / "arrays.safetensors").write_bytes(content)


DAMAGE = [
    flip,
    lambda path: os.truncate(path / "arrays.safetensors", 40),
    lambda path: (path / "arrays.safetensors").unlink(),
    lambda path: (path / "state.json").write_text("{}"),
    lambda path: (path / "state.json").unlink(),
    lambda path: (path / "manifest.json").unlink(),
    lambda path: (path / "manifest.json").write_text(""),
    lambda path: (path / "manifest.json").write_text("[" * 100_000),
    lambda path: (path / "manifest.json").write_text("[]"),
    lambda path: (path / "manifest.json").write_bytes(b"\xff"),
    spoilt_manifest(version=2),
    spoilt_manifest(format="zip"),
    spoilt_manifest(files={}),
    spoilt_manifest(files=[]),
]


@pytest.mark.parametrize("spoil", DAMAGE)
def test_a_damaged_newest_checkpoint_is_skipped_with_a_warning(tmp_path, spoil, caplog):
    save_checkpoint(tmp_path, 1, ARRAYS, {"epoch": 1})
    newest = save_checkpoint(tmp_path, 2, ARRAYS, {"epoch": 2})
    spoil(newest)
    with pytest.raises(CheckpointError, match="step-00000002"):
        load_checkpoint(newest)
    assert newest_checkpoint(tmp_path).state == {"epoch": 1}
    assert len(caplog.messages) == 1
    assert str(newest) in caplog.text
    caplog.clear()


def test_if_no_checkpoint_can_be_used_training_does_not_start_over(tmp_path, caplog):
    for step in (1, 2):
        flip(save_checkpoint(tmp_path, step, ARRAYS, STATE))
    with pytest.raises(CheckpointError, match="None of the 2 checkpoints"):
        newest_checkpoint(tmp_path)
    assert len(caplog.messages) == 2
    caplog.clear()
    assert newest_checkpoint(tmp_path / "absent") is None


def test_the_newest_has_the_most_steps(tmp_path):
    for step in (99_999_999, 100_000_000, 7):
        save_checkpoint(tmp_path, step, {}, {"step": step})
    assert newest_checkpoint(tmp_path).state["step"] == 100_000_000


@pytest.mark.parametrize(
    ("keep", "best_step", "kept"),
    [
        (2, None, [40, 50]),
        (2, 20, [20, 40, 50]),
        (2, 50, [40, 50]),
        (1, 40, [40, 50]),
        (9, 10, [10, 20, 30, 40, 50]),
        (1, 99, [50]),
    ],
)
def test_the_newest_and_the_best_are_kept(tmp_path, keep, best_step, kept):
    for step in (10, 20, 30, 40, 50):
        save_checkpoint(tmp_path, step, ARRAYS, STATE)
    (tmp_path / ".step-00000060.tmp").mkdir()
    (tmp_path / "notes.txt").write_text("the user's own")
    retain_checkpoints(tmp_path, keep=keep, best_step=best_step)
    assert list_checkpoints(tmp_path) == [checkpoint_path(tmp_path, step) for step in kept]
    assert (tmp_path / "notes.txt").exists()
    assert not list(tmp_path.glob(".step-*"))


def test_half_written_folders_are_no_checkpoints(tmp_path):
    for name in (".step-00000003.tmp", ".step-00000003.old", "step-3", "step-00000003.bak"):
        (tmp_path / name).mkdir()
    assert list_checkpoints(tmp_path) == []


def test_a_replaced_checkpoint_that_a_kill_left_under_its_old_name_is_found(tmp_path):
    save_checkpoint(tmp_path, 3, ARRAYS, {"epoch": 1})
    replaced = save_checkpoint(tmp_path, 5, ARRAYS, {"epoch": 2}).rename(tmp_path / ".step-00000005.old")
    assert list_checkpoints(tmp_path) == [tmp_path / "step-00000003", replaced]
    assert find_checkpoint(tmp_path, 5) == newest_checkpoint(tmp_path).path == replaced
    retain_checkpoints(tmp_path, keep=2, best_step=None)
    assert newest_checkpoint(tmp_path).state == {"epoch": 2}
    replaced = checkpoint_path(tmp_path, 5).rename(replaced)
    tidy_checkpoints(tmp_path)
    assert names(tmp_path) == ["step-00000003", "step-00000005"]
    save_checkpoint(tmp_path, 5, ARRAYS, {"epoch": 3})
    assert newest_checkpoint(tmp_path).state == {"epoch": 3}
    assert find_checkpoint(tmp_path, 7) == checkpoint_path(tmp_path, 7)


def test_the_newer_of_two_counts(tmp_path):
    save_checkpoint(tmp_path, 5, ARRAYS, {"epoch": 1}).rename(tmp_path / ".step-00000005.old")
    save_checkpoint(tmp_path / "other", 5, ARRAYS, {"epoch": 2}).rename(tmp_path / "step-00000005")
    (tmp_path / "other").rmdir()
    assert newest_checkpoint(tmp_path).state == {"epoch": 2}
    retain_checkpoints(tmp_path, keep=1, best_step=None)
    assert names(tmp_path) == ["step-00000005"]


def test_an_interrupted_removal_leaves_nothing_to_load(tmp_path, monkeypatch):
    path = save_checkpoint(tmp_path, 1, ARRAYS, STATE)
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda *_, **__: os.close(2**20))
        with pytest.raises(OSError, match="Bad file descriptor"):
            remove_checkpoints([path])
    assert list_checkpoints(tmp_path) == []
    assert names(tmp_path) != []
    retain_checkpoints(tmp_path, keep=1, best_step=None)
    assert names(tmp_path) == []


def forbidden(path):
    """Yield the statements of a source file that could run the content of a file."""
    banned_modules = {"pickle", "cPickle", "dill", "cloudpickle", "shelve", "marshal", "joblib"}
    banned_calls = {"eval", "exec", "__import__"}
    source = path.read_text(encoding="utf-8")
    if not any(name in source for name in banned_modules | banned_calls | {"allow_pickle"}):
        return
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            imported = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            if banned_modules & {name.split(".")[0] for name in imported}:
                yield f"{path.name}:{node.lineno} imports {imported}"
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in banned_calls:
                yield f"{path.name}:{node.lineno} calls {node.func.id}"
            may_pickle = any(
                keyword.arg == "allow_pickle" and getattr(keyword.value, "value", True) is not False
                for keyword in node.keywords
            )
            if may_pickle:
                yield f"{path.name}:{node.lineno} allows pickle"


# Data workers get the source and `map` by pickle, through a pipe from the process that started them, and answer arrays.
SENDS_TO_OWN_PROCESSES = {"data/workers/main.py", "data/workers/messages.py", "data/workers/pool.py"}


def test_nothing_in_the_package_can_run_what_it_reads(tmp_path):
    package = Path(distrain.__file__).parent
    sources = sorted(package.rglob("*.py"))
    assert len(sources) > 30
    found = {str(path.relative_to(package)) for path in sources if list(forbidden(path))}
    assert found == SENDS_TO_OWN_PROCESSES
    bad = tmp_path / "bad.py"
    bad.write_text("import pickle\nfrom dill import loads\neval('1')\nnumpy.load(f, allow_pickle=True)\n")
    assert len(list(forbidden(bad))) == 4
