"""`distrain plan` on a folder of arrays and on the data of a function: its table, its audit and its refusals."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from distrain.cli.main import main

MODULE = """
import numpy as np

class Rows(list):
    read_numbers = []
    bad = None

    def __getitem__(self, number):
        self.read_numbers.append(number)
        if number == self.bad:
            return [1.0, 2.0], 0
        return [float(number), 1.0, 2.0], number % 2

def data():
    return {"train": Rows(range(53)), "validation": Rows(range(20)), "map": lambda example: example}

def build():
    import keras
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(2)])
    model.compile("adam", "sparse_categorical_crossentropy")
    return model
"""


@pytest.fixture
def stand(tmp_path, monkeypatch):
    """The module `stand` in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    Path("stand.py").write_text(MODULE)
    import stand

    stand.Rows.read_numbers.clear()
    yield stand
    del sys.modules["stand"]


def planned(capsys, *words):
    """The table of a plan by row name, and the lines after the table."""
    assert main(["plan", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    cells = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    after = [line for line in lines if line[:1] not in "│┌├└╭╰"]
    return dict(cells), " ".join(" ".join(after).split())


def test_a_source_and_its_arrays_have_the_same_plan(capsys, stand, tmp_path):
    folder = tmp_path / "arrays"
    folder.mkdir()
    for part, count in (("train", 53), ("test", 20)):
        np.save(folder / f"{part}.x.npy", np.zeros((count, 3)))
        np.save(folder / f"{part}.y.npy", np.zeros(count, np.int64))
    options = ("--replicas", "3", "--global-batch-size", "9")
    table, after = planned(capsys, "--data", "stand:data", *options, "--audit")
    assert planned(capsys, "--data", "arrays", *options)[0] == table
    wanted = {"training examples": 53, "batch per replica": 3, "batches per epoch": 18, "steps per epoch": 6}
    wanted |= {"examples per replica, last step": "2 to 3", "validation examples": 20, "validation steps": 3}
    assert {name: table[name] for name in wanted} == {name: str(value) for name, value in wanted.items()}
    assert table["batch, per replica"] == "0.1 KiB"  # 3 examples of 4 numbers of 8 bytes
    assert "each of 53 examples is read exactly once. In epoch 1 all were read" in after
    assert set(stand.Rows.read_numbers) == set(range(53))


def test_a_named_model_is_measured(capsys, stand):
    table, _ = planned(capsys, "--data", "stand:data", "--replicas", "2", "--model", "stand:build", "--step-ms", "10")
    assert table["weights"] == "26"
    # 26 weights, their gradients and two moments of Adam in float32; its iteration and learning rate take 12 bytes
    assert table["model, gradients, optimizer, per replica"] == "0.4 KiB"
    assert table["all-reduced per step and replica"] == "0.1 KiB"
    assert table["time per epoch, without evaluation"] == "0.01 s"


def test_the_audit_reads_what_training_would_read(capsys, stand):
    plan = ["plan", "--data", "stand:data", "--replicas", "2", "--global-batch-size", "8"]
    stand.Rows.bad = 17
    assert main(plan) == 0
    assert main([*plan, "--audit"]) == 3
    assert "train of stand:data: example 17 has" in capsys.readouterr().err


def test_what_does_not_suit_is_refused(fails, stand, data):
    plan = ["plan", "--replicas", "2", "--data"]
    fails(2, "--bandwidth-gbs is for prepared text", *plan, "stand:data", "--step-ms", "1", "--bandwidth-gbs", "1")
    fails(2, "stand has no 'nothing'", *plan, "stand:nothing")
    fails(2, "--model is planned for arrays", *plan, data, "--model", "stand:build")
    fails(2, "--global-batch-size is 1", *plan, "stand:data", "--global-batch-size", "1")
