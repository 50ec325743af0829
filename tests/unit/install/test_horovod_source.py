"""The changes to Horovod's source: whole or not at all, and without NVIDIA's compiler for GPUs."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from distrain.errors import ConfigurationError
from distrain.install import horovod_source
from distrain.install.horovod_source import patch_horovod, recipe

KERNELS = "horovod/common/ops/cuda"


@pytest.fixture
def source(tmp_path):
    """A source that holds the changed lines, and nothing else."""
    for name, old, _ in horovod_source._CHANGES + horovod_source._GPU_CHANGES:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text((file.read_text() if file.exists() else "") + old)
    (tmp_path / KERNELS).mkdir(parents=True)
    return tmp_path


def everything(folder):
    return {path: path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("for_gpu", [False, True])
def test_all_changes_are_made(source, for_gpu):
    patch_horovod(source, for_gpu=for_gpu)
    text = (source / "CMakeLists.txt").read_text()
    assert ("check_language(CUDA)" not in text) == for_gpu
    assert ("find_package(CUDAToolkit" not in text) == for_gpu
    assert "cuda_runtime/lib" in text
    assert (source / KERNELS / "cuda_kernels.cc").exists() == for_gpu
    assert "xla_mpi_ops" not in (source / "horovod/tensorflow/CMakeLists.txt").read_text()


def test_another_source_than_expected_is_not_changed(source):
    file = source / "CMakeLists.txt"
    file.write_text(file.read_text().replace("CUDAToolkit", "CUDA"))
    before = everything(source)
    with pytest.raises(ConfigurationError, match="expected once, but there 0 times"):
        patch_horovod(source, for_gpu=True)
    assert everything(source) == before


def test_another_change_is_another_recipe(monkeypatch):
    before = [recipe(for_gpu=kind) for kind in (False, True)]
    assert before[0] != before[1]
    monkeypatch.setattr(horovod_source, "_GPU_CHANGES", [])
    assert recipe(for_gpu=False) == before[0]
    assert recipe(for_gpu=True) != before[1]


STAND_IN_HEADER = """
#include <cstddef>
#include <cstdint>
#include <cstring>
typedef int cudaStream_t;
typedef int cudaError_t;
enum { cudaSuccess = 0, cudaMemcpyDeviceToDevice = 3 };
inline const char* cudaGetErrorString(cudaError_t) { return "stands for an error"; }
inline cudaError_t cudaMemcpyAsync(void* out, const void* in, size_t size, int, cudaStream_t stream) {
  if (stream < 0) return 1;
  std::memcpy(out, in, size);
  return cudaSuccess;
}
namespace horovod { namespace common {
enum DataType { FLOAT };
struct BatchedD2DParams { void* out[2]; void* in[2]; size_t sizes[2]; };
}}
"""

PROGRAM = """
#include "cuda_kernels.cc"
#include <cstdio>
using namespace horovod::common;
int main() {
  char from[2][4] = {"abc", "xyz"}, to[2][4] = {"", ""};
  BatchedD2DParams params = {{to[0], to[1]}, {from[0], from[1]}, {4, 4}};
  BatchedScaledD2DMemcpyCudaImpl(params, 2, 1.0, FLOAT, 0);
  std::printf("%s %s\\n", to[0], to[1]);
  try { BatchedScaledD2DMemcpyCudaImpl(params, 2, 0.5, FLOAT, 0); } catch (const std::exception& e) { puts(e.what()); }
  try { ScaleBufferCudaImpl(from, to, 4, 0.5, FLOAT, 0); } catch (const std::exception& e) { puts(e.what()); }
  try { BatchedD2DMemcpyCudaImpl(params, 2, -1); } catch (const std::exception& e) { puts(e.what()); }
}
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
def test_copies_replace_the_kernels_and_scaling_is_refused(tmp_path):
    """The file runs on a CUDA runtime that copies in this process."""
    shutil.copy(horovod_source._KERNELS_FILE, tmp_path)
    (tmp_path / "cuda_kernels.h").write_text(STAND_IN_HEADER)
    (tmp_path / "program.cc").write_text(PROGRAM)
    subprocess.run(["g++", "-Wall", "-Werror", "-o", "program", "program.cc"], cwd=tmp_path, check=True)
    done = subprocess.run([tmp_path / "program"], capture_output=True, text=True, check=True)
    copied, scaled, buffer, failed = done.stdout.splitlines()
    assert copied == "abc xyz"
    assert "no kernel that scales" in scaled
    assert buffer == scaled
    assert failed == "cudaMemcpyAsync failed: stands for an error"
