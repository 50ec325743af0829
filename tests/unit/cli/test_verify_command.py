"""`distrain verify` on data sets and runs: what it prints, and how it ends."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from distrain.cli.main import main
from distrain.data.array_folders.cache import cached_arrays
from distrain.runs.checkpoint import save_checkpoint
from distrain.runs.manifest import record_end, rewriting


@pytest.fixture
def run(data):
    """A run with settings, the vectorizer of `data` and a checkpoint, in the folder "run"."""
    run = Path("run")
    run.mkdir()
    with rewriting(run, "config.json", "vectorizer"):
        text = {"kind": "ngram", "num_features": 50, "max_length": None, "classes": ["a", "b"]}
        (run / "config.json").write_text(json.dumps({"text": text}))
        shutil.copytree(Path(data, "vectorizer"), run / "vectorizer")
    save_checkpoint(run / "checkpoints", 3, {"weight": np.ones(3)}, {"global_step": 3})
    (run / "metrics.jsonl").write_text('{"event": "stop", "step": 3, "epoch": 1, "time": 0.0}\n')
    record_end(run)
    return "run"


def damage(path):
    content = path.read_bytes()
    other = content.replace(b"50", b"51")  # settings that still are JSON
    path.write_bytes(other if path.name == "config.json" else content[:-1] + bytes([content[-1] ^ 1]))


def test_whole_folders(capsys, data, run):
    Path(run, "notes.txt").write_text("mine")
    Path(run, "report.html").write_text("")
    assert main(["verify", data, run]) == 0
    captured = capsys.readouterr()
    size = sum(path.stat().st_size for path in Path(data).rglob("*") if path.is_file())
    files = sum(path.is_file() for path in Path(data).rglob("*"))
    assert captured.out.startswith(
        f"data: data set, {files} files, {size:,} bytes compared: whole\nrun: run, 8 files, "
    )
    assert captured.out.splitlines()[2:] == [
        "  unknown: notes.txt",
        "  not compared: report.html ('distrain report' writes it again)",
    ]
    assert captured.err == ""


def test_arrays_that_distrain_wrote(tmp_path, capsys):
    folder = tmp_path / "cache"
    cached_arrays(folder, {"train": lambda: ((float(number), number) for number in range(9))})
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert main(["verify", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder}: arrays, 3 files, {size:,} bytes compared: whole\n"
    damage(folder / "train.y.npy")
    assert main(["verify", str(folder)]) == 3
    assert "damaged: train.y.npy was changed: its SHA-256 does not fit" in capsys.readouterr().out
    damage(folder / "arrays.json")
    assert main(["verify", "--json", str(folder)]) == 3
    assert list(json.loads(capsys.readouterr().out)["faults"]) == ["arrays.json"]


@pytest.mark.parametrize(
    ("folder", "name", "code"),
    [
        ("data", "vectorizer/vectorizer.safetensors", 3),
        ("data", "train-00000.columns.npy", 3),
        ("data", "dataset.json", 3),
        ("run", "config.json", 4),
        ("run", "manifest.json", 4),
        ("run", "vectorizer/vectorizer.json", 4),
        ("run", "checkpoints/step-00000003/arrays.safetensors", 4),
        ("run", "checkpoints/step-00000003/manifest.json", 4),
    ],
)
@pytest.mark.parametrize("change", [damage, Path.unlink])
def test_a_damaged_or_missing_file_is_named(capsys, data, run, folder, name, code, change):
    change(Path(folder, name))
    assert main(["verify", "--json", data, run]) == code
    captured = capsys.readouterr()
    found = {entry["folder"]: entry for entry in map(json.loads, captured.out.splitlines())}
    assert list(found.pop(folder)["faults"]) == [name]
    assert [entry["faults"] for entry in found.values()] == [{}]
    (line,) = captured.err.splitlines()
    assert line.startswith(f"distrain: error: damaged: {folder} ({name}). ")


def test_both_damaged(capsys, data, run):
    for name in ("data/vectorizer/vectorizer.json", "run/config.json"):
        damage(Path(name))
    assert main(["verify", run, data]) == 4
    captured = capsys.readouterr()
    assert "damaged: run (config.json); data (vectorizer/vectorizer.json)" in captured.err
    assert captured.out.count("  damaged: ") == 2


def test_other_folders_are_refused(fails, run):
    for folder in ("absent", ".", "run/checkpoints/step-00000003", "run/config.json"):
        fails(2, f"{folder} is neither a prepared data set nor a run directory", "verify", folder)


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("config.json", ("report", "run")),
        ("metrics.jsonl", ("report", "run")),
        ("metrics.jsonl", ("plan", "--data", "data", "--replicas", "2", "--run", "run")),
        ("config.json", ("evaluate", "--run", "run", "--data", "data")),
        ("config.json", ("replay", "--run", "run", "--step", "1")),
        ("config.json", ("predict", "--run", "run", "text/test.csv")),
        ("vectorizer/vectorizer.json", ("predict", "--run", "run", "text/test.csv")),
        ("checkpoints/step-00000003/state.json", ("predict", "--run", "run", "text/test.csv")),
    ],
)
def test_a_command_compares_what_it_reads(fails, run, name, command):
    damage(Path(run, name))
    fails(4, f"{run}/{name} ", *command)
