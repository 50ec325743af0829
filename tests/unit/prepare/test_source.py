"""`distrain prepare --source` writes what a function returns as a folder of arrays; text options are refused."""

from __future__ import annotations

import numpy as np
import pytest

from distrain.cli.main import main
from distrain.data.array_folders.folder import open_array_folder

MODULE = """
import itertools
def rows():
    return (([float(n), 0.0], n) for n in range(50))
def parts():
    return {"train": rows, "validation": [([1.0, 2.0], 3)] * 7, "test": rows(), "map": str}
def endless():
    return (([float(n)], n) for n in itertools.count())
def ragged():
    return ((list(range(1 + n // 40)), n) for n in range(50))
"""


@pytest.fixture(autouse=True)
def _module(tmp_path, monkeypatch):
    (tmp_path / "shop_of_source.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


def prepare(*arguments):
    return main(["prepare", *map(str, arguments)])


def test_each_part_becomes_arrays_and_a_second_run_replaces_them(tmp_path, capsys):
    for _ in range(2):
        assert prepare("--source", "shop_of_source:parts", "--out", "data") == 0
    captured = capsys.readouterr()
    assert "writing train" in captured.out
    assert "50 examples" in captured.out
    assert "map is not part of the folder" in captured.err
    parts = open_array_folder(tmp_path / "data")
    assert {name: part.num_examples for name, part in parts.items()} == {"train": 50, "validation": 7, "test": 50}
    np.testing.assert_array_equal(np.load("data/train.y.npy"), np.arange(50))


def test_rows_are_bounded(tmp_path):
    assert prepare("--source", "shop_of_source:endless", "--out", "data", "--max-rows", 1234) == 0
    assert open_array_folder(tmp_path / "data")["train"].num_examples == 1234


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--source", "shop_of_source:rows", "--train", "a.csv"], 2, "--train is about text, which --source does not"),
        (["--source", "shop_of_source:rows", "--top-k", "20000"], 2, "--top-k is about text, which --source does not"),
        (["--source", "shop_of_source"], 2, "--source is 'shop_of_source', but it must be package.module:function"),
        (["--source", "shop_of_source:lost"], 2, "--source shop_of_source:lost cannot be found"),
        (["--source", "shop_of_source:rows", "--max-rows", "0"], 2, "--max-rows is 0, but it must be at least 1"),
        (["--source", "shop_of_source:ragged"], 3, "train: example 40 has"),
        ([], 2, "--train is None, but it must be given, or --source for data of your own"),
    ],
)
def test_other_calls_are_refused_in_a_sentence(tmp_path, capsys, arguments, code, words):
    assert prepare(*arguments, "--out", "data") == code
    assert words in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_prepared_text_is_not_replaced(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "dataset.json").write_text("{}")
    assert prepare("--source", "shop_of_source:rows", "--out", "data") == 2
    assert "holds 'dataset.json', which distrain did not write" in capsys.readouterr().err
