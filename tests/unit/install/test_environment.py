"""What an environment must have for a build with NCCL: packages as files, and drivers as numbers."""

from __future__ import annotations

import sys

import pytest
from stand_in_gpus import answer_as_smi

from distrain.cluster import nvidia
from distrain.errors import ConfigurationError
from distrain.install import environment
from distrain.install.environment import check_driver, check_environment, find_cuda_libraries, find_tensorflow

FILES = [
    "nvidia/cuda_runtime/lib/libcudart.so.12",
    "nvidia/cuda_runtime/include/cuda_runtime.h",
    "nvidia/cuda_nvcc/include/crt/host_config.h",
    "nvidia/nccl/lib/libnccl.so.2",
    "nvidia/nccl/include/nccl.h",
    "tensorflow/include/external/cuda_cccl/libcudacxx/include/nv/target",
]


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """A folder of packages with a TensorFlow for CUDA 12.5.1."""
    for name in [*FILES, "tensorflow/__init__.py", "tensorflow/python/platform/build_info.py"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    build = tmp_path / "tensorflow/python/platform/build_info.py"
    build.write_text("build_info = collections.OrderedDict([('cuda_version', '12.5.1'), ('is_cuda_build', True)])\n")
    record = tmp_path / "tensorflow-2.21.0.dist-info"
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: tensorflow\nVersion: 2.21.0\n")
    (record / "top_level.txt").write_text("tensorflow\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])  # searching all installed packages takes a quarter of a second
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    return tmp_path


def test_the_runtime_that_tensorflow_brings_is_found(packages):
    tensorflow = find_tensorflow()
    assert tensorflow == environment.TensorFlow(("tensorflow2.21.0",), packages / "tensorflow", "12.5.1")
    found = find_cuda_libraries(tensorflow)
    assert found.runtime == packages / FILES[0]
    assert found.nccl == packages / FILES[3]
    assert {str(folder.relative_to(packages)) for folder in found.includes} == {
        "nvidia/cuda_runtime/include",
        "nvidia/cuda_nvcc/include",
        "nvidia/nccl/include",
        "tensorflow/include/external/cuda_cccl/libcudacxx/include",
    }


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named_with_the_cure(packages, name):
    (packages / name).unlink()
    with pytest.raises(ConfigurationError, match=name) as caught:
        find_cuda_libraries(find_tensorflow())
    assert "pip install 'distrain[gpu]'" in str(caught.value)
    assert "conda" in str(caught.value)


def test_a_tensorflow_for_cpus_is_refused(packages):
    (packages / "tensorflow/python/platform/build_info.py").write_text("build_info = [('is_cuda_build', False)]\n")
    assert find_tensorflow().cuda == ""
    with pytest.raises(ConfigurationError, match="build for CPUs"):
        find_cuda_libraries(find_tensorflow())


@pytest.mark.parametrize(
    ("release", "cuda", "supported", "fault"),
    [
        ("550.54.15", "12.5.1", (12, 4), None),
        ("525.60", "12.5.1", (12, 0), None),
        ("470.82.01", "12.5.1", (11, 4), "the driver 470.82.01 is too old for CUDA 12.5.1"),
        ("470.82.01", "12.5.1", None, "525 at least"),
        ("570.00", "13.0", (12, 8), "580 at least"),
        ("999.00", "14.0", (13, 0), "docs.nvidia.com"),
    ],
)
def test_the_driver_is_compared_with_the_runtime(packages, monkeypatch, tmp_path, release, cuda, supported, fault):
    answer_as_smi(monkeypatch.setattr, tmp_path, "NVIDIA H200", driver=release)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(nvidia, "DRIVER_FILE", tmp_path / "absent")
    monkeypatch.setattr(nvidia, "ask_driver", lambda: nvidia.Driver(supported, ""))
    tensorflow = environment.TensorFlow((), packages, cuda)
    if fault is None:
        assert check_driver(tensorflow) == f"The driver {release} fits CUDA {cuda}."
    else:
        with pytest.raises(ConfigurationError, match=fault):
            check_driver(tensorflow)


def test_without_a_driver_nothing_is_said(packages, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(nvidia, "DRIVER_FILE", tmp_path / "absent")
    assert check_driver(find_tensorflow()) == ""


def test_another_mpi_is_not_mixed_in(monkeypatch, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "mpicxx").touch()
    monkeypatch.setattr(sys, "prefix", str(tmp_path))
    monkeypatch.setattr(environment, "_version", lambda package: "")
    with pytest.raises(ConfigurationError, match="conda install -c conda-forge horovod"):
        check_environment()
