"""Whether a run shows signs of life, for a liveness probe: a look at its `status.json`, without TensorFlow.

Decides: what counts as alive. Never: writes, signals or mends anything.

    $ distrain alive --run runs/1 --within 300

Training steps are signs of life, steps of an evaluation and checkpoints too, so that a long evaluation is no death;
what takes longer than `--within` without any of these is one. Before its first step a run is not alive yet: how long
that may take is for a startup probe, by the same command. A status from before this container started (outside of one:
this machine) is that of an earlier attempt, and says nothing about this one.
"""

from __future__ import annotations

import time
from pathlib import Path

from distrain.errors import RankError
from distrain.reporting.process_time import process_began
from distrain.reporting.status import read_status

_ENDED = {"finished", "stopped", "failed"}


def sign_of_life(run: Path, *, within: float, now: float | None = None, since: float | None = None) -> str:
    """What a run did last, as a sentence.

    Args:
        run: the run directory.
        within: seconds that may have passed since.
        now: seconds since 1970; default: now. A status from the future, as clocks of two hosts differ, is one of now.
        since: a status from before this time does not count; default: when the first process of this container, or
            machine, began.

    Raises:
        RankError: the run has not begun, has ended, or shows no sign of life.
        CheckpointError: its status cannot be read.
    """
    now = time.time() if now is None else now
    since = process_began(Path("/proc/1/stat")) if since is None else since
    status = read_status(run)
    if status is None or status["time"] < since:
        what = "no status yet" if status is None else "only the status of an earlier attempt"
        raise RankError(f"{run} has {what}: training has not begun, or the run directory is another.")
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
