"""Which NVIDIA GPUs a process may use, by device files and by the bus."""

from __future__ import annotations

import ctypes
import errno

import pytest
from stand_in_gpus import bare_machine

from distrain.cluster import nvidia


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    return bare_machine(monkeypatch, tmp_path)


def add_to_bus(machine, vendor="0x10de", kind="0x030200"):
    device = machine / "bus" / f"0000:{len(list((machine / 'bus').iterdir())):02d}"
    device.mkdir()
    (device / "vendor").write_text(f"{vendor}\n")
    (device / "class").write_text(f"{kind}\n")


@pytest.mark.parametrize(
    ("visible", "hides"),
    [("", True), ("-1", True), ("-1,0", True), ("NoDevFiles", True), ("0", False), ("0,-1", False), ("GPU-1-0", False)],
)
def test_an_empty_list_of_gpus_is_the_users_choice(visible, hides):
    assert nvidia.hides_all_gpus({"CUDA_VISIBLE_DEVICES": visible}) is hides
    assert not nvidia.hides_all_gpus({})


def test_a_machine_without_gpus_starts_no_program(machine, monkeypatch):
    monkeypatch.setattr(nvidia, "answer_of", None)
    (machine / "dev" / "nvidiactl").touch()  # in some images, and no GPU
    (machine / "dev" / "nvidia-uvm").touch()
    add_to_bus(machine)  # a container sees the bus of its host
    assert nvidia.gpus_present() == []


def test_the_bus_shows_gpus_among_other_devices(machine):
    assert nvidia.gpus_on_bus() == 0
    add_to_bus(machine)
    add_to_bus(machine, vendor="0x8086")
    add_to_bus(machine, kind="0x040300")  # the sound device of a GPU
    assert nvidia.gpus_on_bus() == 1


def test_device_files_count_without_the_program(machine):
    for name in ("nvidia0", "nvidia1", "nvidiactl"):
        (machine / "dev" / name).touch()
    assert nvidia.gpus_present() == ["GPU", "GPU"]


@pytest.mark.parametrize(("code", "present", "by_rights"), [(errno.EPERM, [], False), (errno.EACCES, ["GPU"], True)])
def test_gpus_that_this_process_may_not_open(machine, monkeypatch, code, present, by_rights):
    """A job without GPUs on a machine with GPUs meets EPERM; a user outside the group of the files meets EACCES."""
    (machine / "dev" / "nvidia0").touch()
    opens = nvidia.os.open

    def refuses(path, *arguments):
        if str(path).endswith("nvidia0"):
            raise OSError(code, "refused")
        return opens(path, *arguments)

    monkeypatch.setattr(nvidia.os, "open", refuses)
    assert nvidia.gpus_present() == present
    assert nvidia.withheld_by_rights(nvidia.device_files()) is by_rights


def test_the_kernel_names_its_driver(machine):
    line = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.161.08  Sat Jan 27 02:22:57 UTC 2024\n"
    (machine / "version").write_text(line)
    assert nvidia.driver_version() == "535.161.08"


def test_a_machine_without_a_driver_library(monkeypatch):
    def no_library(name):
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", no_library)
    driver = nvidia.ask_driver()
    assert driver.cuda is None
    assert "libcuda.so.1 is not found" in driver.fault
