"""`--restarts` with real training: what kills cost, and what they leave behind."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from launching import needs_mpi
from run_files import distance, events, last_step, summary
from stand_in_ranks import Job, make_training_tree
from waiting import wait_until

EVERY = 2  # steps between checkpoints


def ranks(job: Job) -> dict[int, int]:
    """Return the process id of each rank of a job."""
    found = {}
    for pid in job.processes():
        try:
            command, variables = (Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))
        except OSError:  # it has just ended
            continue
        rank = re.search(rb"\0OMPI_COMM_WORLD_RANK=(\d+)\0", variables)
        if rank and b"\0train\0" in command:
            found[int(rank[1])] = pid
    return found


def kill(job: Job, run: Path, *, beyond: int, rank: int) -> None:
    """Kill a rank once the run is beyond a step, and wait until no rank of this start is left."""
    wait_until(lambda: last_step(run) > beyond, 200)
    started = ranks(job)
    os.kill(started[rank], signal.SIGKILL)
    wait_until(lambda: not {*started.values()} & {*ranks(job).values()}, 60)


@needs_mpi
def test_kills_cost_few_steps_and_no_weight(long_reference, start, tmp_path):
    """The chief is killed, then the other rank; `--resume never` forbids only what another launch has trained."""
    run, tree = tmp_path / "run", make_training_tree(tmp_path / "training")
    words = ["--data", str(long_reference.data), "--run", str(run), "--strategy", "mpi", *long_reference.settings]
    words += ["--resume", "never", "--checkpoint-every", str(EVERY), "--restarts", "3"]
    job = start("-n", "2", *words, tree=tree, TF_CPP_MIN_LOG_LEVEL="3")
    kill(job, run, beyond=10, rank=0)
    kill(job, run, beyond=100, rank=1)
    code, _, err = job.end(200)
    assert code == 0, err
    assert [f"restart {number} of 3" in err for number in (1, 2, 3)] == [True, True, False]
    assert distance(run, long_reference.run) <= 1e-5

    useful, lost, last = summary(run)["global_steps"], 0, 0
    for event in events(run):
        if event["event"] == "checkpoint":  # it comes some steps later
            continue
        if event["event"] == "resume":
            lost += last - event["step"]
        last = event["step"]
    assert useful / (useful + lost) >= 0.95


def test_a_job_killed_as_a_whole_leaves_nothing_in_shared_memory(start):
    """SIGKILL to all processes at once: the next job removes their files, but not files of a living job."""
    killed, living = start(), start()
    for job in (killed, living):
        job.ranks()
    folders, kept = (job.folders() for job in (killed, living))
    assert len(folders) == len(kept) == 2
    for pid in killed.processes():
        os.kill(pid, signal.SIGKILL)
    killed.process.wait()
    for folder in (*folders, *kept):
        os.utime(folder, (0, 0))
    following = start(WORK="0")
    assert following.end()[0] == 0
    assert not any(folder.exists() for folder in folders)
    assert all(folder.is_dir() for folder in kept)
    living.process.terminate()
    assert living.end()[0] == 42
    assert not any(folder.exists() for folder in kept)
