"""Which devices a process uses, which errors it meets, and which ranks make batches in a thread."""

from __future__ import annotations

import logging
import os

import pytest
import tensorflow as tf
from stand_in_gpus import TensorFlowGpus, answer_as_smi

from distrain.cluster import nvidia
from distrain.cluster.world import World
from distrain.config import TrainConfig
from distrain.distribution import usable_gpus
from distrain.distribution.choose import choose
from distrain.distribution.devices import local_devices, models_of, own_device, prefetches, use_one_device
from distrain.errors import ConfigurationError

CORES = os.sched_getaffinity(0)
ALONE = World()
H200 = "NVIDIA H200"


def rank(local_size: int, local_rank: int = 0) -> World:
    return World(rank=local_rank, size=local_size, local_rank=local_rank, local_size=local_size)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine without device files, with the programs in `tmp_path` alone."""
    monkeypatch.setattr(nvidia, "DEVICES", tmp_path)
    monkeypatch.setattr(nvidia, "DRIVER_FILE", tmp_path / "version")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path


def gpus_of(monkeypatch, *models):
    gpus = TensorFlowGpus(models)
    gpus.install(tf.config, monkeypatch.setattr)
    return gpus


def built_for(monkeypatch, cuda):
    build = {"is_cuda_build": cuda is not None} | ({"cuda_version": cuda} if cuda else {})
    monkeypatch.setattr(tf.sysconfig, "get_build_info", lambda: build)


@pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")
def test_ranks_that_share_out_the_cores():
    assert prefetches({}, rank(1), on_gpu=False)
    assert not prefetches({}, rank(len(CORES)), on_gpu=False)
    assert prefetches({}, rank(len(CORES)), on_gpu=True)


STARTS = {
    "one process": lambda environ, wanted: local_devices(environ, wanted),
    "a rank": lambda environ, wanted: own_device(environ, rank(2), wanted),
    "evaluate and predict": lambda environ, wanted: use_one_device(environ, wanted),
}


@pytest.mark.parametrize("start", STARTS.values(), ids=STARTS)
def test_gpus_that_tensorflow_cannot_use_are_an_error_wherever_it_computes(machine, monkeypatch, start):
    answer_as_smi(monkeypatch.setattr, machine, *[H200] * 4)
    built_for(monkeypatch, None)
    with pytest.raises(ConfigurationError) as caught:
        start({}, None)
    message = str(caught.value)
    assert "has 4 x NVIDIA H200, but TensorFlow can use no GPU" in message
    assert "a build for CPUs" in message
    assert "in a checkout of distrain: pip install '.[gpu]'" in message
    assert "--devices cpu" in message
    start({}, "cpu")
    start({"CUDA_VISIBLE_DEVICES": ""}, None)
    start({"CUDA_VISIBLE_DEVICES": "-1"}, None)


def test_without_gpus_the_cpu_serves(machine):
    assert local_devices({}, None) == ["CPU:0"]
    assert local_devices({}, "cpu") == ["CPU:0"]
    assert models_of(["CPU:0"]) == ["CPU"]
    assert own_device({}, rank(2), None) == "CPU"
    use_one_device({}, None)


@pytest.mark.parametrize(
    ("driver", "visible", "reason", "cure"),
    [
        (
            nvidia.Driver((11, 4), ""),
            None,
            "the driver 470.82.01 supports CUDA up to 11.4, but",
            "driver: 525 at least",
        ),
        (
            nvidia.Driver(None, "libcuda.so.1 is not found. Install it"),
            None,
            "libcuda.so.1 is not found.",
            "Install it.",
        ),
        (nvidia.Driver((12, 4), "none (error 100 of cuInit)"), "7", "CUDA_VISIBLE_DEVICES=7 names no GPU", "unset it"),
        (nvidia.Driver((12, 4), "two versions, so restart (error 803 of cuInit)"), "0", "two versions", "so restart"),
        (nvidia.Driver((12, 4), ""), None, "libcudnn.so.9 cannot be loaded", "pip install 'distrain[gpu]'"),
    ],
)
def test_the_reason_is_named(machine, monkeypatch, driver, visible, reason, cure):
    answer_as_smi(monkeypatch.setattr, machine, H200, driver="470.82.01")
    built_for(monkeypatch, "12.5.1")
    monkeypatch.setattr(nvidia, "ask_driver", lambda: driver)
    monkeypatch.setattr(usable_gpus, "_loads", lambda library: "cudnn" not in str(library))
    with pytest.raises(ConfigurationError) as caught:
        local_devices({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}, None)
    assert reason in str(caught.value)
    assert cure in str(caught.value)


def test_device_files_of_another_group_are_named(machine, monkeypatch):
    (machine / "nvidia0").touch()
    built_for(monkeypatch, "12.5.1")
    monkeypatch.setattr(nvidia, "withheld_by_rights", bool)
    with pytest.raises(ConfigurationError, match=r"may not open .*nvidia0"):
        local_devices({}, None)


@pytest.mark.parametrize(
    ("models", "wanted", "visible", "words"),
    [
        ([H200] * 2, "gpu:1,1", None, "names GPU 1 twice"),
        ([H200] * 2, "gpu:0,2", None, "GPU 2 is not there. TensorFlow sees 2 here, with the numbers 0 to 1."),
        ([H200], "gpu:3", "3", "CUDA_VISIBLE_DEVICES=3 selects and renumbers GPUs"),
        ([], "gpu:0", "", "CUDA_VISIBLE_DEVICES= hides all GPUs"),
        ([], "gpu:0", None, "there is no GPU here"),
    ],
)
def test_devices_that_are_not_there(machine, monkeypatch, models, wanted, visible, words):
    gpus_of(monkeypatch, *models)
    with pytest.raises(ConfigurationError) as caught:
        local_devices({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}, wanted)
    assert words in str(caught.value)


def test_a_wanted_gpu_that_cannot_be_used_has_its_reason(machine, monkeypatch):
    answer_as_smi(monkeypatch.setattr, machine, H200)
    built_for(monkeypatch, None)
    with pytest.raises(ConfigurationError, match=r"has NVIDIA H200, but TensorFlow can use no GPU: .*CPUs"):
        local_devices({}, "gpu:0")


@pytest.mark.parametrize(
    ("start", "visible"),
    [
        (lambda: local_devices({}, None), [0, 1, 2]),
        (lambda: local_devices({}, "gpu:2,0"), [2, 0]),
        (lambda: own_device({}, rank(3, local_rank=1), None), [1]),
        (lambda: own_device({}, rank(2, local_rank=1), "gpu:0,2"), [2]),
        (lambda: use_one_device({}, None), [0]),
        (lambda: use_one_device({}, "gpu:2"), [2]),
        (lambda: use_one_device({}, "cpu"), []),
        (lambda: local_devices({}, "cpu"), []),
    ],
)
def test_the_memory_of_each_gpu_in_use_grows(machine, monkeypatch, start, visible):
    gpus = gpus_of(monkeypatch, H200, "Tesla V100", H200)
    start()
    assert [gpu.name for gpu in gpus.visible] == gpus.growing == [f"/physical_device:GPU:{n}" for n in visible]


def test_the_model_of_each_device_is_known(machine, monkeypatch):
    gpus_of(monkeypatch, H200, "Tesla V100")
    assert models_of(local_devices({}, "gpu:1,0")) == ["Tesla V100", H200]
    assert own_device({}, rank(2, local_rank=1), None) == "Tesla V100"


def test_a_program_that_used_its_gpu_before_is_told(machine, monkeypatch, caplog):
    gpus = gpus_of(monkeypatch, H200)
    gpus.is_in_use = True
    with caplog.at_level(logging.WARNING, logger="distrain"):
        assert local_devices({}, None) == ["GPU:0"]
    assert "it takes all memory" in caplog.text
    assert "TF_FORCE_GPU_ALLOW_GROWTH=true" in caplog.text


@pytest.mark.parametrize("wanted", ["gpu:0,1", "cpu:2", "tpu", "gpu"])
def test_evaluate_and_predict_use_one_device(machine, monkeypatch, wanted):
    gpus_of(monkeypatch, H200, H200)
    with pytest.raises(ConfigurationError, match=f"--devices is '{wanted}', but it must be cpu, or gpu:N"):
        use_one_device({}, wanted)


def test_determinism_is_asked_before_the_devices_are_used(machine, monkeypatch):
    calls = []
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: calls.append("operations"))
    switch = "enable_tensor_float_32_execution"
    monkeypatch.setattr(tf.config.experimental, switch, lambda allowed: calls.append(f"TF32 {allowed}"))
    choose(TrainConfig(data="d", run="r", deterministic=True), {})
    assert calls == ["operations", "TF32 False"]
    choose(TrainConfig(data="d", run="r"), {})
    assert len(calls) == 2


def test_a_distribution_knows_the_model_of_each_device(machine, monkeypatch):
    assert choose(TrainConfig(data="d", run="r", devices="cpu"), {}).device_models == ["CPU"]
    gpus_of(monkeypatch, H200)
    assert choose(TrainConfig(data="d", run="r"), {}).device_models == [H200]
