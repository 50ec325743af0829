"""Makes Horovod's unpacked source build for TensorFlow >= 2.16, into a wheel that fits any environment.

Decides: the few changes, each with its reason. Never: a change to what Horovod computes.
    python launch/patch_horovod.py horovod-0.28.1
Exit code 1, with a message, if the source is not as expected.
"""

from __future__ import annotations

import sys
from pathlib import Path

CHANGES = [
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
    # Open MPI's and NCCL's libraries are those of the environment that the wheel is installed in, wherever it is.
    (
        "CMakeLists.txt",
        "project(horovod CXX)\n",
        """project(horovod CXX)
set(CMAKE_BUILD_WITH_INSTALL_RPATH ON)
set(CMAKE_INSTALL_RPATH "$ORIGIN/../../../..;$ORIGIN/../../nvidia/nccl/lib")
""",
    ),
]

source = Path(sys.argv[1])
for file, old, new in CHANGES:
    text = (source / file).read_text()
    if text.count(old) != 1:
        sys.exit(f"{source / file}: expected once, but there {text.count(old)} times: {old}")
    (source / file).write_text(text.replace(old, new))
