"""Faults of the software: each is named with its cure, and has the weight that it has for training."""

from __future__ import annotations

import json
import sys

import pytest
from stand_in_gpus import answer_as_smi

from distrain.cluster import nvidia
from distrain.doctor import software

FACTS = {
    "tensorflow": "2.21.0 for CUDA 12.5.1",
    "version": "2.21.0",
    "cuda": "12.5.1",
    "keras": "3.15.1",
    "backend": "tensorflow",
    "gpus": [],
    "present": [],
    "hidden": False,
    "reason": "",
}
BROKEN = {"failure": "ImportError: libtensorflow_cc.so.2"}


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A machine without GPUs, whose only programs and packages are in `tmp_path`."""
    for name in ("DEVICES", "BUS"):
        monkeypatch.setattr(nvidia, name, tmp_path)
    monkeypatch.setattr(nvidia, "DRIVER_FILE", tmp_path / "version")
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("check", "facts", "status", "words"),
    [
        (software.check_tensorflow, FACTS, "ok", "2.21.0 for CUDA 12.5.1"),
        (software.check_tensorflow, BROKEN, "error", "libtensorflow_cc.so.2"),
        (software.check_tensorflow, FACTS | {"version": "2.210.0"}, "warning", "tried with 2.21"),
        (software.check_keras, FACTS, "ok", "3.15.1"),
        (software.check_keras, FACTS | {"backend": "jax"}, "error", "jax"),
        (software.check_keras, FACTS | {"keras": "3.16.0"}, "warning", "tried with 3.15"),
        (software.check_gpus, FACTS, "ok", "the CPU"),
        (software.check_gpus, FACTS | {"gpus": ["NVIDIA H200"] * 2}, "ok", "2 x NVIDIA H200"),
        (software.check_gpus, FACTS | {"present": ["GPU"], "hidden": True}, "ok", "CUDA_VISIBLE_DEVICES"),
        (software.check_nccl, FACTS, "ok", ""),
    ],
)
def test_what_tensorflow_says_is_judged(check, facts, status, words):
    found = check(facts)
    assert found.status == status
    assert words in found.message
    assert bool(found.cure) == (status != "ok")


def test_gpus_that_tensorflow_does_not_see_have_reason_and_cure():
    reason = "the driver 470 supports CUDA up to 11.4, but this one is built for CUDA 12.5.1. Install a newer driver."
    found = software.check_gpus(FACTS | {"present": ["NVIDIA H200"] * 4, "reason": reason})
    assert found.status == "error"
    assert "4 x NVIDIA H200, but TensorFlow can use no GPU: the driver 470" in found.message
    assert found.cure == "Install a newer driver"


def test_gpus_are_named_even_if_tensorflow_cannot_be_loaded(machine, monkeypatch):
    answer_as_smi(monkeypatch.setattr, machine, "NVIDIA H200")
    found = software.check_gpus(BROKEN)
    assert found.status == "error"
    assert "NVIDIA H200" in found.message


@pytest.mark.parametrize(
    ("driver", "status", "words"),
    [
        (nvidia.Driver((12, 4), ""), "ok", "550.54.15, supports CUDA up to 12.4"),
        (nvidia.Driver((11, 4), ""), "error", "TensorFlow is built for CUDA 12.5.1"),
        (nvidia.Driver((12, 4), "restart the machine (error 803 of cuInit)"), "error", "restart the machine"),
    ],
)
def test_the_driver_is_compared_with_cuda(machine, monkeypatch, driver, status, words):
    answer_as_smi(monkeypatch.setattr, machine, "NVIDIA H200")
    monkeypatch.setattr(nvidia, "ask_driver", lambda: driver)
    found = software.check_driver(FACTS | {"present": ["NVIDIA H200"]})
    assert found.status == status
    assert words in found.message


@pytest.mark.parametrize(
    ("built_for", "has_library", "status", "words"),
    [
        ("2.21.0", True, "ok", "built for TensorFlow 2.21.0"),
        ("2.16.1", True, "error", "built for TensorFlow 2.16.1, but 2.21.0 is installed"),
        ("2.21.0", False, "error", "without TensorFlow"),
        (None, True, "error", "without TensorFlow"),
    ],
)
def test_horovod_is_compared_with_tensorflow(machine, monkeypatch, built_for, has_library, status, words):
    package = machine / "horovod"
    (package / "tensorflow").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('the doctor must not import Horovod')")
    (package / "metadata.json").write_text(json.dumps({"tensorflow": built_for} if built_for else {}))
    if has_library:
        (package / "tensorflow" / "mpi_lib.cpython-311-x86_64-linux-gnu.so").touch()
    monkeypatch.delitem(sys.modules, "horovod", raising=False)
    monkeypatch.syspath_prepend(str(machine))
    found = software.check_horovod(FACTS)
    assert found.status == status
    assert words in found.message
    assert ("install-horovod" in found.cure) == (status == "error")


@pytest.mark.parametrize(
    ("gpus", "content", "status"),
    [([], b"", "ok"), (["NVIDIA H200"], b"..ncclAllReduce..", "ok"), (["NVIDIA H200"], b"..", "warning")],
)
def test_horovod_without_nccl_is_named_where_there_are_gpus(machine, monkeypatch, gpus, content, status):
    package = machine / "horovod"
    (package / "tensorflow").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "metadata.json").write_text('{"tensorflow": "2.21.0"}')
    (package / "tensorflow" / "mpi_lib.cpython-311-x86_64-linux-gnu.so").write_bytes(content)
    monkeypatch.delitem(sys.modules, "horovod", raising=False)
    monkeypatch.syspath_prepend(str(machine))
    found = software.check_horovod({**FACTS, "gpus": gpus})
    assert found.status == status
    assert ("install-horovod --gpu" in found.cure) == (status == "warning")


@pytest.mark.parametrize(("needs_mpirun", "status"), [(True, "error"), (False, "warning")])
def test_a_missing_mpirun_stops_many_hosts_alone(machine, monkeypatch, needs_mpirun, status):
    monkeypatch.setattr(sys, "executable", str(machine / "python"))
    found = software.check_mpi(needs_mpirun=needs_mpirun)
    assert (found.status, found.cure) == (status, "pip install 'distrain[mpi]'")
    assert "no mpirun" in found.message
