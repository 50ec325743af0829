"""Changes Horovod's unpacked source: it builds for TensorFlow >= 2.16 and without NVIDIA's compiler, and keeps to `lo`.

Decides: the few changes, each with its reason. Never: a change to what Horovod computes, but for scaled sums on GPUs.

    patch_horovod(Path("horovod-0.28.1"), for_gpu=True)

Only `cuda_kernels.cu` is written in CUDA C++: copies within a GPU, and scaling. The build for GPUs takes
`cuda_kernels.cc` in its place, which copies by the CUDA runtime. So `c++` compiles everything, and the library needs
no other CUDA than the runtime that TensorFlow loads.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from distrain.errors import ConfigurationError

# Variables by which the build finds the CUDA runtime: folders with semicolons between them, and a library.
CUDA_INCLUDE, CUDA_RUNTIME = "DISTRAIN_CUDA_INCLUDE", "DISTRAIN_CUDA_RUNTIME"

_CHANGES = [
    # XLA's headers have changed. Horovod's operations inside XLA are off by default.
    (
        "horovod/tensorflow/CMakeLists.txt",
        'list(APPEND TF_SOURCES "${PROJECT_SOURCE_DIR}/horovod/tensorflow/xla_mpi_ops.cc")\n',
        "",
    ),
    # TensorFlow no longer exports this function: a stream tells its handle itself. (Compiled with CUDA only.)
    ("horovod/tensorflow/mpi_ops.cc", "GpuStreamHandle AsGpuStreamValue(Stream* stream);\n", ""),
    (
        "horovod/tensorflow/mpi_ops.cc",
        '#include "tensorflow/compiler/xla/stream_executor/stream.h"\n',
        """#include "tensorflow/compiler/xla/stream_executor/stream.h"
namespace stream_executor::gpu {
inline GpuStreamHandle AsGpuStreamValue(Stream* stream) {
  return static_cast<GpuStreamHandle>(stream->platform_specific_handle().stream);
}
}
""",
    ),
    # Gloo forgot the interface for its second set of connections, asked for the address of this machine's name, and
    # crashed where that name does not resolve.
    (
        "horovod/common/gloo/gloo_context.cc",
        "  assert(global_context.IsEnabled());\n",
        "  assert(global_context.IsEnabled());\n  gloo_iface_ = global_context.gloo_iface_;\n",
    ),
    # The libraries of Open MPI, NCCL and CUDA belong to the environment that the wheel is installed in.
    (
        "CMakeLists.txt",
        "project(horovod CXX)\n",
        """project(horovod CXX)
set(CMAKE_BUILD_WITH_INSTALL_RPATH ON)
set(CMAKE_INSTALL_RPATH "$ORIGIN/../../../..;$ORIGIN/../../nvidia/nccl/lib;$ORIGIN/../../nvidia/cuda_runtime/lib")
""",
    ),
]

_GPU_CHANGES = [
    # A compiler for CUDA that happens to be there must not bring a second CUDA runtime into the process.
    (
        "CMakeLists.txt",
        "include(CheckLanguage)\ncheck_language(CUDA)\nif(NOT CMAKE_CUDA_COMPILER)\n",
        "if(FALSE)\n",
    ),
    (
        "CMakeLists.txt",
        "    find_package(CUDAToolkit REQUIRED)\n"
        "    include_directories(SYSTEM ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})\n",
        f"    include_directories(SYSTEM $ENV{{{CUDA_INCLUDE}}})\n"
        f"    list(APPEND LINKER_LIBS $ENV{{{CUDA_RUNTIME}}})\n",
    ),
]

_KERNELS = "horovod/common/ops/cuda"
_KERNELS_FILE = Path(__file__).with_name("cuda_kernels.cc")
_KERNELS_BUILD = """add_library(horovod_cuda_kernels STATIC cuda_kernels.cc)
target_compile_definitions(horovod_cuda_kernels PRIVATE _GLIBCXX_USE_CXX11_ABI=1)
"""


def patch_horovod(source: Path, *, for_gpu: bool) -> None:
    """Change the source in place.

    Args:
        source: the unpacked archive.
        for_gpu: whether the build has NCCL.

    Raises:
        ConfigurationError: the source is not as expected; then no file is changed.
    """
    texts: dict[Path, str] = {}
    for name, old, new in _changes(for_gpu):
        file = source / name
        text = texts[file] if file in texts else file.read_text(encoding="utf-8")
        if text.count(old) != 1:
            raise ConfigurationError(f"{file}: expected once, but there {text.count(old)} times: {old}")
        texts[file] = text.replace(old, new)
    for file, text in texts.items():
        file.write_text(text, encoding="utf-8")
    if for_gpu:
        shutil.copy(_KERNELS_FILE, source / _KERNELS)
        (source / _KERNELS / "CMakeLists.txt").write_text(_KERNELS_BUILD, encoding="utf-8")


def recipe(*, for_gpu: bool) -> str:
    """Return all that `patch_horovod` does, so that a cached build can be told from a build by other changes."""
    kernels = _KERNELS_BUILD + _KERNELS_FILE.read_text(encoding="utf-8") if for_gpu else ""
    return repr(_changes(for_gpu)) + kernels


def _changes(for_gpu: bool) -> list[tuple[str, str, str]]:
    return _CHANGES + (_GPU_CHANGES if for_gpu else [])
