"""Options are made from settings: each setting has one, with its help text and its default."""

from __future__ import annotations

import argparse
import io
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from distrain.cli.main import main, make_parser, train_arguments
from distrain.cli.options import add_settings, exit_codes, given_settings
from distrain.config import PlanConfig, PrepareConfig, SynthConfig, TrainConfig, settings_of
from distrain.errors import ERROR_BY_EXIT_CODE

CONFIGS = {"synth": SynthConfig, "prepare": PrepareConfig, "train": TrainConfig, "plan": PlanConfig}


@pytest.fixture(scope="module")
def help_of():
    """The help text of each command in one line, without wrapping at hyphens."""
    shown = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLUMNS", "1000")
        for command in CONFIGS:
            with redirect_stdout(io.StringIO()) as output, pytest.raises(SystemExit):
                main([command, "--help"])
            shown[command] = " ".join(output.getvalue().split())
    return shown


@pytest.mark.parametrize("command", CONFIGS)
def test_each_setting_is_in_the_help_with_its_default(help_of, command):
    shown = help_of[command]
    for setting in settings_of(CONFIGS[command]):
        default = f" (default: {setting.shown_default})" if setting.shown_default else ""
        assert f" {setting.option} " in shown
        assert setting.help + default in shown


@pytest.mark.parametrize(
    ("command", "option", "default"),
    [
        ("train", "--global-batch-size", "128"),
        ("train", "--epochs", "100"),
        ("train", "--learning-rate", "0.001"),
        ("train", "--dropout", "0.4 for n-grams, 0.2 for sequences"),
        ("prepare", "--top-k", "20000"),
        ("prepare", "--holdout", "0.1"),
        ("plan", "--seed", "0"),
        ("synth", "--classes", "4"),
    ],
)
def test_defaults_that_a_user_knows(help_of, command, option, default):
    explained = help_of[command].split(f" {option} ")[-1]
    assert explained.split("(default: ")[1].startswith(f"{default})")


def test_settings_that_are_left_out_are_not_given():
    parser = argparse.ArgumentParser()
    add_settings(parser, TrainConfig, may_be_missing=True)
    assert given_settings(parser.parse_args([]), TrainConfig) == {}
    options = parser.parse_args(["--patience", "0", "--no-jit", "--dropout", "0"])
    assert given_settings(options, TrainConfig) == {"patience": 0, "jit_compile": False, "dropout": 0.0}


def test_columns_are_separated_by_commas():
    parser = argparse.ArgumentParser()
    add_settings(parser, PrepareConfig)
    options = parser.parse_args(["--train", "a", "--out", "b", "--text-columns", "title,text"])
    assert given_settings(options, PrepareConfig)["text_columns"] == ("title", "text")


def test_some_settings_only():
    parser = argparse.ArgumentParser()
    add_settings(parser, TrainConfig, only={"data", "seed"})
    assert given_settings(parser.parse_args(["--data", "d", "--seed", "7"]), TrainConfig).keys() == {"data", "seed"}
    with pytest.raises(SystemExit):
        parser.parse_args([])


def test_a_file_gives_what_the_command_line_leaves_out(tmp_path):
    (tmp_path / "c.toml").write_text('run = "r"\nepochs = 3\n')
    config = train_arguments(["--data", "d", "--config", str(tmp_path / "c.toml"), "--epochs", "5"])
    assert config == TrainConfig(data="d", run="r", epochs=5)


def test_exit_codes_come_from_the_errors():
    codes = exit_codes()
    assert list(codes) == [0, *sorted(ERROR_BY_EXIT_CODE)]
    assert codes[3] == "The input or the prepared data is wrong, missing or damaged."


PARSER = make_parser()
ONE_VALUE = {
    command: [
        option
        for action in parser._actions
        for option in action.option_strings
        if option.startswith("--") and action.nargs != 0 and option not in ("--train", "--test")
    ]
    for command, parser in PARSER._subparsers._group_actions[0].choices.items()
}


@pytest.mark.parametrize("command", ONE_VALUE)
def test_an_option_of_one_value_that_is_given_twice_is_refused(command, capsys):
    for option in ONE_VALUE[command]:
        value = {"--log-level": "info", "--part": "test"}.get(option, "1")
        with pytest.raises(SystemExit) as caught:
            PARSER.parse_args([command, option, value, option, value])
        assert caught.value.code == 2
        assert f"{option}: given twice, but it takes one value" in capsys.readouterr().err


def test_options_of_all_commands_are_found():
    assert {command for command, options in ONE_VALUE.items() if options} == {
        "alive", "evaluate", "plan", "predict", "prepare", "replay", "report", "synth", "train", "verify", "doctor",
        "install-horovod",
    }  # fmt: skip


def test_files_may_be_given_one_by_one():
    options = make_parser().parse_args(["prepare", "--train", "a.csv", "--out", "out", "--train", "b.csv"])
    config = PrepareConfig(**given_settings(options, PrepareConfig))
    assert config.train == (Path("a.csv"), Path("b.csv"))
    assert config.test is None


@pytest.mark.parametrize(
    "words",
    [["--train", "a", "b", "c"], ["--train", "a", "--train", "b", "--train=c"], ["--train", "a", "b", "--train", "c"]],
)
def test_several_files_follow_an_option_or_repeat_it(words):
    options = make_parser().parse_args(["prepare", *words, "--out", "d"])
    assert given_settings(options, PrepareConfig) == {"train": [Path("a"), Path("b"), Path("c")], "out": Path("d")}
