"""The program of a data worker, which reads examples for the process that started it.

Decides: how a worker starts and ends. Never: which examples it reads.

    python -m distrain.data.workers.main CONNECTION PIPE    # descriptors that a `WorkerPool` leaves open

Tasks come as pickle, through a socket that the worker inherits from the process that trains. It has no name, so nobody
else can write to it, and no file is read as pickle. That process never writes to `PIPE`. When it ends, the system
closes the pipe and the worker ends.
"""

from __future__ import annotations

import contextlib
import multiprocessing.spawn
import os
import pickle
import signal
import sys
import threading
from multiprocessing.connection import Connection

from distrain.cluster.signals import STOP_SIGNALS
from distrain.data.workers.messages import send_error, send_rows
from distrain.errors import RankError


def main(descriptor: int, pipe: int) -> int:
    """Answer one task after the other; return the exit code.

    Args:
        descriptor: of the connection to the process that trains.
        pipe: descriptor of a pipe that closes when that process ends.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)
    threading.Thread(target=_end_with_parent, args=(pipe,), daemon=True).start()
    connection = Connection(descriptor)
    with contextlib.suppress(EOFError, ConnectionError):  # the process that trains has ended
        serve(connection)
    return RankError.exit_code


def serve(connection: Connection) -> None:
    """Receive the readers, then answer tasks until the connection closes."""
    setup, content = connection.recv_bytes(), connection.recv_bytes()
    try:
        multiprocessing.spawn.prepare(pickle.loads(setup))  # imports the user's script if the readers need it
        readers = pickle.loads(content)
    except Exception as error:
        send_error(connection, error)
        return
    connection.send_bytes(b"ready")
    while True:
        key, numbers, epoch, found = pickle.loads(connection.recv_bytes())
        reader, layout = readers[key]
        try:
            rows = reader.read(layout, numbers, epoch=epoch, found=found)
        except Exception as error:
            send_error(connection, error)
        else:
            send_rows(connection, rows)


def _end_with_parent(pipe: int) -> None:
    os.read(pipe, 1)
    os.killpg(0, signal.SIGKILL)  # this process, and those that map= started


if __name__ == "__main__":
    os._exit(main(*map(int, sys.argv[1:])))  # closing the interpreter would take 0.1 s
