"""Why TensorFlow uses no GPU of this machine, and how it uses the GPUs that it has.

Decides: whether a run may go to the CPU, and what the error says when it may not. Never: chooses a device.

    refuse_silent_cpu(os.environ)            # ConfigurationError if there is a GPU that TensorFlow cannot use
    let_memory_grow(tf.config.get_visible_devices("GPU"))
"""

from __future__ import annotations

import ctypes
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from distrain.cluster import nvidia
from distrain.cluster.placement import grouped
from distrain.errors import ConfigurationError
from distrain.extras import install_command

_LOG = logging.getLogger(__name__)

# What TensorFlow loads before it uses a GPU: the folder in `nvidia/` of the Python packages, the library of CUDA 12.
_LIBRARIES = {
    "cuda_runtime": "libcudart.so.12",
    "cublas": "libcublas.so.12",
    "cufft": "libcufft.so.11",
    "cusolver": "libcusolver.so.11",
    "cusparse": "libcusparse.so.12",
    "cudnn": "libcudnn.so.9",
}


def refuse_silent_cpu(environ: Mapping[str, str]) -> None:
    """Check that no GPU stays unused against the user's will.

    Raises:
        ConfigurationError: this machine has GPUs, CUDA_VISIBLE_DEVICES does not hide all, and TensorFlow sees none.
    """
    if tf.config.list_physical_devices("GPU") or nvidia.hides_all_gpus(environ):
        return
    present = nvidia.gpus_present()
    if present:
        raise ConfigurationError(
            f"{socket.gethostname()} has {grouped(present)}, but TensorFlow can use no GPU: {unusable_reason(environ)} "
            "To train on the CPU on purpose: --devices cpu:1, or an empty CUDA_VISIBLE_DEVICES."
        )


def unusable_reason(environ: Mapping[str, str]) -> str:
    """Return why TensorFlow sees no GPU although there are some, as a sentence with its cure."""
    build = tf.sysconfig.get_build_info()
    if not build.get("is_cuda_build"):
        return (
            f"TensorFlow {tf.__version__} here is a build for CPUs. Install the build for GPUs in a new environment, "
            "in a checkout of distrain: pip install '.[gpu]'."
        )
    files = nvidia.device_files()
    if nvidia.withheld_by_rights(files):
        return f"this user may not open {files[0]}. Ask the administrator for the group that owns it."
    driver = nvidia.ask_driver()
    wanted = str(build.get("cuda_version", ""))
    if driver.cuda and wanted.split(".")[0].isdigit() and driver.cuda[0] < int(wanted.split(".")[0]):
        release, least = nvidia.driver_version(), nvidia.least_driver(wanted)
        return (
            f"the driver{f' {release}' if release else ''} supports CUDA up to {driver.cuda[0]}.{driver.cuda[1]}, but "
            f"this TensorFlow is built for CUDA {wanted}. Install a newer driver: {least}."
        )
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and driver.fault.endswith("(error 100 of cuInit)"):
        return f"CUDA_VISIBLE_DEVICES={visible[:80]} names no GPU of this machine. Correct it, or unset it."
    if driver.fault:
        return f"{driver.fault}."
    missing = missing_libraries(wanted)
    if missing:
        return f"{', '.join(missing)} cannot be loaded. Install the libraries: {install_command('gpu')}."
    return "TensorFlow does not say why. Look for its reason: TF_CPP_MIN_LOG_LEVEL=0 distrain doctor."


def missing_libraries(cuda: str) -> list[str]:
    """Return the libraries of CUDA 12 that TensorFlow needs and cannot load; of other releases, none is known."""
    if cuda.split(".")[0] != "12":
        return []
    packages = Path(tf.__file__).parents[1] / "nvidia"
    return [
        name for folder, name in _LIBRARIES.items() if not (_loads(packages / folder / "lib" / name) or _loads(name))
    ]


def let_memory_grow(gpus: Sequence[Any]) -> None:
    """Let TensorFlow take memory of these GPUs as it needs memory, in place of all memory at its first use.

    Several processes can then share a GPU, and other programs keep working. TensorFlow refuses this once it uses a GPU.
    Limits that a user set stay, and so does TF_FORCE_GPU_ALLOW_GROWTH.
    """
    for gpu in gpus:
        try:
            tf.config.experimental.set_memory_growth(gpu, True)
        except ValueError:  # the user gave this GPU a memory limit or logical devices
            _LOG.debug("%s keeps the memory limit that it has", gpu.name)
        except RuntimeError:
            if not tf.config.experimental.get_memory_growth(gpu):
                _LOG.warning(
                    f"TensorFlow was in use before distrain, so it takes all memory of {gpu.name}. Set "
                    "TF_FORCE_GPU_ALLOW_GROWTH=true, or use no GPU before distrain."
                )


def model_of(gpu: Any) -> str:
    """Return the name of a physical GPU, such as "NVIDIA H200"; "GPU" if TensorFlow does not know the name."""
    return str(tf.config.experimental.get_device_details(gpu).get("device_name") or "GPU")


def tensorflow_build() -> str:
    """Return the version and the kind of this TensorFlow, such as "2.21.0 for CUDA 12.5.1" or "2.21.0 for CPUs"."""
    build = tf.sysconfig.get_build_info()
    kind = f"CUDA {build.get('cuda_version', '')}".strip() if build.get("is_cuda_build") else "CPUs"
    return f"{tf.__version__} for {kind}"


def _loads(library: str | os.PathLike[str]) -> bool:
    try:
        ctypes.CDLL(os.fspath(library))
    except OSError:
        return False
    return True
