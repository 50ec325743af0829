"""One process in a folder of its own, with data and a check of failures."""

from __future__ import annotations

import pytest

from distrain.cli.main import main


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """Let the command see one process, and run it in an empty folder."""
    for name in ("HOROVOD_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data(tmp_path, capsys):
    """Make prepared text in the folder "data"."""
    assert main(["synth", "--out", "text", "--rows", "120", "--words-per-row", "8"]) == 0
    command = ["prepare", "--train", "text/train.csv", "--test", "text/test.csv", "--out", "data"]
    assert main([*command, "--vectorizer", "ngram", "--top-k", "50"]) == 0
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
