"""Goodput: useful steps over all trained steps, while a rank is killed again and again.

    python benchmarks/goodput.py [--kill-seconds 30] [--kills 10] [--checkpoint-every 50] [--ranks 2] [--epochs 200]

`launch/single_node.sh --restarts` trains a small n-gram model. SIGKILL ends a random rank after each `--kill-seconds`
of training. Steps behind the checkpoint from which a restart goes on are lost: trained twice. Their number is the last
logged step, plus the steps that fit at the measured rate between that event and the kill. The table also shows the wall
time without a step, from each kill to the next step: detecting the loss, starting Python and TensorFlow, compiling.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from long_run import BATCH_SIZE, write_data
from measuring import QUIET, family
from rich.console import Console
from rich.table import Table

SCRIPT = Path(__file__).resolve().parents[1] / "launch" / "single_node.sh"
STEPS_PER_EPOCH = 1000
POLL_SECONDS = 0.1
TARGET = 0.95


def disturbed_run(data: Path, run: Path, options: argparse.Namespace) -> tuple[list[float], float]:
    """Train, and kill a random rank at intervals; return the times of the kills, and the seconds of the run."""
    settings = ["--epochs", options.epochs, "--patience", 0, "--global-batch-size", BATCH_SIZE]
    settings += ["--checkpoint-every", options.checkpoint_every, "--strategy", "mpi", "--learning-rate", 1e-4]
    words = ["-n", options.ranks, "--restarts", options.kills, "--data", data, "--run", run, *settings]
    began, kills = time.monotonic(), []
    with tempfile.TemporaryFile("w+") as errors:
        environment = {**os.environ, **QUIET}
        command = [str(SCRIPT), *map(str, words)]
        job = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=errors, env=environment)
        training_since = None
        while job.poll() is None:
            time.sleep(POLL_SECONDS)
            if training_since is None and _last_step_time(run) > max([0.0, *kills]):
                training_since = time.monotonic()
            is_due = training_since is not None and time.monotonic() > training_since + options.kill_seconds
            if is_due and len(kills) < options.kills and (ranks := _ranks(job.pid)):
                os.kill(random.choice(ranks), signal.SIGKILL)
                kills.append(time.time())
                training_since = None
        errors.seek(0)
        if job.returncode:
            sys.exit(f"{' '.join(command)}\nreturned {job.returncode}:\n{errors.read()[-4000:]}")
    return kills, time.monotonic() - began


def _last_step_time(run: Path) -> float:
    try:
        status = json.loads((run / "status.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # the run is not there yet
        return 0.0
    return status.get("last_step_time", 0.0)


def _ranks(pid: int) -> list[int]:
    found = []
    for process in family(pid):
        try:
            if b"\0OMPI_COMM_WORLD_RANK=" in Path(f"/proc/{process}/environ").read_bytes():
                found.append(process)
        except OSError:  # it has just ended
            continue
    return found


def losses(log: Path, kills: list[float]) -> list[tuple[float, float]]:
    """Return the lost steps and the seconds without a step of each restart that resumed from a checkpoint."""
    events = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    found = []
    for place, resumed in enumerate(events):
        if resumed["event"] != "resume":
            continue
        before = [event for event in events[:place] if event["event"] in ("step", "resume")]
        killed = max((kill for kill in kills if kill <= resumed["time"]), default=resumed["time"])
        reached = before[-1]["step"] + max(0.0, killed - before[-1]["time"]) * _steps_per_second(before)
        first = next(event for event in events[place:] if event["event"] == "step")
        found.append((max(0.0, reached - resumed["step"]), first["time"] - killed))
    return found


def _steps_per_second(events: list[dict[str, Any]]) -> float:
    """Return the rate between the last two events after a start; 0 if there is only one."""
    last, one_before = events[-1], events[-2] if len(events) > 1 else events[-1]
    seconds, steps = last["time"] - one_before["time"], last["step"] - one_before["step"]
    return steps / seconds if seconds > 0 and steps > 0 else 0.0


def main() -> None:
    """Train with kills, and print what was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kill-seconds", type=float, default=30.0)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--checkpoint-every", type=int, default=50)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=200, help="of 1,000 steps (default: 200)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data, run = write_data(Path(folder) / "data", STEPS_PER_EPOCH), Path(folder) / "run"
        kills, seconds = disturbed_run(data, run, options)
        found = losses(run / "metrics.jsonl", kills)
        useful = json.loads((run / "summary.json").read_text(encoding="utf-8"))["global_steps"]
    lost, idle = sum(steps for steps, _ in found), sum(without for _, without in found)
    table = Table(title=f"SIGKILL to a rank after each {options.kill_seconds:g} s of training", title_justify="left")
    for column in ("kills", "useful steps", "lost steps", "useful / all", "seconds", "without a step, s"):
        table.add_column(column, justify="right")
    ratio = useful / (useful + lost)
    table.add_row(f"{len(kills)}", f"{useful:,}", f"{lost:,.0f}", f"{ratio:.4f}", f"{seconds:.0f}", f"{idle:.0f}")
    console = Console()
    console.print(table)
    console.print(f"target: {TARGET:g} of all steps are useful: {'reached' if ratio >= TARGET else 'MISSED'}")


if __name__ == "__main__":
    main()
