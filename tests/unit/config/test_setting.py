"""Constructor, TOML file and command line refuse the same values with the same message; settings have help texts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distrain.cli import train_command
from distrain.cli.main import make_parser
from distrain.config import PlanConfig, PrepareConfig, SynthConfig, TrainConfig, settings_of, train_config
from distrain.config.setting import Duration
from distrain.errors import ConfigurationError

PARSER = make_parser()
CONFIGS = [SynthConfig, PrepareConfig, TrainConfig, PlanConfig]

TEXT = st.text(st.characters(exclude_categories=["C"]), max_size=20)
VALUES = {
    Duration: TEXT | st.sampled_from(["90", "0", "1h30m", "2m", "0h0s", "1.5", "1h1", "1d", "-1", "1e3", "nan", "m"]),
    int: st.integers() | st.integers(-2, 3),
    float: st.floats(),
    str: TEXT | st.sampled_from(["auto", "mirrored", "mpi", "fp16", "cpu:2", "cpu:0", "gpu:0,1", "a.b:c", "a:b:c"]),
    Path: st.text("ab.", min_size=1, max_size=9) | st.just("run.prom"),
}


@st.composite
def settings_with_values(draw):
    """A setting of a run and a value of its type, or a word where a number belongs."""
    setting = draw(st.sampled_from([setting for setting in settings_of(TrainConfig) if setting.kind is not bool]))
    word = st.text("xyz", min_size=1) if setting.kind in (int, float) else st.nothing()
    return setting, draw(VALUES[setting.kind] | word)


def outcome(make, *arguments, **settings):
    """The configuration, or the message of its refusal."""
    try:
        return make(*arguments, **settings)
    except ConfigurationError as error:
        return str(error)


def train_arguments(words):
    """The configuration of `distrain train` with these words."""
    return train_command.config_of(PARSER.parse_args(["train", *words]))


@given(settings_with_values())
def test_constructor_file_and_command_line_agree(tmp_path_factory, setting_with_value):
    setting, value = setting_with_value
    others = {"data": "d", "run": "r"}
    path = tmp_path_factory.getbasetemp() / "settings.toml"
    written = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
    path.write_text(f"{setting.name} = {written}\n", encoding="utf-8")
    words = [f"--{name}={others[name]}" for name in others if name != setting.name]

    by_constructor = outcome(TrainConfig, **{**others, setting.name: value})
    by_file = outcome(train_config, {name: others[name] for name in others if name != setting.name}, path)
    by_command_line = outcome(train_arguments, [*words, f"{setting.option}={value}"])
    assert by_file == by_constructor
    assert by_command_line == by_constructor


@pytest.mark.parametrize("config", CONFIGS)
def test_each_setting_has_help(config):
    for setting in settings_of(config):
        assert len(setting.help) > 10, setting.name
        assert not setting.help.endswith("."), setting.name
        assert setting.help[0] == setting.help[0].lower(), setting.name


@pytest.mark.parametrize("config", CONFIGS)
def test_each_default_is_allowed(config):
    for setting in settings_of(config):
        if not setting.is_required:
            setting.check(setting.default)  # its error names the setting


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("top_k", True),
        ("top_k", 1.0),
        ("top_k", "5"),
        ("holdout", "0.1"),
        ("text_columns", "text"),
        ("text_columns", (1, 2)),
        ("train", 5),
        ("seed", None),
    ],
)
def test_a_value_of_another_type_is_refused(name, value):
    with pytest.raises(ConfigurationError, match="must be of type"):
        PrepareConfig(**{"train": "a.csv", "out": "b", name: value})


HUGE = [10**400, -(10**400), 10**5000, -(10**5000)]  # no float holds them, and Python writes the last two in hex only


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("value", HUGE, ids=["400", "-400", "5000", "-5000"])
def test_an_integer_of_absurd_size_is_refused(config, value):
    for setting in settings_of(config):
        for wrong in (value, [value], {"a": value}):
            assert "but it must be" in (outcome(setting.check, wrong) or ""), setting.name


@pytest.mark.parametrize("digits", [400, 20_000])
def test_a_file_with_an_integer_of_absurd_size_is_refused(tmp_path, digits):
    path = tmp_path / "settings.toml"
    path.write_text(f"learning_rate = 0x{'f' * digits}\n")
    with pytest.raises(ConfigurationError, match=r"--learning-rate is .*, but it must be above 0 and finite"):
        train_config({"data": "d", "run": "r"}, path)


def test_numpy_numbers_are_numbers():
    np = pytest.importorskip("numpy")
    assert TrainConfig(data="d", run="r", epochs=np.int64(3), learning_rate=np.float32(0.5)).epochs == 3


def test_paths_and_lists_are_converted():
    config = PrepareConfig(train="a.csv", out="b", text_columns=["title", "text"])
    assert (config.train, config.text_columns) == ((Path("a.csv"),), ("title", "text"))


def test_what_ranks_and_resumed_runs_may_change():
    may_differ = {setting.name for setting in settings_of(TrainConfig) if setting.may_differ}
    may_change = {setting.name for setting in settings_of(TrainConfig) if setting.may_change}
    assert may_differ == {"data", "data_workers", "run", "devices", "prometheus", "metrics_port"}
    assert not may_change & {
        "model", "batch_size", "global_batch_size", "compression", "learning_rate", "seed",
        "warmup_steps", "schedule", "scale_learning_rate", "clip_norm", "ema",
        "monitor", "mode", "limit_batches", "class_weight", "mixed_precision",
        "units", "embedding", "blocks", "filters", "dropout",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("90", 90), (90, 90), (0.5, 0.5), ("1h30m", 5400), ("2m", 120), ("45s", 45), ("1h1s", 3601), ("10h", 36000)],
)
def test_a_duration_is_seconds_or_hours_minutes_and_seconds(given, seconds):
    config = TrainConfig(data="d", run="r", max_time=given)
    assert config.max_time == seconds
    assert json.loads(json.dumps(config.max_time)) == seconds


@pytest.mark.parametrize("given", ["", "0", 0, -1, "1d", "1m1h", "90 ", "1h30", float("inf"), float("nan"), "0m"])
def test_what_is_no_duration_is_refused_with_the_rule(given):
    with pytest.raises(ConfigurationError, match=r"--max-time is .*, but it must be above 0: seconds, or .* 1h30m"):
        TrainConfig(data="d", run="r", max_time=given)
