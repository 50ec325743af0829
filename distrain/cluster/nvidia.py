"""The NVIDIA GPUs of this machine, as device files and the driver show them.

Decides: which GPUs this process may use, and what the driver says. Never: imports TensorFlow, or changes a GPU.

    >>> from distrain.cluster.nvidia import hides_all_gpus
    >>> hides_all_gpus({"CUDA_VISIBLE_DEVICES": ""}), hides_all_gpus({})
    (True, False)

A machine without device files and without `nvidia-smi` costs two look-ups. Where only `nvidia-smi` is installed, as in
some images and in WSL, this module asks the program.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from distrain.cluster.other_program import answer_of

SMI_SECONDS = 20.0  # nvidia-smi wakes each GPU, which takes about 2 s a GPU without the persistence daemon
DEVICES = Path("/dev")
DRIVER_FILE = Path("/proc/driver/nvidia/version")
BUS = Path("/sys/bus/pci/devices")

LEAST_DRIVERS = {"11": 450, "12": 525, "13": 580}  # by major release of CUDA

# Error codes of `cuInit`, from cuda.h, whose meaning names a cure.
_CURES = {
    34: "libcuda.so.1 is the stub of a CUDA toolkit, so take its folder out of LD_LIBRARY_PATH",
    46: "another process holds the GPUs for itself, so end it, or run: nvidia-smi --compute-mode DEFAULT",
    100: "the driver finds no GPU, and its errors are in: dmesg | grep -i nvrm",
    802: "the system is not initialized, so start NVIDIA's fabric manager: systemctl start nvidia-fabricmanager",
    803: "the driver's library and its kernel module are of different versions, so restart the machine",
    804: "the compatibility package of CUDA does not support these GPUs, so install a newer driver",
}


@dataclass(frozen=True)
class Driver:
    """What the driver's library says.

    Attributes:
        cuda: newest CUDA release that the driver supports, as (12, 4); None if the library did not say.
        fault: why the driver cannot be used, with the cure; empty if it can.
    """

    cuda: tuple[int, int] | None
    fault: str


def hides_all_gpus(environ: Mapping[str, str]) -> bool:
    """Return whether CUDA_VISIBLE_DEVICES hides every GPU, which is the choice of the user or the scheduler."""
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    # SLURM wrote NoDevFiles for jobs without GPUs. CUDA ignores the numbers after -1.
    return visible is not None and visible.split(",")[0].strip() in ("", "-1", "NoDevFiles")


def gpus_present() -> list[str]:
    """Return the name of each GPU that this process may use; "GPU" if only its device file is known.

    A GPU that the control group of a container or a job withholds counts as absent. A GPU on the bus counts if the
    driver's programs are installed: then its kernel module is missing, as after an update of the kernel.
    """
    files = device_files()
    if files and not any(_may_open(path) for path in files):
        return []
    if not files and shutil.which("nvidia-smi") is None:
        return []
    return _listed_by_smi() or ["GPU"] * (len(files) or gpus_on_bus())


def device_files() -> list[Path]:
    """Return the device files of GPUs, such as /dev/nvidia0."""
    return sorted(path for path in DEVICES.glob("nvidia[0-9]*") if re.fullmatch(r"nvidia\d+", path.name))


def gpus_on_bus() -> int:
    """Return the number of NVIDIA's GPUs on the PCI bus, which a container sees even if it may not use them."""
    found = 0
    for device in BUS.glob("*"):
        with contextlib.suppress(OSError):
            is_nvidia = (device / "vendor").read_text(encoding="ascii").strip() == "0x10de"
            found += is_nvidia and (device / "class").read_text(encoding="ascii").startswith("0x03")
    return found


def withheld_by_rights(files: list[Path]) -> bool:
    """Return whether the rights of the device files, not a control group, keep this user from all GPUs."""
    return bool(files) and all(_open_error(path) == errno.EACCES for path in files)


def driver_version() -> str:
    """Return the release of the kernel's driver, such as "550.54.15"; empty if no driver is loaded."""
    with contextlib.suppress(OSError):
        found = re.search(r"\s(\d{3,4}\.\d+(?:\.\d+)?)\s", DRIVER_FILE.read_text(encoding="ascii", errors="replace"))
        if found:
            return found[1]
    lines = _smi("--query-gpu=driver_version", "--format=csv,noheader")
    return next((line for line in lines if re.fullmatch(r"\d{3,4}\.\d+(\.\d+)?", line)), "")


def ask_driver() -> Driver:
    """Load the driver's library, and return its CUDA release and its fault. A second call in a process is cheap."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return Driver(
            None,
            "the driver's library libcuda.so.1 is not found. Install NVIDIA's driver; a container also needs the "
            "NVIDIA Container Toolkit and --gpus all",
        )
    version = ctypes.c_int(0)
    known = library.cuDriverGetVersion(ctypes.byref(version)) == 0 and version.value > 0
    cuda = (version.value // 1000, version.value % 1000 // 10) if known else None
    code = library.cuInit(0)
    if code == 0:
        return Driver(cuda, "")
    return Driver(cuda, _CURES.get(code, "see what nvidia-smi says") + f" (error {code} of cuInit)")


def least_driver(cuda: str) -> str:
    """Return the release of the first driver that runs a CUDA release such as "12.5.1", as words for a cure."""
    # docs.nvidia.com/deploy/cuda-compatibility: the first driver that runs programs of a major release
    least = LEAST_DRIVERS.get(cuda.partition(".")[0])
    return f"{least} at least" if least else "see docs.nvidia.com/deploy/cuda-compatibility"


def _listed_by_smi() -> list[str]:
    found = [re.fullmatch(r"GPU \d+: (.+?)(?: \(UUID: .*\))?", line) for line in _smi("-L")]
    return [match[1] for match in found if match]


def _smi(*arguments: str) -> list[str]:
    """Return the lines that nvidia-smi prints; none if it is missing, fails or hangs."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    try:
        done = answer_of([program, *arguments], seconds=SMI_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in done.stdout.splitlines()] if done.returncode == 0 else []


def _may_open(path: Path) -> bool:
    return _open_error(path) != errno.EPERM  # a control group answers EPERM, rights of a file EACCES


def _open_error(path: Path) -> int:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return error.errno or errno.EIO
    return 0
