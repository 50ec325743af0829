"""Connections of strangers to each listening socket of a job: the job ends as if nobody had connected."""

from __future__ import annotations

import contextlib
import os
import signal

import pytest
from launching import end, needs_horovod, needs_mpi, start_ranks
from marked_processes import MARK, marked_processes, new_mark
from preloaded import preloaded_python
from run_files import distance, last_step
from stand_in_ranks import done_ranks, make_training_tree
from strangers import Strangers, is_reachable, listening
from waiting import wait_until

from distrain.cluster.network import own_addresses

QUICK = 40.0  # seconds; a blocked mpirun would wait for as long as the strangers stay


def test_strangers_delay_no_end_of_a_job_on_one_host(start, tmp_path):
    """One job gets a signal, one loses a rank, and one is just done."""
    jobs = {"done": start(WORK="30"), "signal": start(), "loss": start(MODE="ignoring")}
    for job in jobs.values():
        job.ranks()
    evidence = tmp_path / "evidence"
    with contextlib.ExitStack() as stack:
        for job in jobs.values():
            assert stack.enter_context(Strangers(job.processes(), evidence)).addresses
        jobs["signal"].process.terminate()
        os.kill(jobs["loss"].ranks()[1]["pid"], signal.SIGKILL)
        ended = {name: job.end(QUICK) for name, job in jobs.items()}
    assert {name: code for name, (code, _, _) in ended.items()} == {"signal": 42, "loss": 5, "done": 0}
    messages = [line for line in ended["signal"][2].splitlines() if line.startswith("distrain: ")]
    assert messages == ["distrain: stopped: rank 0: on SIGUSR1"]  # Open MPI may write of the strangers after it
    assert done_ranks(ended["done"][1]) == [0, 1]
    assert not evidence.exists()


@pytest.mark.skipif(not own_addresses(), reason="this machine has no network")
def test_no_other_machine_reaches_a_job_on_one_host(start):
    """A connection to an own address of this machine stands for a connection from another machine."""
    job = start()
    job.ranks()
    ports = {address.port for address in listening(job.processes())}
    wait_until(lambda: not any(is_reachable(host, port) for host in own_addresses() for port in ports), 5)
    assert ports
    assert job.process.poll() is None
    job.process.terminate()
    assert job.end()[0] == 42


@pytest.mark.parametrize(
    "strategy", [pytest.param("mpi", marks=needs_mpi), pytest.param("horovod", marks=needs_horovod)]
)
def test_strangers_change_no_training_on_one_host(strategy, long_reference, start, tmp_path):
    run = tmp_path / "run"
    words = ["--data", str(long_reference.data), "--run", str(run), "--strategy", strategy, *long_reference.settings]
    job = start("-n", "2", *words, tree=make_training_tree(tmp_path / "training"), TF_CPP_MIN_LOG_LEVEL="3")
    wait_until(lambda: last_step(run), 120)
    with Strangers(job.processes(), tmp_path / "evidence") as strangers:
        code, _, err = job.end(120)
    assert code == 0, err
    assert strangers.addresses
    assert distance(run, long_reference.run) <= 1e-5
    assert not (tmp_path / "evidence").exists()


@needs_horovod
def test_strangers_change_no_training_over_gloo(long_reference, tmp_path):
    """`horovodrun` hosts the rendezvous on all interfaces, and the ranks listen for each other."""
    run = tmp_path / "run"
    words = ["--data", str(long_reference.data), "--run", str(run), "--strategy", "horovod", *long_reference.settings]
    mark = new_mark()
    env = {MARK: mark, "TF_CPP_MIN_LOG_LEVEL": "3"}
    job = start_ranks("horovodrun --gloo", 2, [*preloaded_python(), "-m", "distrain", "train", *words], env=env)
    try:
        wait_until(lambda: last_step(run), 120)
        with Strangers(marked_processes(mark), tmp_path / "evidence") as strangers:
            out, err = job.communicate(timeout=120)
    finally:
        end(job)
    assert job.returncode == 0, out + err
    assert strangers.addresses
    assert distance(run, long_reference.run) <= 1e-5
    assert not (tmp_path / "evidence").exists()
