"""A user's mistake ends with an exit code and one line on standard error, and leaves nothing half-written."""

from __future__ import annotations

import logging
import re
import sys

import pytest

from distrain.cli.main import main
from distrain.errors import ERROR_BY_EXIT_CODE
from distrain.version import __version__

COMMANDS = [
    "synth", "prepare", "train", "replay", "evaluate", "predict", "plan", "report", "alive", "verify", "doctor",
    "install-horovod",
]  # fmt: skip


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
    out = capsys.readouterr().out
    assert all(f"\n    {command} " in out.replace("\n     ", " ") for command in COMMANDS)
    codes = {int(code) for code in re.findall(r"^  (\d+) +\w", out.split("exit codes:")[1], re.MULTILINE)}
    assert codes == {0, *ERROR_BY_EXIT_CODE} == {0, 2, 3, 4, 5, 6, 42}


def test_version(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr().out == f"distrain {__version__}\n"


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
def test_wrong_settings(fails, tmp_path, options, words):
    fails(2, words, "train", "--data", "data", "--run", "run", *options)
    assert list(tmp_path.iterdir()) == []


def test_wrong_settings_of_prepare(fails, tmp_path):
    fails(2, "--vectorizer is 'bert'", "prepare", "--train", "a", "--out", "b", "--vectorizer", "bert")
    assert list(tmp_path.iterdir()) == []


def test_settings_that_are_missing(fails):
    fails(2, "--data", "train", "--run", "run")
    fails(2, "--run", "train", "--data", "data")


def test_an_unknown_setting_in_a_file(fails, tmp_path):
    (tmp_path / "c.toml").write_text("epoch = 3")
    fails(2, "'epoch' is not a setting", "train", "--data", "d", "--run", "r", "--config", "c.toml")


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--data", "absent", "--run", "run"],
        ["plan", "--data", "absent", "--replicas", "2"],
    ],
)
def test_data_that_is_not_there(fails, tmp_path, arguments):
    fails(3, "absent is not a prepared data set", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_text_that_is_not_there(capsys, tmp_path):
    assert main(["prepare", "--train", "absent.csv", "--out", "data"]) == 3
    assert "absent.csv" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_arrays_need_a_model(fails, tmp_path):
    (tmp_path / "arrays").mkdir()
    (tmp_path / "arrays" / "train.y.npy").touch()
    fails(2, "name your model, --model", "train", "--data", "arrays", "--run", "run")


@pytest.mark.parametrize("command", [["predict"], ["evaluate", "--data", "data"], ["report"]])
def test_a_folder_that_is_no_run(fails, tmp_path, command):
    (tmp_path / "notes").mkdir()
    for run in ("absent", "notes"):
        arguments = [*command, run] if command == ["report"] else [*command, "--run", run]
        fails(4, run, *arguments)


def test_an_error_of_one_rank_among_many_names_the_rank(fails, monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "3")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    line = fails(3, "absent", "plan", "--data", "absent", "--replicas", "2")
    assert line.startswith("distrain: error: rank 3: ")


def test_an_interrupt_ends_with_a_line(monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("distrain.data.prepared.dataset_index.open_dataset", interrupt)
    assert main(["plan", "--data", "data", "--replicas", "2"]) == 130
    assert capsys.readouterr().err == "distrain: interrupted; nothing half-written is left\n"


def test_the_default_arguments_come_from_the_process(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["distrain", "plan", "--data", "absent", "--replicas", "2"])
    assert main() == 3
    assert "absent" in capsys.readouterr().err


def fake_plan(*_, **__):
    """Log one message of each level."""
    for level in ("debug", "info", "warning", "error"):
        logging.getLogger("distrain.data").log(logging.getLevelName(level.upper()), "a message")
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("options", "levels"),
    [
        ([], ["warning", "error"]),
        (["--log-level", "debug"], ["debug", "info", "warning", "error"]),
        (["--log-level", "error"], ["error"]),
    ],
)
def test_the_log_level(monkeypatch, capsys, options, levels):
    monkeypatch.setattr("distrain.data.prepared.dataset_index.open_dataset", fake_plan)
    main(["plan", "--data", "data", "--replicas", "2", *options])
    lines = [line for line in capsys.readouterr().err.splitlines() if "World(" not in line]
    assert lines[:-1] == [f"distrain: {level}: a message" for level in levels]


def test_another_rank_logs_errors_only(monkeypatch, capsys):
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setattr("distrain.data.prepared.dataset_index.open_dataset", fake_plan)
    main(["plan", "--data", "data", "--replicas", "2", "--log-level", "debug"])
    assert capsys.readouterr().err.splitlines()[:-1] == ["distrain: error: a message"]
