"""Whether a run shows signs of life, for a liveness probe, from its `status.json` and without TensorFlow.

Decides: what counts as alive. Never: writes, signals or mends anything.

    $ distrain alive --run runs/1 --within 300

Training steps, evaluation steps and checkpoints are signs of life. A run that shows none for longer than `--within`
counts as dead. Before its first step a run is not alive yet; a startup probe with the same command decides how long
the start may take. A status from before this container, or else this machine, started belongs to an earlier attempt
and does not count. When a pod starts its ranks again (`restart_note.py`), the run is alive until its first step, for at
most `RESTART_SECONDS`. Kubernetes has no startup probe for a second start.

On the machine that wrote the status, its boot clock tells the age, else wall time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distrain.errors import RankError
from distrain.reporting.boot_clock import boot_clock, boot_id, process_began
from distrain.reporting.restart_note import last_restart
from distrain.reporting.status import read_status

RESTART_SECONDS = 21_600.0  # as the startup probe in k8s/base/train.yaml allows for the first start
SKEW_SECONDS = 10.0  # by which the clocks of two hosts may differ; no restart trains a step in so short a time

_ENDED = {"finished", "stopped", "failed"}


def sign_of_life(run: Path, *, within: float, now: float | None = None, since: float | None = None) -> str:
    """Return a sentence about the last sign of life of a run.

    Args:
        run: Run directory.
        within: Most seconds that may have passed since the last sign of life.
        now: Current time on the clock of the status. The clocks of two hosts may differ, so a later status counts as
            new.
        since: Start of this attempt on the clock of the status; an older status does not count. Default: the start of
            the first process of this container or machine.

    Raises:
        RankError: the run has not begun, has ended, or shows no sign of life.
        CheckpointError: the status of the run cannot be read.
    """
    status = read_status(run)
    if status is not None and _is_of_this_boot(status):
        last, clock = status["boot_seconds"], boot_clock
    else:
        last, clock = status["time"] if status else 0.0, time.time
    now = clock() if now is None else now
    restart = last_restart(run)
    if restart is not None and (age := boot_clock() - restart) <= RESTART_SECONDS:
        is_earlier = last < now - age + SKEW_SECONDS
        if status is None or is_earlier or status["state"] == "starting":
            return f"{run} is alive: it waits for its pods or starts again, {age:,.0f} s ago"
    since = now - (boot_clock() - process_began(Path("/proc/1/stat"))) if since is None else since
    if status is None or last < since:
        found = "no status yet" if status is None else "only the status of an earlier attempt"
        raise RankError(f"{run} has {found}: training has not begun, or the run directory is another.")
    state, age = status["state"], max(0.0, now - last)
    where = f"step {status.get('step', 0)}, epoch {status.get('epoch', 0)}"
    if state in _ENDED:
        message = f" {status['message']}" if isinstance(status.get("message"), str) else ""
        raise RankError(f"{run} has {state} at {where}.{message}".replace("has stopped", "was stopped"))
    if state == "starting":
        raise RankError(f"{run} is starting, {age:,.0f} s ago: no step yet.")
    if age > within:
        raise RankError(
            f"{run} shows no sign of life: {state} at {where}, last seen {age:,.0f} s ago, more than {within:g} s. A "
            "step, or a save, that takes longer needs a longer --within; else the job hangs and must be started again."
        )
    return f"{run} is alive: {state} at {where}, {age:,.0f} s ago"


def _is_of_this_boot(status: Mapping[str, Any]) -> bool:
    """Return whether the clock of this machine tells the age of a status; wall time would jump when it is set."""
    is_number = isinstance(status.get("boot_seconds"), (int, float))
    return is_number and bool(status.get("boot_id")) and status["boot_id"] == boot_id()
