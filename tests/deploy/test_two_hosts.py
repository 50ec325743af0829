"""multi_node.sh over real ssh between two hosts, each with its own network, address and name."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from two_hosts import Host, missing, two_hosts

REPOSITORY = Path(__file__).resolve().parents[2]
DISTRAIN = [sys.executable, "-m", "distrain"]
BOUND = 60  # seconds within which a job ends when the network is gone
SETTINGS = ["--epochs", "3", "--patience", "0", "--global-batch-size", "64"]

pytestmark = pytest.mark.skipif(bool(missing()), reason=missing())


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkout whose environment is the one of these tests, prepared data, and a run in one process."""
    place = tmp_path_factory.mktemp("hosts")
    (place / "checkout").mkdir()
    (place / "checkout" / "launch").symlink_to(REPOSITORY / "launch")
    (place / "checkout" / ".venv").symlink_to(Path(sys.executable).parents[1])
    for command in (
        ["synth", "--out", "text", "--rows", "331", "--seed", "3"],
        ["prepare", "--train", "text/train.csv", "--test", "text/test.csv", "--out", "data", "--top-k", "500"],
        ["train", "--data", "data", "--run", "alone", "--strategy", "single", *SETTINGS],
    ):
        done = subprocess.run([*DISTRAIN, *command], cwd=place, env=environment(), capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
    return place


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Host, Host]]:
    with two_hosts(tmp_path_factory.mktemp("ssh")) as hosts:
        yield hosts


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(REPOSITORY), **more}


def launch(hosts: tuple[Host, Host], place: Path, *arguments: str) -> subprocess.Popen[str]:
    """multi_node.sh on the first host, with a rank on each; paths are relative."""
    here, there = hosts
    script = str(place / "checkout" / "launch" / "multi_node.sh")
    command = [script, "-H", f"{here.name}:1,{there.name}:1", "--interface", "eth0", "--data", "data", *arguments]
    return here.start(command, env=environment(DISTRAIN_SSH=here.ssh), cwd=place)


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def is_quiet(hosts: tuple[Host, Host]) -> bool:
    return not any(host.processes() for host in hosts)


def weights(run: Path) -> dict[str, np.ndarray]:
    arrays = load_file(max((run / "checkpoints").glob("step-*")) / "arrays.safetensors")
    return {name: array for name, array in arrays.items() if name.startswith("model/") and array.dtype.kind == "f"}


def test_two_hosts_train_the_model_that_one_process_trains(hosts, place):
    job = launch(hosts, place, "--run", "together", *SETTINGS)
    _, err = job.communicate(timeout=240)
    assert job.returncode == 0, err
    wait_until(lambda: is_quiet(hosts), BOUND)
    alone, together = (json.loads((place / run / "summary.json").read_text()) for run in ("alone", "together"))
    assert together["num_replicas"] == 2
    assert together["validation_accuracy"] == alone["validation_accuracy"]
    assert together["validation_loss"] == pytest.approx(alone["validation_loss"], abs=1e-6)
    expected, found = weights(place / "alone"), weights(place / "together")
    assert expected.keys() == found.keys()
    largest = max(np.abs(array).max() for array in expected.values())
    assert max(np.abs(expected[name] - found[name]).max() for name in expected) <= 1e-5 * largest


def test_a_cut_cable_ends_both_sides_with_one_message(hosts, place):
    job = launch(hosts, place, "--run", "cut", "--epochs", "100000", "--patience", "0", "--strategy", "mpi")
    log = place / "cut" / "metrics.jsonl"
    try:
        wait_until(lambda: log.exists() and '"epoch": 2' in log.read_text(), 240)
        cut_at = time.monotonic()
        hosts[1].cut()
        _, err = job.communicate(timeout=BOUND)
        assert job.returncode == 5, err
        wait_until(lambda: is_quiet(hosts), cut_at + BOUND - time.monotonic())
    finally:
        hosts[1].mend()
    words = [line for line in err.splitlines() if line.startswith("distrain: ")]
    assert len(words) == 1
    assert words == err.splitlines()[-1:]
    assert re.search(rf"rank 1 \({hosts[1].name}\) was lost after step \d+", words[0])


def test_a_host_that_cannot_be_used_is_named_before_anything_starts(hosts, place):
    here, there = hosts
    script = str(place / "checkout" / "launch" / "multi_node.sh")
    command = [script, "-H", f"{here.name}:1,{there.name}:1,10.253.77.3", "--run", "never"]
    job = here.start(command, env=environment(DISTRAIN_SSH=f"{here.ssh} -o ConnectTimeout=2"), cwd=place)
    _, err = job.communicate(timeout=BOUND)
    assert job.returncode == 2
    assert "error: 10.253.77.3 cannot be used" in err
    assert there.name not in err
    assert err.splitlines()[-1] == "error: nothing was started, as 1 of 3 hosts cannot be used (see above)."
    assert not (place / "never").exists()
