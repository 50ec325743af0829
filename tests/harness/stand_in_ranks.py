"""Checkouts whose `distrain` is a stand-in for a rank, or starts soon; and jobs that launch scripts start in them.

    job = Job(make_tree(folder), "-n", "3", environment={"WORK": "0"})
    assert [note["arguments"] for note in job.ranks(3)] == [["train"]] * 3
    code, out, err = job.end()

Environment variables say what a rank does:

    WORK     seconds of work (60); a signal ends the work with a final message and code 42
    CODE     exit code of rank FAILS (1) after its work, with an error message; other ranks then wait for a signal
    MODE     "ignoring" notes signals and goes on working; "unprepared" installs no handlers
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from marked_processes import MARK, marked_processes, new_mark
from preloaded import preloaded_python
from waiting import BOUND, wait_until

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAMS = Path(sys.executable).parent

RANK = f"""#!{sys.executable}
import json, os, signal, sys, time
from pathlib import Path

rank = int(os.environ["OMPI_COMM_WORLD_RANK"])
notes = Path(os.environ["NOTES"])
mode = os.environ.get("MODE", "")
received = []

def say(kind, what):
    if rank == 0 or kind == "error":
        print(f"distrain: {{kind}}: rank {{rank}}: {{what}}", file=sys.stderr, flush=True)

def handle(number, frame):
    received.append(signal.Signals(number).name)
    (notes / f"{{rank}}.received").write_text(" ".join(received))

if mode != "unprepared":
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
        signal.signal(number, handle)
note = {{"pid": os.getpid(), "parent": os.getppid(), "arguments": sys.argv[1:]}}
note |= {{"tty": os.environ.get("TTY_COMPATIBLE"), "cores": sorted(os.sched_getaffinity(0))}}
(notes / f"{{rank}}.part").write_text(json.dumps(note))
(notes / f"{{rank}}.part").rename(notes / f"{{rank}}.json")
end = time.monotonic() + float(os.environ.get("WORK", "60"))
while time.monotonic() < end and (mode == "ignoring" or not received):
    time.sleep(0.02)
if received:
    say("stopped", f"on {{received[0]}}")
    sys.exit(42)
code = int(os.environ.get("CODE", "0"))
if rank == int(os.environ.get("FAILS", "1")) and code:
    say("error", f"failed with {{code}}")
    sys.exit(code)
if code:
    time.sleep(60)
print(f"rank {{rank}} is done")
"""


def make_tree(folder: Path, *, distrain: str = RANK) -> Path:
    """Make a checkout with a space in its name, whose .venv holds `distrain`, Open MPI and this Python."""
    tree = folder / "check out"
    shutil.copytree(REPOSITORY / "launch", tree / "launch")
    programs = tree / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "mpirun").symlink_to(PROGRAMS / "mpirun")
    for name, script in {"distrain": distrain, "python3": f'#!/bin/sh\nexec "{sys.executable}" "$@"\n'}.items():
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    return tree


def make_training_tree(folder: Path) -> Path:
    """Make a checkout whose `distrain` is real, in a Python that has imported TensorFlow beforehand."""
    forked = shlex.join([*preloaded_python(), "-m", "distrain"])
    return make_tree(folder, distrain=f'#!/bin/sh\nexec {forked} "$@"\n')


class Job:
    """A started single_node.sh.

    Args:
        tree: Checkout.
        arguments: Arguments of the script.
        environment: Variables for the ranks.
        options: Further arguments of `subprocess.Popen`.

    Attributes:
        notes: Folder where the ranks write.
        process: The script.
    """

    def __init__(self, tree: Path, *arguments: str, environment: dict[str, str], **options: Any) -> None:
        self._mark = new_mark()
        self.notes = tree.parent / f"notes-{self._mark}"
        self.notes.mkdir()
        own = {MARK: self._mark, "NOTES": str(self.notes), "OMPI_MCA_odls_base_sigkill_timeout": "1"}
        command = [str(tree / "launch" / "single_node.sh"), *arguments]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        self.process = subprocess.Popen(
            command, env={**os.environ, **own, **environment}, text=True, cwd=tree.parent, **pipes
        )

    def processes(self) -> set[int]:
        """Return the living processes of the job, which carry its mark."""
        return marked_processes(self._mark)

    def ranks(self, count: int = 2) -> list[dict[str, Any]]:
        """Wait until the ranks have started, and return their notes."""
        notes = [self.notes / f"{rank}.json" for rank in range(count)]
        wait_until(lambda: all(note.exists() for note in notes))
        return [json.loads(note.read_text()) for note in notes]

    def folders(self) -> list[Path]:
        """Return the folders that the job made for Open MPI, from the command of its mpirun."""
        words = Path(f"/proc/{self.ranks()[0]['parent']}/cmdline").read_text().split("\0")
        return [Path(word) for word in words if "/distrain-job-" in word]

    def received(self, rank: int) -> list[str]:
        """Return the names of the signals that a rank has handled."""
        note = self.notes / f"{rank}.received"
        return note.read_text().split() if note.exists() else []

    def end(self, timeout: float = BOUND) -> tuple[int, str, str]:
        """Wait for the end; return exit code, standard output and standard error. No process may be left."""
        out, err = self.process.communicate(timeout=timeout)
        assert self.processes() == set()
        return self.process.returncode, out, err


def done_ranks(out: str) -> list[int]:
    """Return the ranks that printed that they are done; mpirun may mix the ends of their lines."""
    return sorted(int(rank) for rank in re.findall(r"rank (\d+) is done", out))


def final_messages(err: str) -> list[str]:
    """Return the messages that say how the job ended; the last line must be distrain's."""
    lines = err.splitlines()
    assert lines, "nothing on standard error"
    assert lines[-1].startswith("distrain: "), err
    return [line for line in lines if line.startswith(("distrain: error", "distrain: stopped"))]
