"""Commands on a disk that fails at one operation, or that die there; see tests/faults/failing_disk.c.

with FailingDisk(tmp_path) as disk:
    ended = disk.run("prepare", "--train", "train.csv", "--out", "data", below=tmp_path / "data", at=17, kind="kill")

Each command is a fork of a process that has imported everything, so a trial takes hundredths of a second.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

FAULTS = Path(__file__).parents[1] / "faults"
PLAIN_RENAME = "kill, no exchange of names"
KINDS = {"kill": "kill", PLAIN_RENAME: "kill", "ENOSPC": "28", "EIO": "5", "full from then on": "28"}


class Ended(NamedTuple):
    """A command that has ended.

    Attributes:
        code: exit code, negative for a signal.
        output: standard output and standard error together.
        operations: number of operations on the disk.
    """

    code: int
    output: str
    operations: int


class FailingDisk:
    """The process that forks for each command.

    Args:
        folder: folder for the compiled library and for outputs.
        modules: what the process imports beforehand.
        warm_ups: commands that the process runs beforehand, as lists of words.
    """

    def __init__(self, folder: Path, *, modules: Sequence[str] = (), warm_ups: Sequence[Sequence[str]] = ()) -> None:
        self._folder = folder
        library = _build(folder)
        self._server = subprocess.Popen(
            [sys.executable, str(FAULTS / "fork_server.py"), json.dumps(modules), json.dumps(warm_ups)],
            env={**os.environ, "LD_PRELOAD": str(library), "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(
        self, *words: object, below: Path | None = None, at: int = 0, kind: str = "", journal: Path | None = None
    ) -> Ended:
        """Run a command; its operation `at` fails, if `at` is not 0.

        Args:
            words: words of the command; the first may be "write_a_run".
            below: beginning of the paths whose operations count.
            at: number of the operation that fails, from 1.
            kind: one of `KINDS`.
            journal: folder that receives what the command syncs; made by this method.
        """
        output, count = self._folder / "output", self._folder / "count"
        variables = {"FAULT_COUNT": str(count)}
        if below is not None:
            variables["FAULT_BELOW"] = str(below)
        if at:
            variables |= {"FAULT_AT": str(at), "FAULT_KIND": KINDS[kind]}
        if kind == "full from then on":
            variables["FAULT_ALL"] = "1"
        if kind == PLAIN_RENAME:
            variables["FAULT_PLAIN_RENAME"] = "1"
        if journal is not None:
            journal.mkdir()
            variables["FAULT_JOURNAL"] = str(journal)
        count.write_bytes(b"")
        request = {"words": list(map(str, words)), "variables": variables, "output": str(output)}
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        print(json.dumps(request), file=self._server.stdin, flush=True)
        code = int(self._server.stdout.readline())
        return Ended(code, output.read_text(), count.stat().st_size)

    def __enter__(self) -> FailingDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.communicate()


def is_possible() -> bool:
    """Return whether this machine has a C compiler."""
    return shutil.which("cc") is not None


def _build(folder: Path) -> Path:
    library = folder / "failing_disk.so"
    source = FAULTS / "failing_disk.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return library
