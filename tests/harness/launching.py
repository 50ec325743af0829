"""Real launchers for tests: start a command on N ranks of this machine, which may have fewer cores.

done = run_ranks("mpirun", 3, [sys.executable, "program.py"], env={"DISTRAIN_TEST": "1"})
assert done.returncode == 0, done.stderr
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from preloaded import preloaded_python

BIN = Path(sys.executable).parent

LAUNCHERS = {
    "horovodrun --gloo": ["horovodrun", "--gloo", "--disable-cache", "-np"],
    "horovodrun --mpi": ["horovodrun", "--mpi", "--disable-cache", "-np"],
    "mpirun": ["mpirun", "--oversubscribe", "--bind-to", "none", "-n"],
}

needs_horovod = pytest.mark.skipif(
    importlib.util.find_spec("horovod") is None, reason="Horovod is not built: ./launch/install_horovod.sh"
)
needs_mpi = pytest.mark.skipif(
    importlib.util.find_spec("mpi4py") is None, reason="mpi4py is not installed: pip install 'distrain[mpi]'"
)


def launcher_command(launcher: str, num_ranks: int) -> list[str]:
    """Return the words that start the command after them on `num_ranks` ranks."""
    program, *words = LAUNCHERS[launcher]
    python = preloaded_python() if program == "horovodrun" else []  # its check whether Gloo is built imports TensorFlow
    return [*python, str(BIN / program), *words, str(num_ranks)]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the variables for ranks: programs of this environment first, MPI for root too, no notes of TensorFlow."""
    own = {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }
    return {**os.environ, **own, **(extra or {})}


def start_ranks(
    launcher: str,
    num_ranks: int,
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> subprocess.Popen[str]:
    """Start a command on ranks, in a new session; the caller ends the session with `end`."""
    return subprocess.Popen(
        [*launcher_command(launcher, num_ranks), *command],
        env=environment(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run_ranks(
    launcher: str,
    num_ranks: int,
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    timeout: float = 240,
) -> subprocess.CompletedProcess[str]:
    """Run a command on ranks to its end; a hang is a failure and leaves no process."""
    process = start_ranks(launcher, num_ranks, command, env=env, cwd=cwd)
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    finally:
        end(process)
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def end(process: subprocess.Popen[str]) -> None:
    """Kill all processes of a launcher's session; mpirun gives each rank a process group, but all share the session."""
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(int(path.name)) == process.pid:
                os.kill(int(path.name), signal.SIGKILL)
    process.wait()
