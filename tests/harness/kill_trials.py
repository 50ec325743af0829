"""Launches of `distrain train` on two ranks, of which SIGKILL ends some processes at any moment.

expected, seconds = undisturbed_launch(folder / "whole", data)
trial = run_killed(folder / "killed", data, target="mpirun", after=0.5 * seconds)
assert findings(trial, expected) == []
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from launching import end, start_ranks
from marked_processes import MARK, marked_processes, new_mark
from preloaded import preloaded_python
from training_jobs import BOUND_SECONDS, MAX_SECONDS
from waiting import wait_until

from distrain.errors import CheckpointError
from distrain.runs.checkpoint import list_checkpoints, load_checkpoint
from distrain.runs.verification import verify_run

TARGETS = ("rank 0", "rank 1", "mpirun", "all")
EXIT_CODE_OF_KILLED = {0, 5, 137, -9, 1}  # of mpirun: 1 if the ranks were killed before they were ready


class KilledLaunch(NamedTuple):
    """A launch that was killed, and the same command again.

    Attributes:
        code: exit code of the killed launch.
        output: standard output and standard error of both launches.
        orphans: processes that ran 60 s after the kill.
        damaged: checkpoints that cannot be loaded after the kill.
        code_again: exit code of the second launch.
        result: `weights_sha256` after the second launch.
        faults: what `distrain verify` finds after the second launch.
        is_step_lost: whether the second launch began before the newest checkpoint after the kill.
    """

    code: int
    output: str
    orphans: set[int]
    damaged: list[str]
    code_again: int
    result: str | None
    faults: dict[str, str]
    is_step_lost: bool


def undisturbed_launch(folder: Path, data: Path) -> tuple[str, float]:
    """Return `weights_sha256` and the seconds of a launch that nobody kills."""
    subprocess.run([*preloaded_python(), "-c", ""], check=True)  # no launch waits for the imports of the server
    started = time.monotonic()
    code, output, *_ = _launch(folder, data)
    assert code == 0, output
    digest = _digest(folder)
    assert digest is not None
    return digest, time.monotonic() - started


def run_killed(folder: Path, data: Path, *, target: str, after: float) -> KilledLaunch:
    """Kill `target`, one of `TARGETS`, some seconds after the start of a launch; then launch again.

    A launch that was over before that moment proves nothing, so it is repeated with an earlier moment.
    """
    code, output, orphans, num_killed = _launch(folder, data, target=target, after=after)
    if num_killed == 0:
        shutil.rmtree(folder, ignore_errors=True)
        return run_killed(folder, data, target=target, after=after * 0.7)
    paths, damaged = list_checkpoints(folder / "checkpoints"), []
    for path in paths:
        try:
            load_checkpoint(path)
        except CheckpointError as error:
            damaged.append(str(error))
    code_again, output_again, *_ = _launch(folder, data)
    newest = paths[-1].name if paths else ""
    goes_on = any(words in output_again for words in (f"Going on from checkpoints/{newest}", "is finished already"))
    return KilledLaunch(
        code,
        output + output_again,
        orphans,
        damaged,
        code_again,
        _digest(folder),
        verify_run(folder).faults,
        bool(newest) and not goes_on and code != 0,
    )


def findings(trial: KilledLaunch, expected: str) -> list[str]:
    """Return which of `fault_trials.FINDINGS` a trial shows."""
    is_lost = trial.damaged or trial.is_step_lost or trial.code_again != 0 or trial.result != expected
    found = {
        "lost": bool(is_lost),
        "orphans": bool(trial.orphans),
        "unnoticed": bool(trial.faults),
        "tracebacks": "Traceback" in trial.output or trial.code not in EXIT_CODE_OF_KILLED,
    }
    return [name for name, is_found in found.items() if is_found]


def _digest(run: Path) -> str | None:
    path = run / "summary.json"
    return json.loads(path.read_bytes())["weights_sha256"] if path.is_file() else None


def _launch(run: Path, data: Path, *, target: str = "", after: float = 0) -> tuple[int, str, set[int], int]:
    """Return exit code, output, orphans, and how many processes were killed."""
    num_killed = 0
    mark = new_mark()
    settings = ["--strategy", "mpi", "--global-batch-size", "16", "--epochs", "3", "--checkpoint-every", "2"]
    words = ["train", "--data", str(data), "--run", str(run), *settings, "--no-jit"]
    command = [*preloaded_python(), "-m", "distrain", *words]
    process = start_ranks("mpirun", 2, command, env={MARK: mark})
    try:
        if target:
            wait_until(lambda: _pids(target, process.pid, mark), BOUND_SECONDS)
            time.sleep(after)
            for pid in _pids(target, process.pid, mark) if process.poll() is None else []:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    num_killed += 1
        since = time.monotonic()
        stdout, stderr = process.communicate(timeout=MAX_SECONDS)
        while marked_processes(mark) and time.monotonic() < since + BOUND_SECONDS:
            time.sleep(0.1)
        return process.returncode, stdout + stderr, marked_processes(mark), num_killed
    finally:
        end(process)
        for pid in marked_processes(mark):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _pids(target: str, launcher: int, mark: str) -> list[int]:
    if target == "mpirun":
        return [launcher]
    pids = marked_processes(mark)
    if target == "all":
        return [launcher, *(pid for pid in pids if pid != launcher)]
    variable = f"OMPI_COMM_WORLD_RANK={target.removeprefix('rank ')}\0".encode()
    found = []
    for pid in pids:
        with suppress(OSError):
            if variable in Path(f"/proc/{pid}/environ").read_bytes():
                found.append(pid)
    return found
