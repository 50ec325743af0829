"""Settings of `distrain train`: each wrong value is refused by name, and the command line goes over a TOML file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from distrain.config import TrainConfig, settings_of, train_config
from distrain.errors import ConfigurationError

WHOLE_NUMBERS = [one.name for one in settings_of(TrainConfig) if one.kind is int]


@pytest.mark.parametrize(
    ("name", "value", "option"),
    [
        ("strategy", "magic", "--strategy"),
        ("devices", "tpu:2", "--devices"),
        ("devices", "cpu:0", "--devices"),
        ("devices", "cpu:1000", "--devices"),
        ("devices", "cpu:", "--devices"),
        ("devices", "gpu:", "--devices"),
        ("devices", "gpu:0,", "--devices"),
        ("devices", "gpu:0 ", "--devices"),
        ("devices", "", "--devices"),
        ("model", "no_colon", "--model"),
        ("model", "a:b:c", "--model"),
        ("model", "os;rm:x", "--model"),
        ("batch_size", 0, "--batch-size"),
        ("global_batch_size", -1, "--global-batch-size"),
        ("epochs", 0, "--epochs"),
        ("patience", -1, "--patience"),
        ("seed", -1, "--seed"),
        ("seed", 2**63, "--seed"),
        ("checkpoint_every", -1, "--checkpoint-every"),
        ("keep", 0, "--keep"),
        ("units", 0, "--units"),
        ("embedding", 0, "--embedding"),
        ("blocks", 0, "--blocks"),
        ("filters", 0, "--filters"),
        ("learning_rate", 0, "--learning-rate"),
        ("learning_rate", float("inf"), "--learning-rate"),
        ("learning_rate", float("nan"), "--learning-rate"),
        ("dropout", 1.0, "--dropout"),
        ("dropout", -0.1, "--dropout"),
        ("dropout", float("nan"), "--dropout"),
        *((name, 10**30, "--" + name.replace("_", "-")) for name in WHOLE_NUMBERS),
        ("units", 2**20 + 1, "--units"),
        ("blocks", 17, "--blocks"),
        ("batch_size", 2**24 + 1, "--batch-size"),
        ("steps_per_execution", 2**10 + 1, "--steps-per-execution"),
        ("devices", "gpu:99999999999999999999", "--devices"),
        ("model", "...:f", "--model"),
        ("model", "x.py:", "--model"),
        ("model", ".x:f", "--model"),
        ("model", "x:1f", "--model"),
        ("max_time", "99999999999999999999h", "--max-time"),
        ("monitor", "a\0b", "--monitor"),
        ("prometheus", "\udcff.prom", "--prometheus"),
    ],
)
def test_a_bad_training_setting_is_named_with_its_value(name, value, option):
    with pytest.raises(ConfigurationError) as caught:
        TrainConfig(data="data", run="run", **{name: value})
    assert str(caught.value).startswith(f"{option} is {value!r}, but it must be ")


@pytest.mark.parametrize("devices", ["cpu", "cpu:1", "cpu:12", "gpu:0", "gpu:0,1,15"])
def test_devices_that_are_allowed(devices):
    assert TrainConfig(data="d", run="r", devices=devices).devices == devices


def test_one_batch_size_or_the_other():
    with pytest.raises(ConfigurationError, match=r"--global-batch-size is 64.*--batch-size"):
        TrainConfig(data="d", run="r", batch_size=32, global_batch_size=64)


@pytest.mark.parametrize(
    ("settings", "num_replicas", "expected"),
    [
        ({}, 1, 128),
        ({}, 4, 32),
        ({}, 3, 43),
        ({"global_batch_size": 64}, 2, 32),
        ({"global_batch_size": 5}, 5, 1),
        ({"batch_size": 7}, 3, 7),
    ],
)
def test_batch_size_of_a_replica(settings, num_replicas, expected):
    assert TrainConfig(data="d", run="r", **settings).replica_batch_size(num_replicas) == expected


def test_more_replicas_than_examples_in_a_step():
    with pytest.raises(ConfigurationError, match=r"--global-batch-size is 4, .*replicas, 5"):
        TrainConfig(data="d", run="r", global_batch_size=4).replica_batch_size(5)


def test_settings_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig(data="d", run="r").epochs = 3


def toml(folder, text):
    path = folder / "settings.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_command_line_goes_over_the_file(tmp_path):
    path = toml(tmp_path, 'data = "d"\nrun = "r"\nepochs = 3\nlearning_rate = 1\njit_compile = false\nseed = 5\n')
    config = train_config({"epochs": 9, "run": "other", "seed": None}, path)
    assert config == TrainConfig(data="d", run="other", epochs=9, learning_rate=1, jit_compile=False, seed=5)
    assert isinstance(config.data, Path)


def test_a_zero_on_the_command_line_counts_as_given(tmp_path):
    assert train_config({"patience": 0, "data": "d"}, toml(tmp_path, 'run = "r"\npatience = 7\n')).patience == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epoch = 3", "'epoch' is not a setting; the settings are data, run"),
        ('epochs = "3"', "epochs is '3', but it must be of type int"),
        ("epochs = 3.0", "epochs is 3.0, but it must be of type int"),
        ("epochs = true", "epochs is True, but it must be of type int"),
        ("learning_rate = true", "--learning-rate is True, but it must be of type float"),
        ("jit_compile = 1", "jit_compile is 1, but it must be of type bool"),
        ("data = 5", "data is 5, but it must be of type Path"),
        ("devices = ['cpu:2']", "devices is .*, but it must be of type str"),
        ("epochs = 0", "--epochs is 0"),
        ("epochs = ", "cannot be read as TOML"),
        ("[train]\nepochs = 3", "'train' is not a setting"),
    ],
)
def test_a_wrong_setting_in_a_file_is_named(tmp_path, text, words):
    with pytest.raises(ConfigurationError, match=words):
        train_config({"data": "d", "run": "r"} if not text.startswith("data") else {"run": "r"}, toml(tmp_path, text))


def test_a_refusal_names_the_file_that_the_settings_come_from(tmp_path):
    path = toml(tmp_path, "epochs = 0")
    with pytest.raises(ConfigurationError) as caught:
        train_config({"data": "d", "run": "r"}, path)
    assert caught.value.__notes__ == [f"The settings come from {path} and the command line."]


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    for path in (tmp_path / "absent.toml", tmp_path, tmp_path / "binary.toml"):
        with pytest.raises(ConfigurationError, match="cannot be read as TOML") as caught:
            train_config({"data": "d", "run": "r"}, path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("missing", ["data", "run"])
def test_data_and_run_must_be_given(missing):
    given = {"data": "d", "run": "r"} | {missing: None}
    with pytest.raises(ConfigurationError, match=f"--{missing} is None"):
        train_config(given)


def test_numbers_of_numpy_and_paths_become_plain_values():
    config = TrainConfig(
        data="d", run="r", epochs=np.int64(3), learning_rate=np.float32(0.5), seed=np.uint8(7), resume=Path("runs/1")
    )
    values = {name: getattr(config, name) for name in ("epochs", "learning_rate", "seed", "resume")}
    assert json.dumps(values) == '{"epochs": 3, "learning_rate": 0.5, "seed": 7, "resume": "runs/1"}'


@pytest.mark.parametrize("name", ["data", "run"])
@pytest.mark.parametrize("path", ["a\0b", "a\udcffb", Path("a\udcffb")])
def test_paths_that_no_file_can_record_are_refused(name, path):
    with pytest.raises(ConfigurationError, match=f"--{name} is .*, but it must be text in UTF-8"):
        TrainConfig(**{"data": "data", "run": "run", name: path})


def test_a_long_value_is_shown_in_part():
    with pytest.raises(ConfigurationError) as caught:
        TrainConfig(data="data", run="run", epochs="9" * 10_000)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "content",
    [
        "epochs = " + "[" * 100_000 + "]" * 100_000,
        "epochs = " + "9" * 10_000,
        "epochs = 3 #" + "-" * 2**20,
        "epochs = {a = 1}",
        "epochs = 1979-05-27",
        "epochs = true",
        "epochs = 3.0",
        'data = "a\\u0000b"',
        "learning_rate = nan",
        "model = ['a:b']",
    ],
)
def test_a_strange_file_of_settings_is_refused(tmp_path, content):
    path = tmp_path / "strange.toml"
    path.write_text(content)
    settings = {"run": "run"} if content.startswith("data") else {"data": "data", "run": "run"}
    with pytest.raises(ConfigurationError, match=r"strange\.toml"):
        train_config(settings, path)


def test_a_learning_rate_at_which_training_diverges_is_allowed():
    assert TrainConfig(data="data", run="run", learning_rate=1e30).learning_rate == 1e30
