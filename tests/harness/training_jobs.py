"""Jobs of `distrain train` under a real launcher, to whose ranks something happens.

ended = run_job(Job("mpirun", "mpi", 3, [event(1, "step", 5, "SIGKILL")]), folder, data)
check_failed(ended, 137, "distrain: error: rank 1 .+ was lost")
"""

from __future__ import annotations

import json
import os
import re
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launching import end, start_ranks
from marked_processes import MARK, marked_processes, new_mark
from preloaded import preloaded_python

from distrain.runs.checkpoint import list_checkpoints, load_checkpoint

PROGRAMS = Path(__file__).parents[1] / "multiprocess" / "programs"
BOUND_SECONDS = 60  # from a failure to the end of the last process
MAX_SECONDS = 240  # of a launch
NUM_ROWS = 331
GLOBAL_BATCH = 66  # 6 steps an epoch; the last step has one example, so that one rank alone has work
STEPS_PER_EPOCH = 6


@dataclass(frozen=True)
class Job:
    """A launch of `distrain train`.

    Attributes:
        launcher: one of `launching.LAUNCHERS`.
        strategy: "mpi" or "horovod".
        num_ranks: number of ranks, which may exceed the cores.
        events: what happens to the ranks; see `event`.
        send: a signal to the launcher after the first event.
        to_group: whether `send` goes to the launcher's process group, as Ctrl-C does.
    """

    launcher: str
    strategy: str
    num_ranks: int
    events: Sequence[dict[str, Any]] = ()
    send: signal.Signals | None = None
    to_group: bool = False


@dataclass(frozen=True)
class Ended:
    """How a launch ended.

    Attributes:
        job: the launch.
        code: exit code of the launcher.
        stderr: standard error of launcher and ranks.
        seconds: from the first event to the end of the last process.
        codes: exit code by rank, noted by the rank's parent; the negative number of a signal that ended the rank.
        left: processes that still ran 60 s after the first event.
        run: the run directory.
    """

    job: Job
    code: int
    stderr: str
    seconds: float
    codes: dict[int, int]
    left: set[int]
    run: Path

    def messages(self) -> list[str]:
        """Return the last messages of distrain."""
        return re.findall(r"^(?:\[\d+\]<stderr>:)?(distrain: (?:error|stopped): .*)$", self.stderr, re.MULTILINE)

    def checkpoints(self) -> list[int]:
        """Return the steps of the checkpoints, all of which are whole."""
        return [load_checkpoint(path).state["global_step"] for path in list_checkpoints(self.run / "checkpoints")]


def event(rank: int, occasion: str, number: int, what: str) -> dict[str, Any]:
    """Return something that happens to a rank; see programs/failure_events.py."""
    return {"rank": rank, "occasion": occasion, "number": number, "what": what}


def run_job(job: Job, folder: Path, data: str) -> Ended:
    """Train until the launch ends.

    Args:
        job: the launch.
        folder: receives the run directory and the notes of the ranks.
        data: path of the data; "{rank}" in the path becomes each rank's number.
    """
    mark = new_mark()
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.[0-9]"):
        path.unlink()
    options = {
        "--data": data,
        "--run": str(folder / "run"),
        "--strategy": job.strategy,
        "--global-batch-size": str(GLOBAL_BATCH),
        "--epochs": "3",
        "--patience": "0",
        "--checkpoint-every": "2",
        "--dropout": "0",
    }
    words = [word for option in options.items() for word in option]
    program = [*preloaded_python(), str(PROGRAMS / "failure_train.py"), str(folder), json.dumps(list(job.events))]
    process = start_ranks(job.launcher, job.num_ranks, [*program, *words, "--no-jit"], env={MARK: mark})

    def times_of_events() -> list[float]:
        return [float(path.read_text() or "inf") for path in folder.glob("event.*")]

    try:
        while job.send and not times_of_events() and process.poll() is None:
            time.sleep(0.02)
        if job.send and process.poll() is None:
            (os.killpg if job.to_group else os.kill)(process.pid, job.send)
        _, stderr = process.communicate(timeout=MAX_SECONDS)
        since = min(times_of_events(), default=time.monotonic())
        while marked_processes(mark) and time.monotonic() < since + BOUND_SECONDS:
            time.sleep(0.1)
        seconds = time.monotonic() - since
        left = marked_processes(mark)
    finally:
        end(process)
        for pid in marked_processes(mark):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    codes = {int(path.suffix[1:]): int(path.read_text()) for path in folder.glob("code.*")}
    return Ended(job, process.returncode, stderr, seconds, codes, left, folder / "run")


def launcher_codes(job: Job, code: int) -> set[int]:
    """Return the exit codes that a launcher may have if `code` is the code of its first rank that ends.

    mpirun returns this code, and horovodrun returns 1. After a signal to horovodrun, two threads in
    `safe_shell_exec.py` of Horovod 0.28.1 wait for each rank. If the thread that discards the code is first,
    the other thread takes the code for zero. So horovodrun returns 0 if this happens to all ranks.
    """
    if job.launcher == "mpirun":
        return {code}
    return {0, 1} if job.send else {1}


def check_failed(ended: Ended, code: int, message: str) -> None:
    """Check that a job ended soon, with `code` and one message, and left no process."""
    assert ended.seconds < BOUND_SECONDS
    assert ended.code in launcher_codes(ended.job, code)
    assert len(ended.messages()) == 1, ended.stderr
    assert re.match(message, ended.messages()[0]), ended.messages()
    assert ended.left == set()


def check_stopped(ended: Ended, stopped_by: str) -> int:
    """Check that a job stopped on request with one message and everything saved; return the step."""
    assert ended.seconds < BOUND_SECONDS
    assert ended.code in launcher_codes(ended.job, 42), ended.stderr
    (message,) = ended.messages()
    found = re.fullmatch(
        rf"distrain: stopped: rank 0: Stopped by {stopped_by} at step (\d+), with everything saved\. "
        r"Run the same command again to go on\.",
        message,
    )
    assert found, message
    assert ended.checkpoints()[-1] == int(found[1])
    assert ended.left == set()
    return int(found[1])
