"""Every command that computes, `distrain.fit` and the bridge refuse to leave a GPU unused in silence."""

from __future__ import annotations

import numpy as np
import pytest
from stand_in_gpus import answer_as_smi

import distrain
import distrain.horovod
from distrain.cluster import nvidia
from distrain.errors import ConfigurationError

WORDS = "has 4 x NVIDIA H200, but TensorFlow can use no GPU"


@pytest.fixture(autouse=True)
def four_gpus(tmp_path_factory, monkeypatch):
    """A driver that lists four GPUs, beside a TensorFlow that sees none."""
    tools = tmp_path_factory.mktemp("tools")
    answer_as_smi(monkeypatch.setattr, tools, *["NVIDIA H200"] * 4)
    monkeypatch.setattr(nvidia, "DEVICES", tools)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(
    "command",
    [
        ["train", "--data", "data", "--run", "run"],
        ["evaluate", "--data", "data", "--run", "run"],
        ["predict", "--run", "run"],
    ],
)
def test_a_command_names_the_gpus_and_the_reason(fails, tmp_path, command):
    fails(2, WORDS, *command)
    assert list(tmp_path.iterdir()) == []


def test_the_cpu_on_purpose_meets_the_next_error(fails):
    fails(4, "run", "evaluate", "--data", "data", "--run", "run", "--devices", "cpu")
    fails(4, "run", "predict", "--run", "run", "--devices", "cpu:1")
    fails(3, "data", "train", "--data", "data", "--run", "run", "--devices", "cpu")


def test_devices_of_one_device_commands_are_checked(fails):
    fails(2, "--devices is 'gpu:0,1'", "predict", "--run", "run", "--devices", "gpu:0,1")


def test_fit_refuses_too():
    with pytest.raises(ConfigurationError, match=WORDS):
        distrain.fit(lambda: None, train=(np.ones((4, 2), np.float32), np.ones(4)), loss="mse", epochs=1)


def test_the_bridge_refuses_too(monkeypatch):
    monkeypatch.setattr(distrain.horovod, "_joined", [])
    with pytest.raises(ConfigurationError, match=WORDS):
        distrain.horovod.init()
    assert distrain.horovod.init("cpu").size == 1
    assert distrain.horovod.init().size == 1  # a second call changes nothing
