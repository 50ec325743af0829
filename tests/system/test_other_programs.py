"""Programs that distrain asks or starts: a script takes the place of nvidia-smi, ssh and mpirun."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from stand_in_gpus import bare_machine, smi

from distrain.cluster import nvidia
from distrain.cluster.other_program import answer_of
from distrain.cluster.signals import StopRequest
from distrain.doctor import hosts, software
from distrain.launchers import mpirun
from distrain.launchers.supervisor import exit_code_of


def test_the_input_of_this_process_is_not_read():
    reading, writing = os.pipe()
    os.write(writing, b"for this process")
    os.close(writing)
    own = os.dup(0)
    try:
        os.dup2(reading, 0)
        assert answer_of(["cat"], seconds=10).stdout == ""
    finally:
        os.dup2(own, 0)
        os.close(own)
        os.close(reading)


def test_a_program_that_hangs_is_killed():
    with pytest.raises(subprocess.TimeoutExpired):
        answer_of(["sleep", "60"], seconds=0.1)


def test_bytes_that_are_no_text_are_replaced():
    assert answer_of(["printf", "\\377"], seconds=10).stdout == "\N{REPLACEMENT CHARACTER}"


@pytest.fixture
def machine(tmp_path, monkeypatch):
    return bare_machine(monkeypatch, tmp_path)


def test_gpus_that_the_program_lists(machine):
    smi(machine / "bin", "NVIDIA H200", "NVIDIA A100-SXM4-80GB")
    assert nvidia.gpus_present() == ["NVIDIA H200", "NVIDIA A100-SXM4-80GB"]
    assert nvidia.driver_version() == "550.54.15"


def test_an_installed_driver_without_its_kernel_module(machine):
    smi(machine / "bin")
    assert nvidia.gpus_present() == []
    (machine / "bus" / "0000:00").mkdir()
    (machine / "bus" / "0000:00" / "vendor").write_text("0x10de\n")
    (machine / "bus" / "0000:00" / "class").write_text("0x030200\n")
    assert nvidia.gpus_present() == ["GPU"]


def test_a_program_that_hangs_is_given_up(machine, monkeypatch):
    monkeypatch.setattr(nvidia, "SMI_SECONDS", 0.2)
    program = smi(machine / "bin", "NVIDIA H200")
    program.write_text("#!/bin/sh\nexec /bin/sleep 30\n")
    (machine / "dev" / "nvidia0").touch()
    assert nvidia.gpus_present() == ["GPU"]
    assert nvidia.driver_version() == ""


def test_another_mpi_is_named(machine, monkeypatch):
    program = machine / "bin" / "mpirun"
    program.write_text("#!/bin/sh\necho 'HYDRA build details:'\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(machine / "python"))
    found = software.check_mpi(needs_mpirun=True)
    assert found.status == "error"
    assert "HYDRA build details:" in found.message


@pytest.mark.parametrize(
    ("script", "status", "words"),
    [
        ('exec sh -c "$2"', "ok", "its clock agrees"),
        ("date -d '+1 hour' +%s.%N", "warning", "differs by 3,6"),
        ("date -d '-1 hour' +%s.%N", "warning", "differs by 3,"),
        ("echo 'Host key verification failed.' >&2; exit 255", "error", "Host key verification failed."),
        ("echo Welcome; exit 0", "error", "Welcome"),
        ("exec sleep 30", "error", "does not answer within 2 s"),
    ],
)
def test_a_host_is_judged(tmp_path, monkeypatch, script, status, words):
    (tmp_path / "ssh").write_text(f"#!/bin/sh\n[ $1 = node2 ] || exit 99\n{script}\n")
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("DISTRAIN_SSH", str(tmp_path / "ssh"))
    monkeypatch.setattr(hosts, "SSH_SECONDS", 2.0)
    found = hosts.check_host("node2")
    assert found.status == status, found
    assert words in found.message
    assert bool(found.cure) == (status != "ok")


def test_a_machine_without_ssh(monkeypatch):
    monkeypatch.setenv("DISTRAIN_SSH", "/nowhere/ssh")
    assert hosts.check_host("node2").status == "error"


def test_an_mpirun_that_lost_its_hosts_before_they_trained_ends_with_an_error(monkeypatch, tmp_path, capfd):
    """Mpirun writes the report, reaps its ranks and hangs: no rank is left to tell an exit code."""
    monkeypatch.setattr(mpirun, "HANG_SECONDS", 0.2)
    program = tmp_path / "mpirun"
    killed = f"{'-' * 74}\nmpirun noticed that process rank 1 with PID 0 on node n1 exited on signal 9 (Killed).\n"
    program.write_text(f"#!/bin/sh\ncat >&2 <<END\n{killed}{'-' * 74}\nEND\nexec sleep 60\n")
    program.chmod(0o755)
    ended = exit_code_of(lambda: mpirun.run_job([str(program)], StopRequest(), is_one_host=False))
    assert ended == 5
    assert "exited on signal 9" in capfd.readouterr().err
