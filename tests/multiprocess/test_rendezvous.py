"""Ranks of launchers that do not connect them find each other, in real processes."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from free_ports import free_port
from rendezvous_ranks import (
    HOROVODRUN,
    REDUCE,
    SECONDS,
    all_join,
    by_hand,
    clean_environment,
    ended,
    horovods_own_server,
    pod,
    task,
    wait_for_listener,
)

from distrain.cluster.rendezvous import rendezvous
from distrain.cluster.world import find_world
from distrain.errors import ConfigurationError


def test_srun_brings_three_ranks_to_one_sum(start):
    pytest.importorskip("horovod")
    port = free_port()
    processes = [start(REDUCE, task(rank, 3, port)) for rank in (2, 1, 0)]
    for rank, process in zip((2, 1, 0), processes, strict=True):
        assert ended(process)[:2] == (0, f"{rank} 3 {rank} 3 [7.0, 7.0, 7.0]\n")


def test_an_indexed_job_whose_first_pod_is_ten_seconds_late(start):
    pytest.importorskip("horovod")
    port = free_port()
    second = start(REDUCE, pod(1, 2, port))
    time.sleep(10)
    assert second.poll() is None
    first = start(REDUCE, pod(0, 2, port))
    assert ended(first)[:2] == (0, "0 2 0 1 [3.0, 3.0, 3.0]\n")
    assert ended(second)[:2] == (0, "1 2 0 1 [3.0, 3.0, 3.0]\n")


def test_horovodrun_by_gloo():
    pytest.importorskip("horovod")
    done = subprocess.run(
        [HOROVODRUN, "--gloo", "-np", "2", "--disable-cache", sys.executable, "-c", REDUCE],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "0 2 0 2 [3.0, 3.0, 3.0]" in done.stdout
    assert "1 2 1 2 [3.0, 3.0, 3.0]" in done.stdout


def test_one_process_and_mpi_need_no_rendezvous():
    for environ in (
        {},
        {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"},
        {"HOROVOD_RANK": "0", "HOROVOD_SIZE": "1"},
        {"JOB_COMPLETION_INDEX": "0", "DISTRAIN_NUM_PODS": "1"},
    ):
        before = dict(environ)
        with rendezvous(find_world(environ), environ):
            assert environ == before


def test_horovods_core_gets_every_host_and_the_environment_is_restored():
    port = free_port()
    hosts = ["a", "a", "b"]
    environs = [
        task(
            rank,
            3,
            port,
            HOROVOD_HOSTNAME=host,
            SLURM_STEP_TASKS_PER_NODE="2,1",
            SLURM_NODEID="ab".index(host),
            SLURM_LOCALID=hosts[:rank].count(host),
        )
        for rank, host in enumerate(hosts)
    ]
    before = [{**environ, "DISTRAIN_RENDEZVOUS_SECONDS": "30"} for environ in environs]
    inside = all_join(environs)
    assert environs == before
    names = ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE", "CROSS_RANK", "CROSS_SIZE", "HOSTNAME", "CONTROLLER")
    assert [[variables[f"HOROVOD_{name}"] for name in names] for variables in inside] == [
        ["0", "3", "0", "2", "0", "2", "a", "gloo"],
        ["1", "3", "1", "2", "0", "1", "a", "gloo"],
        ["2", "3", "0", "1", "1", "2", "b", "gloo"],
    ]
    assert {variables["HOROVOD_GLOO_RENDEZVOUS_ADDR"] for variables in inside} == {"127.0.0.1"}
    assert {variables["HOROVOD_GLOO_RENDEZVOUS_PORT"] for variables in inside} == {str(port)}
    assert {variables["HOROVOD_GLOO_IFACE"] for variables in inside} == {"lo"}


def test_an_interface_of_the_users_choice_stays():
    port = free_port()
    inside = all_join([task(rank, 2, port, HOROVOD_GLOO_IFACE="ib0") for rank in range(2)])
    assert {variables["HOROVOD_GLOO_IFACE"] for variables in inside} == {"ib0"}


def test_two_runs_after_each_other_on_horovods_own_server():
    """The second command of a script under horovodrun finds no values of the first command."""
    with horovods_own_server() as (port, kept):
        for _ in range(2):
            environs = [by_hand(rank, 3, port) for rank in range(3)]
            assert all_join(environs) == environs
            assert kept == {}


def test_another_jobs_rendezvous_on_the_same_port_is_waited_for():
    port = free_port()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(all_join, [task(rank, 3, port) for rank in range(2)])  # the third rank is late
        wait_for_listener(port)
        other = pool.submit(all_join, [task(rank, 2, port, SLURM_JOB_ID="8") for rank in range(2)])
        time.sleep(1)
        assert not first.done()
        assert not other.done()
        assert not isinstance(all_join([task(2, 3, port)])[0], Exception)
        assert not any(isinstance(joined, Exception) for joined in (*first.result(SECONDS), *other.result(SECONDS)))


@pytest.mark.parametrize("value", ["soon", "0", "-1", "nan", "inf", "1e9"])
def test_impossible_seconds(value):
    environ = task(1, 2, 29400, DISTRAIN_RENDEZVOUS_SECONDS=value)
    (error,) = all_join([environ])
    assert isinstance(error, ConfigurationError)
    assert f"DISTRAIN_RENDEZVOUS_SECONDS={value!r}" in str(error)


@pytest.mark.parametrize("given", [{}, {"HOROVOD_GLOO_RENDEZVOUS_ADDR": "h", "HOROVOD_GLOO_RENDEZVOUS_PORT": "x"}])
def test_ranks_that_were_set_by_hand_without_a_rendezvous(given):
    (error,) = all_join([{"HOROVOD_RANK": "1", "HOROVOD_SIZE": "2", **given}])
    assert isinstance(error, ConfigurationError)
    assert "HOROVOD_RANK=1 and HOROVOD_SIZE=2 are set, but" in str(error)
