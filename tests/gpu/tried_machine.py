"""A machine while its GPUs are tried: checks with time limits, the commands that they run, and their results.

machine = Machine(folder, "gpu", 8, end=time.monotonic() + 600)
machine.check("doctor", lambda: machine.command("distrain", "doctor"))
machine.rows                                     # [("doctor", "ok", 3.1, "...")]
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from distrain.install.progress import run_step

BIN = Path(sys.executable).parent


@dataclass
class Machine:
    """The machine while it is tried.

    Attributes:
        folder: for data, runs and logs.
        kind: "gpu", or "cpu" where CPU devices stand for GPUs.
        count: number of GPUs.
        end: time at which everything must be over, by `time.monotonic`.
        rows: rows of the table of checks: name, result, seconds, figures.
        speeds: rows of the table of speeds.
        limit: seconds for each command of the check that runs.
    """

    folder: Path
    kind: str
    count: int
    end: float
    rows: list[tuple[str, str, float, str]] = field(default_factory=list)
    speeds: list[tuple[str, float]] = field(default_factory=list)
    limit: float = 0.0

    @property
    def one(self) -> str:
        """The value of --devices for one GPU."""
        return "gpu:0" if self.kind == "gpu" else "cpu:1"

    @property
    def all(self) -> str:
        """The value of --devices for all GPUs in one process."""
        return f"gpu:{','.join(map(str, range(self.count)))}" if self.kind == "gpu" else f"cpu:{self.count}"

    def check(self, name: str, run: Callable[[], str], *, seconds: float = 120.0) -> None:
        """Run a check, and note its result.

        Args:
            name: title of the check.
            run: returns figures for people, or raises.
            seconds: limit of each command of the check.
        """
        began = time.monotonic()
        self.limit = min(seconds, self.end - began)
        if self.limit <= 0:
            self.rows.append((name, "NOT RUN", 0.0, "no time was left"))
            return
        try:
            result, figures = "ok", run()
        except Exception as error:  # the other checks must still run
            result, figures = "FAILED", f"{type(error).__name__}: {error}"
        self.rows.append((name, result, time.monotonic() - began, figures))
        print(f"{result:<8}{name}: {figures}", flush=True)

    def command(self, *words: object, environ: dict[str, str] | None = None) -> str:
        """Run a command within the limit of its check, and return its output.

        Raises:
            AssertionError: the command failed or took too long; the message is its last line.
        """
        log = self.folder / f"{len(list(self.folder.glob('*.log'))):03}.log"
        command = ["timeout", "--kill-after", "5", f"{self.limit:.0f}", *map(str, words)]
        settings = {"TF_CPP_MIN_LOG_LEVEL": "3", "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        variables = {**os.environ, **settings, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", **(environ or {})}
        code = run_step(" ".join(map(str, words))[:150], command, log=log, environ=variables)
        output = log.read_text(encoding="utf-8", errors="replace")
        last = next((line for line in reversed(output.splitlines()) if line.strip()), "")
        assert code not in (124, 137, -9), f"took more than {self.limit:.0f} s ({log})"
        assert code == 0, f"exit code {code}: {last[:300]} ({log})"
        return output

    def train(self, model: str, devices: str, *words: object, launcher: tuple[object, ...] = ()) -> Path:
        """Train a shipped model on prepared text, and return the run directory."""
        run = self.folder / f"run-{len(list(self.folder.glob('run-*'))):03}"
        start = launcher or (sys.executable, "-m", "distrain", "train")
        where = ("--devices", devices) if devices else ()
        self.command(*start, "--data", self.folder / model, "--run", run, *where, *words)
        return run
