"""GPUs that are not there: a program in place of `nvidia-smi`, and answers in place of TensorFlow's.

    bare_machine(monkeypatch, tmp_path)                    # without devices; its programs are in tmp_path / "bin"
    smi(tmp_path / "bin", "NVIDIA H200", "NVIDIA H200")    # lists two GPUs
    answer_as_smi(monkeypatch.setattr, tmp_path, "NVIDIA H200")  # the same answers without a process
    gpus = TensorFlowGpus(["NVIDIA H200"])
    gpus.install(tf.config, monkeypatch.setattr)           # TensorFlow then lists one GPU, and notes what is asked

TensorFlow never computes on these GPUs.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from distrain.cluster import nvidia

if TYPE_CHECKING:
    import pytest


def _listed(models: Sequence[str]) -> str:
    return "".join(f"GPU {number}: {model} (UUID: GPU-1-{number})\n" for number, model in enumerate(models))


def bare_machine(replace: pytest.MonkeyPatch, folder: Path) -> Path:
    """Make the folders "dev", "bus" and "bin": the devices, the PCI bus and the only programs of this machine."""
    for name in ("dev", "bus", "bin"):
        (folder / name).mkdir()
    replace.setattr(nvidia, "DEVICES", folder / "dev")
    replace.setattr(nvidia, "BUS", folder / "bus")
    replace.setattr(nvidia, "DRIVER_FILE", folder / "version")
    replace.setenv("PATH", str(folder / "bin"))
    return folder


def smi(folder: Path, *models: str, driver: str = "550.54.15") -> Path:
    """Write an `nvidia-smi` that lists GPUs and the release of a driver; without models it fails as a tool alone."""
    program = folder / "nvidia-smi"
    program.write_text(
        f"#!/bin/sh\ncase $1 in -L) printf '%s' '{_listed(models)}' ;; *) echo {driver} ;; esac\n"
        if models
        else "#!/bin/sh\necho 'NVIDIA-SMI has failed: it could not communicate with the driver.'\nexit 9\n"
    )
    program.chmod(0o755)
    return program


def answer_as_smi(
    replace: Callable[[Any, str, Any], None], folder: Path, *models: str, driver: str = "550.54.15"
) -> None:
    """Write an `nvidia-smi`, and give its answers without starting it."""
    smi(folder, *models, driver=driver)

    def answer_of(command: Sequence[str], **_: object) -> subprocess.CompletedProcess[str]:
        answer = _listed(models) if list(command[1:]) == ["-L"] else f"{driver}\n"
        return subprocess.CompletedProcess(command, 0, stdout=answer)

    replace(nvidia, "answer_of", answer_of)


class TensorFlowGpus:
    """The functions of `tf.config` that distrain asks about GPUs.

    Attributes:
        visible: GPUs that TensorFlow may use.
        growing: names of the GPUs whose memory grows, in the order of the calls.
        is_in_use: whether TensorFlow has used its devices, and so refuses changes.
    """

    def __init__(self, models: Sequence[str]) -> None:
        self._models = {f"/physical_device:GPU:{number}": model for number, model in enumerate(models)}
        self._gpus = [SimpleNamespace(name=name, device_type="GPU") for name in self._models]
        self.visible = list(self._gpus)
        self.growing: list[str] = []
        self.is_in_use = False

    def install(self, config: Any, replace: Callable[[Any, str, Any], None]) -> None:
        """Replace the functions of `tf.config` by `replace(owner, name, function)`."""
        lists, sees = config.list_physical_devices, config.get_visible_devices
        replace(config, "list_physical_devices", lambda kind=None: list(self._gpus) if kind == "GPU" else lists(kind))
        replace(config, "get_visible_devices", lambda kind=None: list(self.visible) if kind == "GPU" else sees(kind))
        replace(config, "set_visible_devices", self._show)
        replace(config.experimental, "set_memory_growth", self._grow)
        replace(config.experimental, "get_memory_growth", lambda gpu: gpu.name in self.growing)
        replace(config.experimental, "get_device_details", lambda gpu: {"device_name": self._models[gpu.name]})

    def _show(self, gpus: Sequence[Any], kind: str) -> None:
        if self.is_in_use and list(gpus) != self.visible:
            raise RuntimeError("Visible devices cannot be modified after being initialized")
        self.visible = list(gpus)

    def _grow(self, gpu: Any, enable: bool) -> None:
        if self.is_in_use:
            raise RuntimeError("Physical devices cannot be modified after being initialized")
        if gpu not in self.visible:
            raise AssertionError(f"{gpu.name} is hidden, so its memory is of no concern")
        self.growing += [gpu.name] * enable
