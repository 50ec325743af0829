"""The variables of each launcher become a world."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distrain.cluster.world import World, find_world
from distrain.errors import ConfigurationError

OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "PMIX_RANK": "3",
}
HYDRA = {"PMI_RANK": "2", "PMI_SIZE": "6", "MPI_LOCALRANKID": "0", "MPI_LOCALNRANKS": "2"}
# A batch script without srun, and a step of four tasks on two nodes.
BATCH = {"SLURM_JOB_ID": "1234", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NTASKS": "4"}
STEP = {
    **BATCH,
    "SLURM_PROCID": "2",
    "SLURM_NODEID": "1",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NODELIST": "n[1-2]",
    "SLURM_STEP_TASKS_PER_NODE": "2(x2)",
}
# Port: 20000 + (16 x 1234 + 0) mod 10000.
RANK_2_OF_THE_STEP = World(2, 4, 0, 2, "srun", "n1:29744")
POD = {
    "JOB_COMPLETION_INDEX": "2",
    "DISTRAIN_NUM_PODS": "3",
    "DISTRAIN_RANKS_PER_POD": "4",
    "DISTRAIN_LOCAL_RANK": "1",
    "DISTRAIN_RENDEZVOUS": "trainer-0.trainer:29400",
}
HOROVOD = {"HOROVOD_RANK": "1", "HOROVOD_SIZE": "2", "HOROVOD_LOCAL_RANK": "0", "HOROVOD_LOCAL_SIZE": "1"}


@pytest.mark.parametrize(
    ("environ", "world"),
    [
        ({}, World()),
        (HOROVOD, World(1, 2, 0, 1, "horovodrun")),
        (OPEN_MPI, World(3, 4, 1, 2, "mpirun")),
        (HYDRA, World(2, 6, 0, 2, "mpich")),
        (STEP, RANK_2_OF_THE_STEP),
        (POD, World(9, 12, 1, 4, "indexed job", "trainer-0.trainer:29400")),
        # One process: a batch script without srun, an Indexed Job that distrain did not render, one pod.
        (BATCH, World()),
        ({"JOB_COMPLETION_INDEX": "3"}, World()),
        ({"JOB_COMPLETION_INDEX": "0", "DISTRAIN_NUM_PODS": "1"}, World(0, 1, 0, 1, "indexed job")),
        ({**BATCH, "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_TASKS_PER_NODE": "1"}, World(0, 1, 0, 1, "srun")),
        # An empty variable counts as missing.
        ({"PMI_RANK": "", "PMI_SIZE": ""}, World()),
        # Without a local rank, all ranks count as ranks of one host.
        ({"PMI_RANK": "2", "PMI_SIZE": "3"}, World(2, 3, 2, 3, "mpich")),
        ({"HOROVOD_RANK": "0", "HOROVOD_SIZE": "2"}, World(0, 2, 0, 2, "horovodrun")),
        ({k: v for k, v in STEP.items() if k != "SLURM_LOCALID"}, World(2, 4, 2, 4, "srun", "n1:29744")),
    ],
)  # fmt: skip
def test_world_of_an_environment(environ, world):
    assert find_world(environ) == world


@pytest.mark.parametrize(
    ("environ", "world"),
    [
        # horovodrun --mpi starts mpirun, and sets no rank itself; --gloo inside a SLURM job sets its own.
        ({**HOROVOD, **OPEN_MPI, **STEP}, World(1, 2, 0, 1, "horovodrun")),
        # mpirun and mpiexec in a SLURM job start their daemons by srun, and ranks inherit the daemon's numbers.
        ({**OPEN_MPI, **STEP, "SLURM_PROCID": "1"}, World(3, 4, 1, 2, "mpirun")),
        ({**HYDRA, **STEP, "SLURM_PROCID": "1"}, World(2, 6, 0, 2, "mpich")),
        # srun --mpi=pmix and --mpi=pmi2 set PMI's numbers to srun's, without a local rank.
        ({**STEP, "PMIX_RANK": "2"}, RANK_2_OF_THE_STEP),
        ({**STEP, "PMI_RANK": "2", "PMI_SIZE": "4"}, RANK_2_OF_THE_STEP),
        # mpirun inside a pod.
        ({**OPEN_MPI, **POD}, World(3, 4, 1, 2, "mpirun")),
    ],
)
def test_the_innermost_launcher_counts(environ, world):
    assert find_world(environ) == world


@pytest.mark.parametrize(
    ("environ", "parts"),
    [
        ({"HOROVOD_RANK": "2", "HOROVOD_SIZE": "2"}, ["HOROVOD_RANK=2", "HOROVOD_SIZE=2"]),
        ({"HOROVOD_RANK": "0"}, ["HOROVOD_SIZE is not set"]),
        ({"PMI_SIZE": "2"}, ["PMI_RANK is not set"]),
        ({"PMI_RANK": "two", "PMI_SIZE": "3"}, ["PMI_RANK='two'", "whole number"]),
        ({"PMI_RANK": "-1", "PMI_SIZE": "3"}, ["PMI_RANK='-1'"]),
        ({"PMI_RANK": "\u0661", "PMI_SIZE": "3"}, ["PMI_RANK="]),
        ({"PMI_RANK": "1" * 5000, "PMI_SIZE": "3"}, ["PMI_RANK='1111"]),
        # Wrong variables of one launcher are an error, although another launcher's variables are right.
        ({"HOROVOD_RANK": "x", "HOROVOD_SIZE": "2", "PMI_RANK": "1", "PMI_SIZE": "3"}, ["HOROVOD_RANK='x'"]),
        ({**OPEN_MPI, "OMPI_COMM_WORLD_LOCAL_RANK": "2"}, ["LOCAL_RANK=2", "LOCAL_SIZE=2"]),
        ({**OPEN_MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": "5"}, ["LOCAL_SIZE puts 5", "4 in all"]),
        ({**OPEN_MPI, "OMPI_COMM_WORLD_LOCAL_SIZE": ""}, ["LOCAL_SIZE is not set"]),
        ({**STEP, "SLURM_PROCID": "4"}, ["SLURM_PROCID=4", "SLURM_STEP_NUM_TASKS=4"]),
        ({**STEP, "SLURM_LOCALID": "2"}, ["SLURM_LOCALID=2", "2 tasks on node 1"]),
        ({**STEP, "SLURM_NODEID": "2"}, ["'2(x2)'", "node 2"]),
        ({**STEP, "SLURM_STEP_TASKS_PER_NODE": "2(x2"}, ["'2(x2'"]),
        ({**STEP, "SLURM_STEP_TASKS_PER_NODE": "5(x2)"}, ["puts 5", "4 in all"]),
        ({**STEP, "SLURM_STEP_NODELIST": "[]"}, ["SLURM_STEP_NODELIST='[]'", "DISTRAIN_RENDEZVOUS"]),
        ({**STEP, "SLURM_STEP_NODELIST": ""}, ["DISTRAIN_RENDEZVOUS"]),
        ({**STEP, "SLURM_JOB_ID": ""}, ["SLURM_JOB_ID is not set"]),
        ({**STEP, "DISTRAIN_RENDEZVOUS": "n1"}, ["DISTRAIN_RENDEZVOUS='n1'", "HOST:PORT"]),
        ({**POD, "DISTRAIN_RENDEZVOUS": "trainer-0:0"}, ["trainer-0:0"]),
        ({**POD, "DISTRAIN_RENDEZVOUS": "trainer-0:65536"}, ["65536"]),
        ({**POD, "DISTRAIN_RENDEZVOUS": "a b:1"}, ["a b:1"]),
        ({**POD, "DISTRAIN_RENDEZVOUS": "a..b:1"}, ["a..b:1"]),
        ({**POD, "DISTRAIN_RENDEZVOUS": ""}, ["DISTRAIN_RENDEZVOUS"]),
        ({**POD, "JOB_COMPLETION_INDEX": ""}, ["JOB_COMPLETION_INDEX is not set"]),
        ({**POD, "JOB_COMPLETION_INDEX": "3"}, ["JOB_COMPLETION_INDEX=3", "DISTRAIN_NUM_PODS=3"]),
        ({**POD, "DISTRAIN_LOCAL_RANK": "4"}, ["DISTRAIN_LOCAL_RANK=4", "DISTRAIN_RANKS_PER_POD=4"]),
        ({**POD, "DISTRAIN_RANKS_PER_POD": "0"}, ["DISTRAIN_RANKS_PER_POD=0"]),
    ],
)  # fmt: skip
def test_impossible_values_are_errors_that_name_them(environ, parts):
    with pytest.raises(ConfigurationError) as caught:
        find_world(environ)
    assert all(part in str(caught.value) for part in parts), str(caught.value)


@pytest.mark.parametrize(
    ("nodes", "host"),
    [
        ("n1", "n1"),
        ("a1,b2", "a1"),
        ("n[1-3,7]", "n1"),
        ("gpu-[001-004]", "gpu-001"),
        ("gpu-[7,9-12],login", "gpu-7"),
        ("rack[2-3]n[04-05].site", "rack2n04.site"),
    ],
)
def test_the_first_host_of_a_node_list_is_the_rendezvous(nodes, host):
    assert find_world({**STEP, "SLURM_STEP_NODELIST": nodes}).rendezvous == f"{host}:29744"
    assert find_world({**STEP, "SLURM_STEP_NODELIST": "", "SLURM_JOB_NODELIST": nodes}).rendezvous == f"{host}:29744"


@given(st.text(alphabet="ab1-.[],()", max_size=40) | st.text(max_size=40))
def test_any_node_list_gives_a_host_or_an_error(nodes):
    try:
        rendezvous = find_world({**STEP, "SLURM_STEP_NODELIST": nodes}).rendezvous
    except ConfigurationError:
        return
    host, _, port = rendezvous.partition(":")
    assert host
    assert set(host).isdisjoint("[], /")
    assert port == "29744"


def test_a_rendezvous_from_the_user_counts_and_ports_differ_between_jobs_and_steps():
    assert find_world({**STEP, "DISTRAIN_RENDEZVOUS": "10.0.0.7:4000"}).rendezvous == "10.0.0.7:4000"
    jobs = [
        {**STEP, "SLURM_JOB_ID": str(job), "SLURM_STEP_ID": str(step)} for job in range(90, 99) for step in range(4)
    ]
    ports = {int(find_world(job).rendezvous.rpartition(":")[2]) for job in jobs}
    assert len(ports) == len(jobs)
    assert all(20_000 <= port < 30_000 for port in ports)
    interactive = {**STEP, "SLURM_STEP_ID": "4294967290"}
    assert 20_000 <= int(find_world(interactive).rendezvous.rpartition(":")[2]) < 30_000


@given(st.lists(st.integers(1, 5), min_size=1, max_size=12), st.data())
def test_tasks_per_node_as_slurm_writes_them(tasks, data):
    groups: list[list[int]] = []
    for number in tasks:
        if groups and groups[-1][0] == number:
            groups[-1][1] += 1
        else:
            groups.append([number, 1])
    written = ",".join(f"{number}(x{times})" if times > 1 else f"{number}" for number, times in groups)
    node = data.draw(st.integers(0, len(tasks) - 1))
    local_rank = data.draw(st.integers(0, tasks[node] - 1))
    world = find_world(
        {
            **STEP,
            "SLURM_PROCID": str(sum(tasks[:node]) + local_rank),
            "SLURM_STEP_NUM_TASKS": str(sum(tasks)),
            "SLURM_STEP_TASKS_PER_NODE": written,
            "SLURM_NODEID": str(node),
            "SLURM_LOCALID": str(local_rank),
        }
    )
    assert (world.local_rank, world.local_size) == (local_rank, tasks[node])


def test_a_huge_repetition_costs_nothing():
    tasks = {"SLURM_STEP_TASKS_PER_NODE": "2(x999999999)", "SLURM_NODEID": "999999998"}
    assert find_world({**STEP, **tasks}).local_size == 2
