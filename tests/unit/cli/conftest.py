"""One process in a folder of its own, with data and a check of failures."""

from __future__ import annotations

import shutil

import pytest

from distrain.cli.main import main


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """Let the command see one process, and run it in an empty folder."""
    for name in ("HOROVOD_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="package")
def made(tmp_path_factory):
    """The folders "text" and "data", made once for all tests of commands."""
    folder = tmp_path_factory.mktemp("made")
    text, data = folder / "text", folder / "data"
    assert main(["synth", "--out", str(text), "--rows", "120", "--words-per-row", "8"]) == 0
    command = ["prepare", "--train", str(text / "train.csv"), "--test", str(text / "test.csv"), "--out", str(data)]
    assert main([*command, "--vectorizer", "ngram", "--top-k", "50"]) == 0
    return folder


@pytest.fixture
def data(made, tmp_path, capsys):
    """Copy text into the folder "text", and the same prepared into the folder "data"."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    capsys.readouterr()
    return "data"


@pytest.fixture
def fails(capsys):
    """`fails(code, words, *arguments)` runs a command that ends with this code and one line with these words."""

    def run(code, words, *arguments):
        assert main([*arguments]) == code
        captured = capsys.readouterr()
        (line,) = captured.err.splitlines()
        assert line.startswith("distrain: error: ")
        assert words in line
        assert captured.out == ""
        return line

    return run
