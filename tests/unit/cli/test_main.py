"""What a user's mistakes come to: exit code, one line on standard error, nothing half-written. Needs no TensorFlow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import distrain
from distrain.cli.main import main

ROOT = Path(distrain.__file__).parents[1]

COMMANDS = ["synth", "prepare", "train", "evaluate", "predict", "plan", "report"]


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """One process, whatever starts the tests, in a folder of its own."""
    for name in ("HOROVOD_RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def data(tmp_path, capsys):
    """Prepared text, made by the commands themselves."""
    assert main(["synth", "--out", "text", "--rows", "120", "--words-per-row", "8"]) == 0
    command = ["prepare", "--train", "text/train.csv", "--test", "text/test.csv", "--out", "data"]
    assert main([*command, "--vectorizer", "ngram", "--top-k", "50"]) == 0
    capsys.readouterr()
    return "data"


def fails(capsys, code, words, *arguments):
    """The command ends with this code and one line that has these words; returns the line."""
    assert main([*arguments]) == code
    captured = capsys.readouterr()
    lines = captured.err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("distrain: error: ")
    assert words in lines[0]
    assert captured.out == ""
    return lines[0]


def refused(capsys, words, *arguments):
    """The command line itself is wrong."""
    with pytest.raises(SystemExit) as caught:
        main([*arguments])
    assert caught.value.code == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["--help"], *([command, "--help"] for command in COMMANDS)])
def test_help(capsys, monkeypatch, arguments):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("usage: distrain")
    assert max(map(len, lines)) <= 80


def test_help_names_every_command_and_exit_code(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    out = " ".join(capsys.readouterr().out.split())
    assert all(command in out for command in COMMANDS)
    assert all(f" {code} " in out for code in (0, 2, 3, 4, 5, 6, 42))


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == "distrain 0.1.0\n"


def test_wrong_command_lines(capsys):
    refused(capsys, "COMMAND")
    refused(capsys, "invalid choice: 'fly'", "fly")
    refused(capsys, "unrecognized arguments: --wings", "train", "--wings")
    refused(capsys, "--out", "synth", "--rows", "5")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--devices", "tpu:8"], "--devices is 'tpu:8'"),
        (["--batch-size", "8", "--global-batch-size", "16"], "--global-batch-size is 16"),
        (["--strategy", "magic"], "--strategy is 'magic'"),
        (["--epochs", "0"], "--epochs is 0"),
        (["--epochs", "many"], "--epochs is 'many', but it must be of type int"),
        (["--learning-rate", "nan"], "--learning-rate is nan"),
        (["--seed", "-3"], "--seed is -3"),
        (["--config", "absent.toml"], "absent.toml cannot be read"),
    ],
)
def test_wrong_settings(capsys, tmp_path, options, words):
    fails(capsys, 2, words, "train", "--data", "data", "--run", "run", *options)
    assert list(tmp_path.iterdir()) == []


def test_wrong_settings_of_prepare(capsys, tmp_path):
    fails(capsys, 2, "--vectorizer is 'bert'", "prepare", "--train", "a", "--out", "b", "--vectorizer", "bert")
    assert list(tmp_path.iterdir()) == []


def test_settings_that_are_missing(capsys):
    fails(capsys, 2, "--data", "train", "--run", "run")
    fails(capsys, 2, "--run", "train", "--data", "data")


def test_an_unknown_setting_in_a_file(capsys, tmp_path):
    (tmp_path / "c.toml").write_text("epoch = 3")
    fails(capsys, 2, "'epoch' is not a setting", "train", "--data", "d", "--run", "r", "--config", "c.toml")


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--data", "absent", "--run", "run"],
        ["plan", "--data", "absent", "--replicas", "2"],
    ],
)
def test_data_that_is_not_there(capsys, tmp_path, arguments):
    fails(capsys, 3, "absent is not a prepared data set", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_text_that_is_not_there(capsys, tmp_path):
    assert main(["prepare", "--train", "absent.csv", "--out", "data"]) == 3
    assert "absent.csv" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_arrays_need_a_model(capsys, tmp_path):
    (tmp_path / "arrays").mkdir()
    (tmp_path / "arrays" / "train.y.npy").touch()
    fails(capsys, 2, "name your model, --model", "train", "--data", "arrays", "--run", "run")


@pytest.mark.parametrize("command", [["predict"], ["evaluate", "--data", "data"], ["report"]])
def test_a_run_that_is_none(capsys, tmp_path, command):
    (tmp_path / "notes").mkdir()
    for run in ("absent", "notes"):
        arguments = [*command, run] if command == ["report"] else [*command, "--run", run]
        fails(capsys, 4, run, *arguments)


def test_errors_of_one_rank_among_many_say_which(capsys, monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "3")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    line = fails(capsys, 3, "absent", "plan", "--data", "absent", "--replicas", "2")
    assert line.startswith("distrain: error: rank 3: ")


def test_plan_fits_80_columns(capsys, monkeypatch, data):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["plan", "--data", data, "--replicas", "6", "--batch-size", "5"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = captured.out.splitlines()
    assert max(map(len, lines)) <= 80
    shown = dict(line.strip("│|┃ ").rsplit("  ", 1) for line in lines if "steps" in line or "batches" in line)
    shown = {name.strip(" │"): value.strip(" │") for name, value in shown.items()}
    assert shown["batches per epoch"] == "24"
    assert shown["steps per epoch"] == "4"
    assert "Audit" not in captured.out


def test_plan_tells_the_time(capsys, monkeypatch, data):
    monkeypatch.setenv("COLUMNS", "80")
    plan = ["plan", "--data", data, "--replicas", "2"]
    assert main([*plan, "--step-ms", "2.5", "--bandwidth-gbs", "10"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    shown = "\n".join(" ".join(line.strip("│ ").split()) for line in lines)
    assert "step, computing │ 2.50 ms" in shown
    assert "time per epoch" in shown
    assert main([*plan, "--step-ms", "2.5"]) == 0
    assert "not counted" in capsys.readouterr().out
    fails(capsys, 2, "--step-ms", *plan, "--bandwidth-gbs", "10")
    fails(capsys, 2, "--step-ms is 0.0", *plan, "--step-ms", "0")
    fails(capsys, 2, "--run is 'run'", *plan, "--step-ms", "1", "--run", "run")
    fails(capsys, 4, "absent is not there", *plan, "--run", "absent")


def test_plan_of_more_replicas_than_batches(capsys, data):
    assert main(["plan", "--data", data, "--replicas", "50", "--batch-size", "5"]) == 0
    assert "26 of 50 replicas have nothing to do" in capsys.readouterr().err


def test_plan_audits(capsys, data):
    assert main(["plan", "--data", data, "--replicas", "7", "--audit"]) == 0
    assert "each of 120 examples is read exactly once" in " ".join(capsys.readouterr().out.split())


def test_plan_of_an_impossible_run(capsys, data):
    fails(capsys, 2, "--replicas is 0", "plan", "--data", data, "--replicas", "0")
    fails(capsys, 2, "--global-batch-size is 3", "plan", "--data", data, "--replicas", "4", "--global-batch-size", "3")


def test_plan_of_damaged_data(capsys, data, tmp_path):
    (tmp_path / data / "train-00000.columns.npy").write_bytes(b"")
    fails(capsys, 3, "train-00000.columns.npy has 0 bytes", "plan", "--data", data, "--replicas", "2")


@pytest.mark.parametrize(
    ("code", "arguments"),
    [
        (0, ["plan", "--data", "data", "--replicas", "2"]),
        (0, ["synth", "--out", "more", "--rows", "5"]),
        (2, ["prepare", "--train", "train.csv", "--out", "again"]),  # unfinished: it must not look done
    ],
)
@pytest.mark.usefixtures("data")
def test_a_reader_that_leaves(code, arguments, tmp_path):
    """As with `distrain plan | head -1`: the reading end is closed before anything is written."""
    (tmp_path / "train.csv").write_text("".join(f'"{1 + row % 2}","some words of row {row}"\n' for row in range(100)))
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "distrain", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""}  # written at the end, as by default
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, env=environment, check=False)
    os.close(write)
    assert done.returncode == code
    assert (b"standard output was closed" in done.stderr) == (code == 2)


def test_an_interrupt_is_told(monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("distrain.data.dataset_index.open_dataset", interrupt)
    assert main(["plan", "--data", "data", "--replicas", "2"]) == 130
    assert capsys.readouterr().err == "distrain: interrupted; nothing half-written is left\n"


def test_the_arguments_are_those_of_the_process_by_default(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["distrain", "plan", "--data", "absent", "--replicas", "2"])
    assert main() == 3
    assert "absent" in capsys.readouterr().err
