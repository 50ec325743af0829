"""One rank of `distrain train` with events: python failure_train.py FOLDER EVENTS ARGUMENTS...

EVENTS is a JSON list; see failure_events.py. ARGUMENTS are the arguments of `distrain train`; "{rank}" in them becomes
this rank's number. The rank writes into FOLDER:

    event.RANK    when the last event happened, in seconds of the machine's monotonic clock
    code.RANK     how the process ended, as its parent saw it
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import distrain.training.run
from distrain.cli.main import main
from distrain.cluster.signals import STOP_SIGNALS
from distrain.cluster.world import find_world


def note_how_it_ends(path: Path) -> None:
    """Continue in a child process; its parent forwards signals, writes the child's exit code and ends alike."""
    child = os.fork()
    if child == 0:
        return
    for number in STOP_SIGNALS:
        signal.signal(number, lambda number, frame: os.kill(child, number))
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    path.write_text(str(code), encoding="utf-8")
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def run(folder: Path, events: list[dict[str, Any]], arguments: list[str]) -> int:
    """Train, with the events of this rank."""
    rank = find_world(os.environ).rank
    note_how_it_ends(folder / f"code.{rank}")
    open_job = distrain.training.run.open_job

    def note_event() -> None:
        (folder / f"event.{rank}").write_text(str(time.monotonic()), encoding="utf-8")

    def open_eventful_job(config: Any) -> Any:
        from failure_events import eventful

        return eventful(
            open_job(config), config, [event for event in events if event["rank"] == rank], before_event=note_event
        )

    distrain.training.run.open_job = open_eventful_job
    return main(["train", *(argument.replace("{rank}", str(rank)) for argument in arguments)])


if __name__ == "__main__":
    sys.exit(run(Path(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3:]))
