"""GPU and threads of a rank, and whether all ranks run where their environment says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distrain.cluster.placement import check_placement, choose_gpu, cpu_threads
from distrain.cluster.world import World, find_world
from distrain.errors import ConfigurationError, RankError

HOROVOD = {"HOROVOD_RANK": "1", "HOROVOD_SIZE": "2"}
OPEN_MPI = {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "4"}
STEP = {
    "SLURM_JOB_ID": "1234",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "2",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NODELIST": "n[1-2]",
}
BOUND = {**OPEN_MPI, "OMPI_MCA_orte_bound_at_launch": "1"}
BOUND_STEP = {**STEP, "SLURM_CPU_BIND_TYPE": "mask_cpu:"}


@pytest.mark.parametrize(
    ("environ", "num_cores", "local_size", "machine_cores", "threads"),
    [
        ({}, 8, 1, 8, 8),
        (OPEN_MPI, 8, 2, 8, 4),
        (OPEN_MPI, 7, 2, 8, 3),
        (OPEN_MPI, 2, 3, 2, 1),
        # A rank that is bound to its own cores divides nothing.
        (BOUND, 2, 4, 8, 2),
        (BOUND, 2, 4, None, 2),
        (BOUND, 1, 16, 8, 1),
        # Four ranks share the socket to which they are bound.
        (BOUND, 16, 8, 32, 4),
        # The binding of an outer launcher does not count.
        ({**HOROVOD, **BOUND}, 8, 2, 8, 4),
        ({**OPEN_MPI, **BOUND_STEP}, 8, 2, 8, 4),
        (STEP, 8, 2, 8, 4),
        ({**STEP, "SLURM_CPU_BIND_TYPE": "none"}, 8, 2, 8, 4),
        (BOUND_STEP, 4, 2, 8, 4),
        # --cpus-per-task counts for bound and for free ranks.
        ({**STEP, "SLURM_CPUS_PER_TASK": "3"}, 8, 2, 8, 3),
        ({**BOUND_STEP, "SLURM_CPUS_PER_TASK": "6"}, 6, 2, 64, 6),
        ({**STEP, "SLURM_CPUS_PER_TASK": "6"}, 4, 2, 64, 4),
        ({**OPEN_MPI, "SLURM_CPUS_PER_TASK": "6"}, 8, 2, 8, 4),
    ],
)
def test_threads(environ, num_cores, local_size, machine_cores, threads):
    world = replace(find_world(environ), local_size=local_size)
    assert cpu_threads(environ, world, num_cores=num_cores, machine_cores=machine_cores) == threads


def test_cpus_per_task_that_is_no_number():
    with pytest.raises(ConfigurationError, match="SLURM_CPUS_PER_TASK='many'"):
        cpu_threads({"SLURM_CPUS_PER_TASK": "many"}, SRUN, num_cores=4)


SRUN = World(2, 4, 1, 2, "srun", "n1:29744")
MPIRUN = World(3, 4, 1, 2, "mpirun")


@pytest.mark.parametrize(
    ("environ", "world", "num_gpus", "gpu"),
    [
        ({}, World(), 1, 0),
        ({}, World(), 4, 0),
        ({}, MPIRUN, 2, 1),
        ({}, MPIRUN, 8, 1),
        # srun gave each task GPUs of its own.
        ({"SLURM_GPUS_PER_TASK": "1"}, SRUN, 1, 0),
        ({"SLURM_GPUS_PER_TASK": "a100:2"}, SRUN, 2, 0),
        ({"SLURM_TRES_PER_TASK": "cpu=4,gres/gpu:a100=1"}, SRUN, 1, 0),
        ({"SLURM_TRES_PER_TASK": "gres/gpu:1"}, SRUN, 1, 0),
        ({"SLURM_GPU_BIND": "single:1"}, SRUN, 1, 0),
        # --gpus-per-task with --gpu-bind=none: each task sees all GPUs of the host.
        ({"SLURM_GPUS_PER_TASK": "1"}, SRUN, 2, 1),
        ({"SLURM_TRES_PER_TASK": "cpu=1"}, SRUN, 2, 1),
        # A wrapper script set CUDA_VISIBLE_DEVICES=$LOCAL_RANK.
        ({"CUDA_VISIBLE_DEVICES": "1"}, MPIRUN, 1, 0),
    ],
)  # fmt: skip
def test_gpu(environ, world, num_gpus, gpu):
    assert choose_gpu(environ, world, num_gpus) == gpu


@pytest.mark.parametrize(
    ("environ", "world", "num_gpus"),
    [
        ({}, MPIRUN, 1),
        ({}, World(0, 4, 0, 4, "mpirun"), 3),  # raised on every rank, not only on the last
        ({"CUDA_VISIBLE_DEVICES": "0"}, MPIRUN, 1),
        ({"SLURM_GPUS_PER_TASK": "1"}, MPIRUN, 1),  # describes the allocation around mpirun
        ({"SLURM_TRES_PER_TASK": "cpu=1"}, SRUN, 1),
        ({"SLURM_GPU_BIND": "none"}, SRUN, 1),
    ],
)
def test_more_ranks_than_gpus(environ, world, num_gpus):
    with pytest.raises(ConfigurationError) as caught:
        choose_gpu(environ, world, num_gpus)
    assert f"{world.local_size} ranks on this host see {num_gpus} GPU" in str(caught.value)
    assert "--devices cpu:1" in str(caught.value)


def placement_of(hosts, launcher="mpirun"):
    return [
        (host, World(rank, len(hosts), hosts[:rank].count(host), hosts.count(host), launcher))
        for rank, host in enumerate(hosts)
    ]


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=8))
def test_the_placement_of_one_launcher_is_right(hosts):
    check_placement(placement_of(hosts))


@pytest.mark.parametrize(
    ("placement", "parts"),
    [
        # Under the mpirun of another MPI, every process finds itself alone.
        ([("a", World(1, 2, 1, 2, "mpich"))], ["rank 1 of 2 on a (mpich)", "no other process", "another MPI"]),
        ([("a", World()), ("a", World())], ["rank 0 of 1 on a", "2 processes"]),
        (placement_of("aaa")[:2], ["rank 0 of 3", "2 processes"]),
        (placement_of("ab")[::-1], ["rank 1 of 2 on b", "number this process 0"]),
        ([placement_of("ab")[0]] * 2, ["rank 0 of 2 on a", "number this process 1"]),
        # Two launchers on one host.
        ([("a", World(0, 2, 0, 1)), ("a", World(1, 2, 0, 1))], ["Ranks 0 and 1", "local rank 0 on a", "same GPU"]),
        # Two hosts, and a launcher without local ranks.
        ([("a", World(0, 2, 0, 2)), ("b", World(1, 2, 1, 2))], ["Rank 0", "2 ranks run on a", "1 are there"]),
    ],
)
def test_a_wrong_placement_is_an_error_that_names_ranks_and_host(placement, parts):
    with pytest.raises(RankError) as caught:
        check_placement(placement)
    assert all(part in str(caught.value) for part in parts), str(caught.value)
