"""launch/slurm.sbatch under a real SLURM: arguments, exit codes, signals, requeueing, and no process left behind.

All jobs run at the same time, because SLURM takes seconds for each job, and 30 s to notice a time limit.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from run_files import summary
from slurm_cluster import KILL_WAIT, SYSTEM_PATH, Cluster, running_cluster, why_not
from stand_in_ranks import make_training_tree
from waiting import wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "launch" / "slurm.sbatch"
PYTHON = Path(sys.executable).parent  # holds python3 with mpi4py, and mpirun
ARGUMENTS = ("--leave", "0", "--data", "a b", "", "*", "'", '"', "$HOME", "--run=é\n")
TWO_NODES = ("--nodes=2",)

NOT_HERE = why_not()
needs_slurm = pytest.mark.skipif(bool(NOT_HERE), reason=NOT_HERE)
both = pytest.mark.parametrize("launcher", ["srun", "mpirun"])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """PATH with a stand-in for distrain, by the program that starts the ranks: mpirun where Python has no mpi4py.

    `scontrol` answers late, as where the controller is busy: SLURM's signals to a requeued job come before its answer.
    """
    folder = tmp_path_factory.mktemp("environments")
    for name in ("srun", "mpirun"):
        (folder / name).mkdir()
        distrain = folder / name / "distrain"
        distrain.write_text(
            f'#!/bin/sh\nexec {sys.executable} {REPOSITORY / "tests" / "harness" / "slurm_rank.py"} "$@"\n'
        )
        distrain.chmod(0o755)
        scontrol = folder / name / "scontrol"
        scontrol.write_text(f'#!/bin/sh\n{shutil.which("scontrol", path=SYSTEM_PATH)} "$@" && sleep 1\n')
        scontrol.chmod(0o755)
    (folder / "mpirun" / "python3").symlink_to("/usr/bin/false")
    return {name: [folder / name, PYTHON] for name in ("srun", "mpirun")}


class Job:
    """A job of stand-in ranks."""

    def __init__(self, cluster: Cluster, folder: Path, *arguments: object, path: list[Path], options: tuple[str, ...]):
        self.cluster, self.log, self.output = cluster, folder / "ranks.jsonl", folder / "job.out"
        given = (f"--export=ALL,DISTRAIN_MAX_RESTARTS=1,RANKS_LOG={self.log}", f"--output={self.output}", *options)
        self.number = cluster.submit(SCRIPT, *arguments, options=given, path=path, cwd=folder)

    def lines(self, key: str) -> list[dict[str, Any]]:
        """Return the lines of the ranks that have a key: pid (the rank started), received, saved."""
        text = self.log.read_text() if self.log.exists() else ""
        return [line for line in map(json.loads, text.splitlines()) if key in line]

    def started(self, ranks: int) -> Job:
        """Wait until so many ranks have started."""
        self.cluster.wait_for(self.number, lambda facts: len(self.lines("pid")) >= ranks)
        return self

    def cancel(self, *options: str) -> None:
        self.cluster.run("scancel", *options, self.number)

    def ended(self) -> tuple[str, str, str]:
        """Wait for the end; return state, exit code, and the number of restarts."""
        facts = self.cluster.ended(self.number)
        return facts["JobState"], facts["ExitCode"], facts["Restarts"]


@pytest.fixture(scope="module")
def training(cluster, prepared_data, tmp_path_factory) -> Iterator[Future[tuple[Path, dict[str, str]]]]:
    """A training that is warned after its first checkpoint; its folder and facts, at its end."""
    folder = tmp_path_factory.mktemp("training")
    options = {"global-batch-size": 8, "epochs": 6, "patience": 0, "checkpoint-every": 2, "strategy": "mpi"}
    options["resume"] = "never"  # it forbids only what another job has written
    words = ["--no-jit", *(word for name, value in options.items() for word in (f"--{name}", value))]

    def train() -> tuple[Path, dict[str, str]]:
        arguments = ["--data", prepared_data, "--run", folder / "run", *words]
        path = [make_training_tree(folder) / ".venv" / "bin", PYTHON]
        job = cluster.submit(SCRIPT, *arguments, options=["--output=job.out"], path=path, cwd=folder)
        checkpoints = folder / "run" / "checkpoints"
        cluster.wait_for(job, lambda facts: list(checkpoints.glob("step-*")) or facts["JobState"] == "FAILED")
        cluster.run("scancel", "--signal=USR1", "--batch", job)
        return folder, cluster.ended(job)

    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(train)


@pytest.fixture(scope="module")
def jobs(cluster, environments, training, tmp_path_factory) -> dict[str, Job]:
    """Jobs by name, with the name of the launcher in front for jobs that both launchers run."""

    def submit(*arguments: str, launcher: str = "srun", options: tuple[str, ...] = ()) -> Job:
        folder = tmp_path_factory.mktemp("job")
        return Job(cluster, folder, *arguments, path=environments[launcher], options=options)

    found = {
        "time limit": submit("--work", options=("--time=1", "--signal=B:USR1@20")),
        "preempted": submit("--work", options=("--nodelist=n2", "--gpus-per-node=4")),
        "for ever": submit("--work", "for ever"),
        "early": submit("--early"),
        "stopped as a whole": submit("--work", options=TWO_NODES),
        "cancelled": submit("--work", options=TWO_NODES),
    }
    for launcher in ("srun", "mpirun"):
        for name, arguments in {
            "warned": ("--work",),
            "arguments": ARGUMENTS,
            "fails": ("--leave", "3"),
            "stopped": ("--work",),
            "ignoring": ("--ignoring",),
        }.items():
            found[f"{launcher} {name}"] = submit(*arguments, launcher=launcher, options=TWO_NODES)
    ranks = {"preempted": 2, "for ever": 2, "early": 2, "stopped as a whole": 4, "cancelled": 4}
    ranks |= {f"{launcher} {name}": 4 for launcher in ("srun", "mpirun") for name in ("warned", "stopped", "ignoring")}
    for name, count in ranks.items():
        found[name].started(count)
    for launcher in ("srun", "mpirun"):
        ignoring = found[f"{launcher} ignoring"]
        assert {line["pid"] for line in ignoring.lines("pid")} <= cluster.processes(ignoring.number).keys()
        ignoring.cancel()
        found[f"{launcher} stopped"].cancel("--signal=TERM", "--batch")
        found[f"{launcher} warned"].cancel("--signal=USR1", "--batch")
    for name in ("for ever", "early"):
        found[name].cancel("--signal=USR1", "--batch")
    found["stopped as a whole"].cancel("--signal=TERM", "--full")
    found["cancelled"].cancel()
    urgent = ("--partition=urgent", "--nodelist=n2", "--gpus-per-node=4", "--output=/dev/null", "--wrap=true")
    cluster.run("sbatch", *urgent)
    return found


@needs_slurm
@both
def test_each_task_is_a_rank_with_all_arguments_as_they_were_given(launcher, jobs):
    job = jobs[f"{launcher} arguments"]
    assert job.ended() == ("COMPLETED", "0:0", "0"), job.output.read_text()
    ranks = sorted(job.lines("pid"), key=lambda line: line["rank"])
    assert [line["arguments"] for line in ranks] == [["train", *ARGUMENTS]] * 4
    positions = [(line["rank"], line["size"], line["host"]) for line in ranks]
    assert positions == [(0, 4, "n1"), (1, 4, "n1"), (2, 4, "n2"), (3, 4, "n2")]
    assert {line["launcher"] for line in ranks} == {launcher}


@needs_slurm
@both
def test_the_exit_code_is_the_ranks(launcher, jobs):
    assert jobs[f"{launcher} fails"].ended() == ("FAILED", "3:0", "0")


@needs_slurm
@both
def test_a_request_to_stop_reaches_all_ranks_and_is_not_requeued(launcher, jobs):
    job = jobs[f"{launcher} stopped"]
    assert job.ended() == ("FAILED", "42:0", "0")
    assert sorted(line["rank"] for line in job.lines("saved")) == [0, 1, 2, 3]


@needs_slurm
def test_a_signal_to_the_whole_job_stops_it_in_order_too(jobs):
    assert jobs["stopped as a whole"].ended() == ("FAILED", "42:0", "0")
    assert len(jobs["stopped as a whole"].lines("saved")) == 4


@needs_slurm
def test_a_cancelled_job_may_save_and_is_not_requeued(jobs):
    assert jobs["cancelled"].ended()[::2] == ("CANCELLED", "0")
    assert len(jobs["cancelled"].lines("saved")) == 4


@needs_slurm
@both
def test_no_orphan_stays_of_ranks_that_ignore_signals(launcher, jobs, cluster):
    job = jobs[f"{launcher} ignoring"]
    job.ended()
    wait_until(lambda: not cluster.processes(job.number), KILL_WAIT + 20, lambda: str(cluster.processes(job.number)))


@needs_slurm
@pytest.mark.parametrize(
    ("name", "ranks"), [("srun warned", 4), ("mpirun warned", 4), ("preempted", 2), ("time limit", 2)]
)
def test_a_warned_job_saves_and_is_requeued_and_goes_on(name, ranks, jobs):
    job = jobs[name]
    assert job.ended() == ("COMPLETED", "0:0", "1")
    assert [line["restarts"] for line in job.lines("pid")] == [0] * ranks + [1] * ranks
    assert len(job.lines("saved")) == ranks
    assert "requeued" in job.output.read_text()  # the first part wrote it, and the second part kept it


@needs_slurm
def test_a_warning_that_comes_before_the_ranks_can_handle_it_requeues_too(jobs):
    assert jobs["early"].ended() == ("COMPLETED", "0:0", "1")


@needs_slurm
def test_a_job_is_not_requeued_for_ever(jobs):
    job = jobs["for ever"].started(4)
    job.cancel("--signal=USR1", "--batch")
    assert job.ended() == ("FAILED", "42:0", "1")  # with DISTRAIN_MAX_RESTARTS=1
    assert "not requeued" in job.output.read_text()


@needs_slurm
def test_gpus_that_no_rank_uses_are_reported(jobs):
    assert "4 GPUs on n2 for 2 ranks" in jobs["preempted"].output.read_text()


@needs_slurm
def test_a_training_that_is_warned_in_mid_epoch_goes_on_to_its_end(training):
    folder, facts = training.result()
    output = (folder / "job.out").read_text()
    assert (facts["JobState"], facts["Restarts"]) == ("COMPLETED", "1"), output
    assert "with everything saved" in output
    assert "Going on from" in output
    assert summary(folder / "run")["epochs"] == 6


@needs_slurm
def test_an_environment_without_distrain_is_named(cluster, tmp_path):
    job = cluster.submit(SCRIPT, options=["--output=job.out"], cwd=tmp_path)
    assert cluster.ended(job)["ExitCode"] == "2:0"
    assert (tmp_path / "job.out").read_text().startswith("error: distrain is neither in")


def test_help_and_a_start_without_sbatch(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [SCRIPT, *arguments], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
        )

    helped = run("-h")
    assert (helped.returncode, helped.stderr) == (0, "")
    assert helped.stdout.startswith("Usage: sbatch")
    refused = run("--data", "D")
    assert refused.returncode == 2
    assert refused.stderr.startswith("error: this is not a SLURM job")


def test_the_script_is_clean_by_shellcheck():
    subprocess.run([Path(sys.executable).with_name("shellcheck"), "-x", SCRIPT], check=True)
