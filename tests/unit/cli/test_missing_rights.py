"""A file that may not be read ends a command with a sentence that names the file, and the exit code of its kind."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from small_datasets import ragged, write_dataset
from unprivileged import unprivileged

from distrain.cli.main import main
from distrain.data.prepared.dataset_index import open_dataset
from distrain.errors import DataError
from distrain.runs.checkpoint import save_checkpoint


@pytest.fixture(scope="module")
def folder():
    """A data set and a run in a folder that everybody may open, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        write_dataset(folder / "data", [ragged([3] * 9)], test=[ragged([3])])
        run = folder / "run"
        save_checkpoint(run / "checkpoints", 4, {}, {"global_step": 4})
        (run / "config.json").write_text("{}")
        main(["plan", "--data", str(folder / "data"), "--replicas", "1"])  # imports what the command needs
        yield folder


@pytest.mark.parametrize(
    ("name", "code", "command"),
    [
        ("data", 3, "plan --replicas 1 --data data"),
        ("data/dataset.json", 3, "plan --replicas 1 --data data"),
        ("data/train-00000.labels.npy", 3, "plan --replicas 1 --data data --audit"),
        ("data/train-00000.columns.npy", 3, "plan --replicas 1 --data data"),
        ("run/checkpoints", 3, "report run"),
        ("run", 4, "alive --run run"),
    ],
)
def test_a_file_that_may_not_be_read(folder, monkeypatch, capsys, name, code, command):
    path, words = folder / name, [str(folder / word) if word in ("data", "run") else word for word in command.split()]
    mode = path.stat().st_mode
    path.chmod(0)
    try:
        with unprivileged():
            assert main(words) == code
    finally:
        path.chmod(mode)
    (line,) = capsys.readouterr().err.splitlines()[-1:]
    assert line.startswith(f"distrain: error: {path}")
    assert "Permission denied" in line
    assert "damaged" not in line


def test_a_shard_that_is_opened_late(folder):
    part = open_dataset(folder / "data").parts["train"]
    path = folder / "data" / "train-00000.columns.npy"
    path.chmod(0)
    try:
        with unprivileged(), pytest.raises(DataError, match=r"columns\.npy cannot be read: Permission denied"):
            part.read(0, 3)
    finally:
        path.chmod(0o644)
