"""A failure of one rank ends the whole job soon, with one message; a request to stop one rank stops all ranks.

Real launchers, real processes, real signals: each launch runs `distrain train` by programs/failure_train.py.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from concurrent_launches import MAX_LAUNCHES, selected_parameters
from launching import needs_horovod, needs_mpi
from training_jobs import (
    BOUND_SECONDS,
    MAX_SECONDS,
    NUM_ROWS,
    STEPS_PER_EPOCH,
    Ended,
    Job,
    check_failed,
    check_stopped,
    event,
    run_job,
)

pytestmark = pytest.mark.timeout(4 * MAX_SECONDS)

GLOO = "horovodrun --gloo"
PAUSE = [event(0, "step", 5, "pause")]
JOBS = {
    "killed: rank 1 of 3, mpirun, mpi": Job("mpirun", "mpi", 3, [event(1, "step", 5, "SIGKILL")]),
    "killed: rank 0 of 2, mpirun, horovod": Job("mpirun", "horovod", 2, [event(0, "step", 5, "SIGKILL")]),
    "killed: rank 1 of 2, gloo": Job(GLOO, "horovod", 2, [event(1, "step", 5, "SIGKILL")]),
    "killed: rank 0 of 3, gloo": Job(GLOO, "horovod", 3, [event(0, "step", 5, "SIGKILL")]),
    "error": Job("mpirun", "mpi", 2, [event(1, "step", 5, "error")]),
    "exception": Job("mpirun", "horovod", 2, [event(0, "step", 5, "exception")]),
    "SIGTERM in a step": Job("mpirun", "horovod", 2, [event(1, "step", 5, "SIGTERM")]),
    "SIGINT in evaluation": Job(GLOO, "horovod", 2, [event(1, "evaluation", 0, "SIGINT")]),
    "SIGTERM to horovodrun": Job(GLOO, "horovod", 2, PAUSE, send=signal.SIGTERM),
    "Ctrl-C to horovodrun": Job(GLOO, "horovod", 2, PAUSE, send=signal.SIGINT, to_group=True),
    "silent: mpirun, mpi": Job("mpirun", "mpi", 2, [event(1, "step", 5, "SIGSTOP")]),
    "silent: gloo": Job(GLOO, "horovod", 2, [event(1, "step", 5, "SIGSTOP")]),
}
LOST = (
    r"distrain: error: rank {rank} \(.+\) was lost after step 4: {reason}\. "
    r"Start the same command again: training goes on from the last checkpoint\."
)


def jobs_named(start: str) -> list[object]:
    """Return the parameters of the jobs whose names begin with `start`; a missing library skips them."""
    needs = {"mpi": needs_mpi, "horovod": needs_horovod}
    return [
        pytest.param(name, marks=needs[job.strategy], id=name) for name, job in JOBS.items() if name.startswith(start)
    ]


@pytest.fixture(scope="module")
def run(long_evaluation: Path) -> Iterator[Callable[..., Future[Ended]]]:
    """`run(job, folder)` launches a job, two jobs at a time; a job with a silent rank waits in the background."""
    with ThreadPoolExecutor(MAX_LAUNCHES) as pool, ThreadPoolExecutor(1) as background:

        def submit(job: Job, folder: Path, data: str = str(long_evaluation)) -> Future[Ended]:
            is_silent = any(each["what"] == "SIGSTOP" for each in job.events)  # takes half a minute and little CPU
            return (background if is_silent else pool).submit(run_job, job, folder, data)

        yield submit
        pool.shutdown(cancel_futures=True)
        background.shutdown(cancel_futures=True)


@pytest.fixture(scope="module")
def launches(
    request: pytest.FixtureRequest, run: Callable[..., Future[Ended]], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Future[Ended]]:
    """The launches of all selected tests with the parameter `job`, under way while the tests run."""
    names = [str(name) for (name,) in selected_parameters(request.session.items, "job")]
    return {name: run(JOBS[name], tmp_path_factory.mktemp("job")) for name in names}


@pytest.fixture
def ended(job: str, launches: dict[str, Future[Ended]]) -> Ended:
    """How the launch of the parameter `job` ended."""
    return launches[job].result()


@pytest.mark.parametrize("job", jobs_named("killed"))
def test_a_rank_that_is_killed_ends_the_job(ended):
    (killed,) = [each["rank"] for each in ended.job.events]
    check_failed(ended, 128 + signal.SIGKILL, LOST.format(rank=killed, reason="its process ended"))
    assert ended.codes.pop(killed) == -signal.SIGKILL
    assert set(ended.codes.values()) == {5}
    assert ended.checkpoints() == [2, 4]


@pytest.mark.parametrize("job", jobs_named("error"))
def test_an_error_on_one_rank_ends_the_job_with_its_code(ended):
    check_failed(ended, 2, r"distrain: error: rank 1: A made-up error\. .*\b1\b.* after step 4\b")
    assert ended.codes == {0: 2, 1: 2}


@pytest.mark.parametrize("job", jobs_named("exception"))
def test_a_defect_on_one_rank_ends_the_job_with_a_traceback(ended):
    assert ended.seconds < BOUND_SECONDS
    assert ended.code == 1
    assert ended.codes == {0: 1, 1: 1}
    assert ended.left == set()
    assert ended.stderr.count("Traceback") == ended.stderr.count("RuntimeError: A made-up exception.") == 1
    assert re.search(r"^This was rank 0 of 2 after step 4; all other ranks exit too\.$", ended.stderr, re.M)


@needs_mpi
def test_data_that_is_damaged_on_one_rank_is_an_error_at_start(run, tmp_path, long_evaluation):
    for rank in range(2):
        shutil.copytree(long_evaluation, tmp_path / f"data.{rank}")
    path = tmp_path / "data.1" / "train-00000.columns.npy"
    path.write_bytes(path.read_bytes()[:-4] + b"\1\0\0\0")
    ended = run(Job("mpirun", "mpi", 2), tmp_path / "job", str(tmp_path / "data.{rank}")).result()
    check_failed(ended, 3, rf"distrain: error: rank 1: {path} was changed")
    assert ended.codes == {0: 3, 1: 3}


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Mount a file system of 2 MiB at `folder`."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here, which takes root's rights: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@needs_mpi
def test_a_full_disk_ends_the_job_and_leaves_the_checkpoints_before(run, tmp_path):
    with small_disk(tmp_path / "run"):
        ended = run(Job("mpirun", "mpi", 2, [event(0, "step", 5, "fill")]), tmp_path).result()
        check_failed(ended, 4, r"distrain: error: rank 0: .*No space left on device")
        assert ended.codes == {0: 4, 1: 4}
        assert ended.checkpoints() == [2, 4]


@pytest.mark.parametrize(
    ("job", "step", "stopped_by"),
    [
        pytest.param("SIGTERM in a step", 5, "SIGTERM to rank 1", marks=needs_horovod),
        pytest.param("SIGINT in evaluation", 6, "SIGINT to rank 1", marks=needs_horovod),
    ],
)
def test_all_ranks_leave_with_42(ended, step, stopped_by):
    assert check_stopped(ended, stopped_by) == step
    assert ended.codes == {0: 42, 1: 42}


@needs_mpi
def test_mpirun_passes_sigusr1_on_and_the_same_command_goes_on(run, tmp_path):
    ended = run(Job("mpirun", "mpi", 2, PAUSE, send=signal.SIGUSR1), tmp_path).result()
    step = check_stopped(ended, "SIGUSR1 to rank 0, SIGUSR1 to rank 1")
    assert ended.codes == {0: 42, 1: 42}
    assert step < 3 * STEPS_PER_EPOCH

    again = run(Job("mpirun", "mpi", 2), tmp_path).result()
    assert again.code == 0, again.stderr
    assert again.codes == {0: 0, 1: 0}
    summary = json.loads((again.run / "summary.json").read_text())
    assert (summary["global_steps"], summary["examples_trained"]) == (3 * STEPS_PER_EPOCH, 3 * NUM_ROWS)


@pytest.mark.parametrize("job", [*jobs_named("SIGTERM to"), *jobs_named("Ctrl-C")])
def test_horovodrun_turns_a_request_to_stop_into_sigterm(ended):
    """Horovodrun gives its ranks 5 s."""
    check_stopped(ended, "SIGTERM to rank 0, SIGTERM to rank 1")
    assert ended.codes == {0: 42, 1: 42}


@pytest.mark.parametrize("job", jobs_named("silent"))
def test_a_rank_that_is_silent_ends_the_job(ended):
    reason = r"no sign of life for 31 s; it is stopped or its network is down"
    check_failed(ended, 5, LOST.format(rank=1, reason=reason))
    assert ended.codes[0] == 5
