"""A data worker as an operating system process: how it starts, and why it ended.

Decides: the environment and the signals of a worker. Never: what a worker reads.

    worker = start_worker(1, read_end)                 # an interpreter that runs `main`
    worker.connection.send_bytes(pickle.dumps(worker_setup(needs_main=False)))
    raise worker.lost("it read example 7", num_workers=4)
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

from distrain.cluster.signals import STOP_SIGNALS
from distrain.errors import ConfigurationError, RankError

WORKER_VARIABLE = "DISTRAIN_DATA_WORKER"  # set in the environment of a worker
END_SECONDS = 10.0  # for a worker that has closed its connection
_MPI_VARIABLES = ("OMPI_", "PMIX_", "PMI_")  # a worker is no rank: MPI must not take it for one


@dataclass(frozen=True)
class WorkerProcess:
    """A worker.

    Attributes:
        number: number of the worker, from 1.
        process: the process.
        connection: leads to the process.
    """

    number: int
    process: subprocess.Popen[bytes]
    connection: Connection

    def lost(self, doing: str, num_workers: int) -> RankError:
        """Return the error that tells of the end of this worker.

        Args:
            doing: what the worker did last, such as "it read example 7".
            num_workers: number of workers.
        """
        try:
            code = self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        if code == -signal.SIGKILL:
            how, cure = "was killed by SIGKILL", "Most often memory ran out: take fewer workers, or smaller examples"
        elif code < 0:
            how, cure = f"was killed by {signal.Signals(-code).name}", "Code of the source or of map= crashed"
        else:
            how, cure = f"ended with exit code {code}", "Code of the source or of map= ended the process"
        return RankError(f"data worker {self.number} of {num_workers} {how} while {doing}. {cure}.")


def refuse_in_worker() -> None:
    """Raise `ConfigurationError` in a data worker, which imports the user's script and must not run it."""
    if WORKER_VARIABLE in os.environ:
        raise ConfigurationError(
            f"{sys.argv[0]} calls distrain.fit while a data worker imports the script. Put the call under "
            'if __name__ == "__main__":, so that only the script itself trains.'
        )


def worker_setup(*, needs_main: bool) -> dict[str, Any]:
    """Return what a worker needs before it can receive readers.

    Args:
        needs_main: whether readers hold functions or classes of the user's script, which workers then import.

    Raises:
        ConfigurationError: the functions are in no file, as in a notebook.
    """
    setup: dict[str, Any] = {"sys_path": _import_path(), "sys_argv": sys.argv}
    if needs_main:
        main = sys.modules["__main__"]
        path = getattr(main, "__file__", None)
        if path is None:
            raise ConfigurationError(
                "the data or map= is defined in a notebook or an interactive session, which data workers cannot "
                "import: put it into a file of its own, or leave out data_workers."
            )
        name = getattr(getattr(main, "__spec__", None), "name", None)
        setup |= {"init_main_from_name": name} if name else {"init_main_from_path": str(Path(path).absolute())}
    return setup


def _import_path() -> list[str]:
    """Return where this process looks for modules; an empty entry stands for the current folder."""
    return [path or str(Path.cwd()) for path in sys.path]


def start_worker(number: int, read_end: int) -> WorkerProcess:
    """Start a worker that ends when the other end of the pipe `read_end` closes."""
    connection, remote = Pipe()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_MPI_VARIABLES)}
    environment |= {
        WORKER_VARIABLE: str(number),
        "PYTHONPATH": os.pathsep.join(_import_path()),
        "CUDA_VISIBLE_DEVICES": "-1",  # a map= that uses TensorFlow must not take the memory of the GPUs
    }
    arguments = ["-m", "distrain.data.workers.main", str(remote.fileno()), str(read_end)]
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # until the worker ignores them
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", *arguments],
            stdin=subprocess.DEVNULL,
            pass_fds=[remote.fileno(), read_end],
            env=environment,
            process_group=0,  # Ctrl-C is for the process that trains
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    remote.close()
    return WorkerProcess(number, process, connection)
