"""What each launcher puts into the environment becomes a place in the world, threads and a GPU."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distrain.cluster.world import World, check_places, choose_gpu, cpu_threads, find_world
from distrain.errors import ConfigurationError, RankError

OPEN_MPI = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
    "PMIX_RANK": "3",
}
HYDRA = {"PMI_RANK": "2", "PMI_SIZE": "6", "MPI_LOCALRANKID": "0", "MPI_LOCALNRANKS": "2"}
# A batch script that no srun started, and a step of four tasks on two nodes.
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
        # One process: a batch script without srun, an Indexed Job that is not ours, one pod.
        (BATCH, World()),
        ({"JOB_COMPLETION_INDEX": "3"}, World()),
        ({"JOB_COMPLETION_INDEX": "0", "DISTRAIN_NUM_PODS": "1"}, World(0, 1, 0, 1, "indexed job")),
        ({**BATCH, "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_TASKS_PER_NODE": "1"}, World(0, 1, 0, 1, "srun")),
        # An empty value is no value.
        ({"PMI_RANK": "", "PMI_SIZE": ""}, World()),
        # No local rank: all on one host.
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
        # srun --mpi=pmix and --mpi=pmi2: PMI's numbers are srun's, without a local rank.
        ({**STEP, "PMIX_RANK": "2"}, RANK_2_OF_THE_STEP),
        ({**STEP, "PMI_RANK": "2", "PMI_SIZE": "4"}, RANK_2_OF_THE_STEP),
        # mpirun within a pod.
        ({**OPEN_MPI, **POD}, World(3, 4, 1, 2, "mpirun")),
    ],
)
def test_the_innermost_launcher_counts(environ, world):
    assert find_world(environ) == world


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"HOROVOD_RANK": "2", "HOROVOD_SIZE": "2"}, ["HOROVOD_RANK=2", "HOROVOD_SIZE=2"]),
        ({"HOROVOD_RANK": "0"}, ["HOROVOD_SIZE is not set"]),
        ({"PMI_SIZE": "2"}, ["PMI_RANK is not set"]),
        ({"PMI_RANK": "two", "PMI_SIZE": "3"}, ["PMI_RANK='two'", "whole number"]),
        ({"PMI_RANK": "-1", "PMI_SIZE": "3"}, ["PMI_RANK='-1'"]),
        ({"PMI_RANK": "\u0661", "PMI_SIZE": "3"}, ["PMI_RANK="]),
        ({"PMI_RANK": "1" * 5000, "PMI_SIZE": "3"}, ["PMI_RANK='1111"]),
        # A broken launcher does not hide behind a whole one.
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
def test_impossible_values_are_errors_that_name_them(environ, told):
    with pytest.raises(ConfigurationError) as caught:
        find_world(environ)
    assert all(part in str(caught.value) for part in told), str(caught.value)


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


def test_a_rendezvous_of_ones_own_counts_and_ports_differ_between_jobs_and_steps():
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
    runs: list[list[int]] = []
    for number in tasks:
        if runs and runs[-1][0] == number:
            runs[-1][1] += 1
        else:
            runs.append([number, 1])
    written = ",".join(f"{number}(x{times})" if times > 1 else f"{number}" for number, times in runs)
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


BOUND = {**OPEN_MPI, "OMPI_MCA_orte_bound_at_launch": "1"}
BOUND_STEP = {**STEP, "SLURM_CPU_BIND_TYPE": "mask_cpu:"}


@pytest.mark.parametrize(
    ("environ", "num_cores", "local_size", "machine_cores", "threads"),
    [
        ({}, 8, 1, 8, 8),
        (OPEN_MPI, 8, 2, 8, 4),
        (OPEN_MPI, 7, 2, 8, 3),
        (OPEN_MPI, 2, 3, 2, 1),
        # Bound to cores of its own: nothing to divide.
        (BOUND, 2, 4, 8, 2),
        (BOUND, 2, 4, None, 2),
        (BOUND, 1, 16, 8, 1),
        # Bound to a socket that four ranks share.
        (BOUND, 16, 8, 32, 4),
        # Of another launcher's binding, inherited from outside, nothing follows.
        ({**HOROVOD, **BOUND}, 8, 2, 8, 4),
        ({**OPEN_MPI, **BOUND_STEP}, 8, 2, 8, 4),
        (STEP, 8, 2, 8, 4),
        ({**STEP, "SLURM_CPU_BIND_TYPE": "none"}, 8, 2, 8, 4),
        (BOUND_STEP, 4, 2, 8, 4),
        # --cpus-per-task says it, bound or not.
        ({**STEP, "SLURM_CPUS_PER_TASK": "3"}, 8, 2, 8, 3),
        ({**BOUND_STEP, "SLURM_CPUS_PER_TASK": "6"}, 6, 2, 64, 6),
        ({**STEP, "SLURM_CPUS_PER_TASK": "6"}, 4, 2, 64, 4),
        ({**OPEN_MPI, "SLURM_CPUS_PER_TASK": "6"}, 8, 2, 8, 4),
    ],
)
def test_threads(environ, num_cores, local_size, machine_cores, threads):
    found = cpu_threads(environ, num_cores=num_cores, local_size=local_size, machine_cores=machine_cores)
    assert found == threads


def test_cpus_per_task_that_is_no_number():
    with pytest.raises(ConfigurationError, match="SLURM_CPUS_PER_TASK='many'"):
        cpu_threads({**STEP, "SLURM_CPUS_PER_TASK": "many"}, num_cores=4, local_size=1)


SRUN = World(2, 4, 1, 2, "srun", "n1:29744")
MPIRUN = World(3, 4, 1, 2, "mpirun")


@pytest.mark.parametrize(
    ("environ", "world", "num_gpus", "gpu"),
    [
        ({}, World(), 1, 0),
        ({}, World(), 4, 0),
        ({}, MPIRUN, 2, 1),
        ({}, MPIRUN, 8, 1),
        # srun gave each task its own.
        ({"SLURM_GPUS_PER_TASK": "1"}, SRUN, 1, 0),
        ({"SLURM_GPUS_PER_TASK": "a100:2"}, SRUN, 2, 0),
        ({"SLURM_TRES_PER_TASK": "cpu=4,gres/gpu:a100=1"}, SRUN, 1, 0),
        ({"SLURM_TRES_PER_TASK": "gres/gpu:1"}, SRUN, 1, 0),
        ({"SLURM_GPU_BIND": "single:1"}, SRUN, 1, 0),
        # --gpus-per-task with --gpu-bind=none: each task sees all of the host's.
        ({"SLURM_GPUS_PER_TASK": "1"}, SRUN, 2, 1),
        ({"SLURM_TRES_PER_TASK": "cpu=1"}, SRUN, 2, 1),
        # A wrapper script with CUDA_VISIBLE_DEVICES=$LOCAL_RANK.
        ({"CUDA_VISIBLE_DEVICES": "1"}, MPIRUN, 1, 0),
    ],
)  # fmt: skip
def test_gpu(environ, world, num_gpus, gpu):
    assert choose_gpu(environ, world, num_gpus) == gpu


@pytest.mark.parametrize(
    ("environ", "world", "num_gpus"),
    [
        ({}, MPIRUN, 1),
        ({}, World(0, 4, 0, 4, "mpirun"), 3),  # on every rank, not only on the last
        ({"CUDA_VISIBLE_DEVICES": "0"}, MPIRUN, 1),
        ({"SLURM_GPUS_PER_TASK": "1"}, MPIRUN, 1),  # of the allocation around mpirun
        ({"SLURM_TRES_PER_TASK": "cpu=1"}, SRUN, 1),
        ({"SLURM_GPU_BIND": "none"}, SRUN, 1),
    ],
)
def test_more_ranks_than_gpus(environ, world, num_gpus):
    with pytest.raises(ConfigurationError) as caught:
        choose_gpu(environ, world, num_gpus)
    assert f"{world.local_size} ranks on this host see {num_gpus} GPU" in str(caught.value)
    assert "--devices cpu:1" in str(caught.value)


def a_world_of(hosts, launcher="mpirun"):
    places = []
    for rank, host in enumerate(hosts):
        places.append((host, World(rank, len(hosts), hosts[:rank].count(host), hosts.count(host), launcher)))
    return places


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=8))
def test_places_as_a_launcher_gives_them(hosts):
    check_places(a_world_of(hosts))


@pytest.mark.parametrize(
    ("places", "told"),
    [
        # mpirun of another MPI: every process thinks that it is alone.
        ([("a", World(1, 2, 1, 2, "mpich"))], ["rank 1 of 2 on a (mpich)", "no other process", "another MPI"]),
        ([("a", World()), ("a", World())], ["rank 0 of 1 on a", "2 processes"]),
        (a_world_of("aaa")[:2], ["rank 0 of 3", "2 processes"]),
        (a_world_of("ab")[::-1], ["rank 1 of 2 on b", "number 0"]),
        ([a_world_of("ab")[0]] * 2, ["rank 0 of 2 on a", "number 1"]),
        # Two launchers, one host.
        ([("a", World(0, 2, 0, 1)), ("a", World(1, 2, 0, 1))], ["Ranks 0 and 1", "local rank 0 on a", "same GPU"]),
        # Two hosts, and no local rank told.
        ([("a", World(0, 2, 0, 2)), ("b", World(1, 2, 1, 2))], ["Rank 0", "2 ranks run on a", "1 are there"]),
    ],
)
def test_a_mix_up_is_an_error_that_names_ranks_and_host(places, told):
    with pytest.raises(RankError) as caught:
        check_places(places)
    assert all(part in str(caught.value) for part in told), str(caught.value)


REPORT = (
    "import os, sys; from distrain.cluster.world import find_world, cpu_threads; w = find_world(os.environ);"
    "n = len(os.sched_getaffinity(0));"
    "t = cpu_threads(os.environ, num_cores=n, local_size=w.local_size, machine_cores=os.cpu_count());"
    "right = t == (n if os.environ['BOUND'] else max(1, n // 2));"
    "sys.stdout.write(f'{w.rank} {w.size} {w.local_rank} {w.local_size} {w.launcher} {right}\\n')"
)
MPIRUN_PROGRAM = shutil.which("mpirun", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.skipif(MPIRUN_PROGRAM is None, reason="no mpirun here")
@pytest.mark.parametrize("binding", ["none", "core"])
def test_under_open_mpi(binding):
    if binding == "core" and len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core cannot be given to two ranks")
    environ = {**os.environ, "BOUND": "" if binding == "none" else "1"}
    if os.geteuid() == 0:
        environ |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    command = [MPIRUN_PROGRAM, "-n", "2", "--oversubscribe", "--bind-to", binding, sys.executable, "-c", REPORT]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["0 2 0 2 mpirun True", "1 2 1 2 mpirun True"]
