"""What a library names and holds, against libraries that the compiler makes here."""

from __future__ import annotations

import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from distrain.errors import ConfigurationError
from distrain.install.environment import CudaLibraries
from distrain.install.linkage import check_linkage

CUDA = CudaLibraries(Path("libcudart.so.12"), Path("libnccl.so.2"), "2.32.3", ())
USES = "int cudaMalloc(void); int ncclInit(void); int use(void) { return cudaMalloc() + ncclInit(); }"
BRINGS_CUDA = (
    "int cudaMalloc(void) { return 0; } int ncclInit(void); int use(void) { return cudaMalloc() + ncclInit(); }"
)

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc and readelf")


def wheel(folder, program, *libraries):
    """Compile a library that links stand-ins of these libraries, and pack it as a wheel."""
    content = {"libcudart": "int cudaMalloc(void) { return 0; }", "libnccl": "int ncclInit(void) { return 0; }"}
    for name in libraries:
        compile_library(folder / name, content[name.partition(".")[0]], "-Wl,-soname," + name)
    compile_library(folder / "mpi_lib.so", program, "-Wl,--no-as-needed", *(str(folder / name) for name in libraries))
    path = folder / "horovod.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(folder / "mpi_lib.so", "horovod/tensorflow/mpi_lib.cpython-311-x86_64-linux-gnu.so")
    return path


def compile_library(path, program, *options):
    command = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-x", "none", "-o", str(path), *options]
    subprocess.run(command, input=program, text=True, check=True)


def test_the_runtime_and_nccl_of_tensorflow_are_right(tmp_path):
    said = check_linkage(wheel(tmp_path, USES, "libcudart.so.12", "libnccl.so.2"), CUDA, tmp_path / "log")
    assert said == "It links libcudart.so.12, libnccl.so.2."
    assert "[libcudart.so.12]" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("program", "libraries", "fault"),
    [
        (USES, ["libcudart.so.13", "libnccl.so.2"], "does not name libcudart.so.12; names libcudart.so.13 beside"),
        (USES, ["libcudart.so.12", "libcudart.so.13", "libnccl.so.2"], "names libcudart.so.13 beside libcudart.so.12"),
        (USES, ["libcudart.so.12"], "does not name libnccl.so.2"),
        (BRINGS_CUDA, ["libcudart.so.12", "libnccl.so.2"], r"holds the CUDA runtime itself \(cudaMalloc\)"),
    ],
)
def test_another_or_a_second_runtime_is_refused(tmp_path, program, libraries, fault):
    with pytest.raises(ConfigurationError, match=fault):
        check_linkage(wheel(tmp_path, program, *libraries), CUDA, tmp_path / "log")
