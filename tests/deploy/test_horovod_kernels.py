"""The file in place of Horovod's kernels for GPUs: compiled, and run on a CUDA runtime that copies in its process."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from distrain.install import horovod_source

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
