"""multi_node.sh over real ssh between two hosts, each with its own network, address and name."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from launching import environment
from run_files import distance, events, summary
from stand_in_ranks import make_training_tree
from two_hosts import Host, missing, two_hosts
from waiting import BOUND, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkout, whose ranks start in a Python that has imported TensorFlow beforehand."""
    folder = tmp_path_factory.mktemp("hosts")
    checkout = make_training_tree(folder).rename(folder / "checkout")  # multi_node.sh takes no space in its path
    (checkout / ".venv" / "bin" / "orted").symlink_to(Path(sys.executable).with_name("orted"))
    return folder


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, Host]]:
    with two_hosts(tmp_path_factory.mktemp("ssh")) as hosts:
        yield hosts


def launch(hosts: tuple[Host, Host], folder: Path, *arguments: str, other: str = "", ssh: str = "") -> subprocess.Popen:
    """Start multi_node.sh on the first host, with one rank on each; paths are relative."""
    here, there = hosts
    script = str(folder / "checkout" / "launch" / "multi_node.sh")
    command = [script, "-H", f"{here.name}:1,{there.name}:1{other}", "--interface", "eth0", *arguments]
    settings = {"TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(REPOSITORY), "DISTRAIN_SSH": f"{here.ssh}{ssh}"}
    return here.start(command, env=environment(settings), cwd=folder)


def is_quiet(hosts: tuple[Host, Host]) -> bool:
    """Return whether nothing but sshd runs on the hosts."""
    return not any(host.processes() for host in hosts)


def test_two_hosts_train_the_model_that_one_process_trains(hosts, folder, reference):
    job = launch(hosts, folder, "--data", str(reference.data), "--run", "together", *reference.settings)
    _, err = job.communicate(timeout=240)
    assert job.returncode == 0, err
    wait_until(lambda: is_quiet(hosts))
    alone, together = summary(reference.run), summary(folder / "together")
    assert together["num_replicas"] == 2
    assert together["validation_accuracy"] == alone["validation_accuracy"]
    assert together["validation_loss"] == pytest.approx(alone["validation_loss"], abs=1e-6)
    assert distance(folder / "together", reference.run) <= 1e-5


def test_a_cut_cable_ends_both_sides_with_one_message(hosts, folder, reference):
    endless = ["--run", "cut", "--epochs", "100000", "--patience", "0", "--no-jit", "--strategy", "mpi"]
    job = launch(hosts, folder, "--data", str(reference.data), *endless)
    try:
        wait_until(lambda: any(event.get("epoch") == 2 for event in events(folder / "cut")), 240)
        cut_at = time.monotonic()
        hosts[1].cut()
        _, err = job.communicate(timeout=BOUND)
        assert job.returncode == 5, err
        wait_until(lambda: is_quiet(hosts), cut_at + BOUND - time.monotonic())
    finally:
        hosts[1].mend()
    (message,) = [line for line in err.splitlines() if line.startswith("distrain: ")]
    assert message == err.splitlines()[-1]
    assert re.search(rf"rank 1 \({hosts[1].name}\) was lost after step \d+", message)


def test_a_host_that_cannot_be_used_is_named_before_anything_starts(hosts, folder):
    job = launch(hosts, folder, "--run", "never", other=",10.253.77.3", ssh=" -o ConnectTimeout=2")
    _, err = job.communicate(timeout=BOUND)
    assert job.returncode == 2
    assert "error: 10.253.77.3 cannot be used" in err
    assert hosts[1].name not in err
    assert err.splitlines()[-1] == "error: no rank was started, because 1 of 3 hosts cannot be used (see above)."
    assert not (folder / "never").exists()
