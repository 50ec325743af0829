"""Whether a run shows signs of life, for a liveness probe, from its `status.json` and without TensorFlow.

Decides: what counts as alive. Never: writes, signals or mends anything.

    $ distrain alive --run runs/1 --within 300

Training steps, evaluation steps and checkpoints are signs of life. A run that shows none for longer than `--within`
counts as dead. Before its first step a run is not alive yet; a startup probe with the same command decides how long
the start may take. A status from before this container, or else this machine, started belongs to an earlier attempt
and does not count.
"""

from __future__ import annotations

import time
from pathlib import Path

from distrain.errors import RankError
from distrain.reporting.process_time import process_began
from distrain.reporting.status import read_status

_ENDED = {"finished", "stopped", "failed"}


def sign_of_life(run: Path, *, within: float, now: float | None = None, since: float | None = None) -> str:
    """Return a sentence about the last sign of life of a run.

    Args:
        run: Run directory.
        within: Most seconds that may have passed since the last sign of life.
        now: Current time, in seconds since 1970. The clocks of two hosts may differ, so a later status counts as new.
        since: Start of this attempt, in seconds since 1970; an older status does not count. Default: the start of the
            first process of this container or machine.

    Raises:
        RankError: the run has not begun, has ended, or shows no sign of life.
        CheckpointError: the status of the run cannot be read.
    """
    now = time.time() if now is None else now
    since = process_began(Path("/proc/1/stat")) if since is None else since
    status = read_status(run)
    if status is None or status["time"] < since:
        found = "no status yet" if status is None else "only the status of an earlier attempt"
        raise RankError(f"{run} has {found}: training has not begun, or the run directory is another.")
    state, age = status["state"], max(0.0, now - status["time"])
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
