"""launch/slurm.sbatch under a real SLURM: arguments, exit codes, signals, requeueing, and nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from slurm_cluster import KILL_WAIT, Cluster, running_cluster, why_not

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "launch" / "slurm.sbatch"
PYTHON = Path(sys.executable).parent  # python3 with mpi4py, and mpirun

NOT_HERE = why_not()
needs_slurm = pytest.mark.skipif(bool(NOT_HERE), reason=NOT_HERE)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture(scope="module")
def environments(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """PATH with a stand-in for distrain, by what then starts the ranks: mpirun where Python has no mpi4py."""
    folder = tmp_path_factory.mktemp("environments")
    for name in ("srun", "mpirun"):
        (folder / name).mkdir()
        distrain = folder / name / "distrain"
        distrain.write_text(
            f'#!/bin/sh\nexec {sys.executable} {REPOSITORY / "tests" / "harness" / "slurm_rank.py"} "$@"\n'
        )
        distrain.chmod(0o755)
    (folder / "mpirun" / "python3").symlink_to("/usr/bin/false")
    return {name: [folder / name, PYTHON] for name in ("srun", "mpirun")}


class Job:
    """A job of stand-ins: how SLURM sees it, and what its ranks told."""

    def __init__(self, cluster: Cluster, folder: Path, *arguments: object, path: list[Path], options: tuple[str, ...]):
        self.cluster, self.told, self.output = cluster, folder / "ranks.jsonl", folder / "job.out"
        given = (f"--export=ALL,DISTRAIN_MAX_RESTARTS=1,RANKS_LOG={self.told}", f"--output={self.output}", *options)
        self.number = cluster.submit(SCRIPT, *arguments, options=given, path=path, cwd=folder)

    def lines(self, having: str) -> list[dict[str, Any]]:
        """What the ranks told, of one kind: pid (they started), heard, saved."""
        text = self.told.read_text() if self.told.exists() else ""
        return [line for line in map(json.loads, text.splitlines()) if having in line]

    def started(self, ranks: int) -> Job:
        self.cluster.wait_for(self.number, lambda facts: len(self.lines("pid")) >= ranks)
        return self

    def cancel(self, *options: str) -> None:
        self.cluster.run("scancel", *options, self.number)

    def ended(self) -> tuple[str, str, str]:
        """State, exit code, and how often the job was started again, once it is over."""
        facts = self.cluster.ended(self.number)
        return facts["JobState"], facts["ExitCode"], facts["Restarts"]


@pytest.fixture
def submit(cluster, environments, tmp_path) -> Callable[..., Job]:
    def submit(*arguments: object, launcher: str = "srun", options: tuple[str, ...] = ("--nodes=2",)) -> Job:
        return Job(cluster, tmp_path, *arguments, path=environments[launcher], options=options)

    return submit


both = pytest.mark.parametrize("launcher", ["srun", "mpirun"])


@pytest.fixture(scope="module", autouse=True)
def requeued(request, tmp_path_factory) -> dict[str, Job]:
    """Jobs that are requeued while the other tests run: it takes SLURM 30 s to see a time limit, 6 s to start again."""
    if NOT_HERE:
        return {}
    cluster, environments = request.getfixturevalue("cluster"), request.getfixturevalue("environments")

    def submit(name: str, *arguments: str, launcher: str = "srun", options: tuple[str, ...] = ()) -> Job:
        return Job(cluster, tmp_path_factory.mktemp(name), *arguments, path=environments[launcher], options=options)

    jobs = {
        "time limit": submit("limit", "--work", options=("--time=1", "--signal=B:USR1@20")),
        "preempted": submit("preempted", "--work", options=("--nodelist=n2", "--gpus-per-node=4")),
        "srun": submit("srun", "--work", options=("--nodes=2",)),
        "mpirun": submit("mpirun", "--work", launcher="mpirun", options=("--nodes=2",)),
        "for ever": submit("ever", "--work", "for ever"),
        "early": submit("early", "--early"),
    }
    for name, ranks in {"preempted": 2, "srun": 4, "mpirun": 4, "for ever": 2, "early": 2}.items():
        jobs[name].started(ranks)
        if name != "preempted":
            jobs[name].cancel("--signal=USR1", "--batch")
    urgent = ("--partition=urgent", "--nodelist=n2", "--gpus-per-node=4", "--output=/dev/null", "--wrap=true")
    cluster.run("sbatch", *urgent)
    return jobs


@needs_slurm
@both
def test_each_task_is_a_rank_with_all_arguments_as_they_were_given(launcher, submit):
    arguments = ["--leave", "0", "--data", "a b", "", "*", "'", '"', "$HOME", "--run=é\n"]
    job = submit(*arguments, launcher=launcher)
    assert job.ended() == ("COMPLETED", "0:0", "0"), job.output.read_text()
    told = sorted(job.lines("pid"), key=lambda line: line["rank"])
    assert [line["arguments"] for line in told] == [["train", *arguments]] * 4
    places = [(line["rank"], line["size"], line["host"]) for line in told]
    assert places == [(0, 4, "n1"), (1, 4, "n1"), (2, 4, "n2"), (3, 4, "n2")]
    assert {line["launcher"] for line in told} == {launcher}


@needs_slurm
@both
def test_the_exit_code_is_the_ranks(launcher, submit):
    assert submit("--leave", "3", launcher=launcher).ended() == ("FAILED", "3:0", "0")


@needs_slurm
@both
def test_a_request_to_stop_reaches_all_ranks_and_is_not_requeued(launcher, submit):
    job = submit("--work", launcher=launcher).started(4)
    job.cancel("--signal=TERM", "--batch")
    assert job.ended() == ("FAILED", "42:0", "0")
    assert sorted(line["rank"] for line in job.lines("saved")) == [0, 1, 2, 3]


@needs_slurm
def test_a_signal_to_the_whole_job_stops_it_in_order_too(submit):
    job = submit("--work").started(4)
    job.cancel("--signal=TERM", "--full")
    assert job.ended() == ("FAILED", "42:0", "0")
    assert len(job.lines("saved")) == 4


@needs_slurm
def test_a_cancelled_job_may_save_and_is_not_requeued(submit):
    job = submit("--work").started(4)
    job.cancel()
    assert job.ended()[::2] == ("CANCELLED", "0")
    assert len(job.lines("saved")) == 4


@needs_slurm
@both
def test_no_orphan_stays_of_ranks_that_do_not_listen(launcher, submit, cluster):
    job = submit("--deaf", launcher=launcher).started(4)
    assert {line["pid"] for line in job.lines("pid")} <= cluster.processes(job.number).keys()
    job.cancel()
    job.ended()
    end = time.monotonic() + KILL_WAIT + 20
    while left := cluster.processes(job.number):
        assert time.monotonic() < end, left
        time.sleep(0.1)


@needs_slurm
@pytest.mark.parametrize(("name", "ranks"), [("srun", 4), ("mpirun", 4), ("preempted", 2), ("time limit", 2)])
def test_a_warned_job_saves_and_is_requeued_and_goes_on(name, ranks, requeued):
    job = requeued[name]
    assert job.ended() == ("COMPLETED", "0:0", "1")
    assert [line["restarts"] for line in job.lines("pid")] == [0] * ranks + [1] * ranks
    assert len(job.lines("saved")) == ranks
    assert "requeued" in job.output.read_text()  # of the first part, and still there after the second


@needs_slurm
def test_a_warning_that_comes_before_the_ranks_can_listen_requeues_too(requeued):
    assert requeued["early"].ended() == ("COMPLETED", "0:0", "1")


@needs_slurm
def test_a_job_is_not_requeued_for_ever(requeued):
    job = requeued["for ever"].started(4)
    job.cancel("--signal=USR1", "--batch")
    assert job.ended() == ("FAILED", "42:0", "1")  # with DISTRAIN_MAX_RESTARTS=1
    assert "not requeued" in job.output.read_text()


@needs_slurm
def test_gpus_that_no_rank_uses_are_told(requeued):
    assert "4 GPUs on n2 for 2 ranks" in requeued["preempted"].output.read_text()


@needs_slurm
def test_a_training_that_is_warned_in_mid_epoch_goes_on_to_its_end(cluster, text, tmp_path):
    options = {"global-batch-size": 8, "epochs": 2, "patience": 0, "checkpoint-every": 2, "strategy": "mpi"}
    words = ["--no-jit", *(word for name, value in options.items() for word in (f"--{name}", value))]
    run = tmp_path / "run"
    job = cluster.submit(
        SCRIPT, "--data", text["ngram"], "--run", run, *words, options=["--output=job.out"], path=[PYTHON], cwd=tmp_path
    )
    cluster.wait_for(job, lambda facts: list(run.glob("checkpoints/step-*")) or facts["JobState"] == "FAILED")
    cluster.run("scancel", "--signal=USR1", "--batch", job)
    facts = cluster.ended(job)
    output = (tmp_path / "job.out").read_text()
    assert (facts["JobState"], facts["Restarts"]) == ("COMPLETED", "1"), output
    assert "with everything saved" in output
    assert "Going on from" in output
    assert json.loads((run / "summary.json").read_text())["epochs"] == 2


@needs_slurm
def test_an_environment_without_distrain_is_told(cluster, tmp_path):
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
