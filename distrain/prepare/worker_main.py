"""The program of a worker, which shares the work of the process that started it.

Decides: how a worker starts and ends. Never: what it works on, as rank 0 sends the configuration.

    python -m distrain.prepare.worker_main SOCKET PIPE    # descriptors that a `WorkerGroup` leaves open

Rank 0 never writes to `PIPE`. When rank 0 ends, the system closes the pipe and the worker ends too.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading

from distrain.cluster.error_relay import ErrorRelay
from distrain.config import PrepareConfig
from distrain.errors import DistrainError, RankError
from distrain.prepare.worker_group import Worker, receive_frame


def main(descriptor: int, pipe: int) -> int:
    """Prepare as one rank of the group; return the exit code.

    Args:
        descriptor: of the socket that leads to rank 0.
        pipe: descriptor of a pipe that closes when rank 0 ends.
    """
    threading.Thread(target=_end_with_rank_0, args=(pipe,), daemon=True).start()
    with socket.socket(fileno=descriptor) as connection:
        try:
            task = json.loads(receive_frame(connection))
        except EOFError:
            return RankError.exit_code
        from rich.console import Console

        from distrain.prepare.pipeline import prepare

        group = ErrorRelay(Worker(connection, task["rank"], task["size"]), reporting_rank=0)
        try:
            prepare(PrepareConfig(**task["config"]), console=Console(quiet=True), group=group)
        except DistrainError as error:
            return error.exit_code
    return 0


def _end_with_rank_0(pipe: int) -> None:
    os.read(pipe, 1)
    os._exit(RankError.exit_code)


if __name__ == "__main__":
    os._exit(main(*map(int, sys.argv[1:])))  # rank 0 waits, and closing the interpreter takes 0.1 s
