"""A process that helps another one prepare a data set on the same machine.

Decides: how it begins and ends. Never: what is done; it does what its chief does.

    python -m distrain.prepare.worker_main SOCKET ALIVE    # descriptors that `workers.Chief` leaves open for it

It ends when the chief does: nothing is ever written to `ALIVE`, which the chief's end closes.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading

from distrain.config import PrepareConfig
from distrain.errors import DistrainError, RankError
from distrain.prepare.workers import Company, Worker, receive


def main(to_chief: int, alive: int) -> int:
    """Take part in the chief's work; returns the exit code."""
    threading.Thread(target=_end_with_chief, args=(alive,), daemon=True).start()
    with socket.socket(fileno=to_chief) as connection:
        try:
            orders = json.loads(receive(connection))
        except EOFError:
            return RankError.exit_code
        from rich.console import Console

        from distrain.prepare.pipeline import prepare

        group = Company(Worker(connection, orders["rank"], orders["size"]), speaker=0)
        try:
            prepare(PrepareConfig(**orders["config"]), console=Console(quiet=True), group=group)
        except DistrainError as error:
            return error.exit_code
    return 0


def _end_with_chief(alive: int) -> None:
    os.read(alive, 1)
    os._exit(RankError.exit_code)


if __name__ == "__main__":
    os._exit(main(*map(int, sys.argv[1:])))  # the chief waits for it, and taking down the interpreter takes 0.1 s
