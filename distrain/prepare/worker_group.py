"""Processes on one machine that one process starts to share its work, and the socket pairs between them.

Decides: how workers start and end, and how bytes travel between them. Never: what they work on.

    group = WorkerGroup(config, size=3)              # in rank 0: starts `worker_main` twice
    group.all_gather_bytes(b"mine")                  # [b"mine", b"from rank 1", b"from rank 2"]
    group.wait()

    Worker(connection, rank=1, size=3)               # the same group in a started process

Rank 0 receives the frame of every worker and sends all contents back. All workers end with rank 0: each worker reads
from a pipe that the system closes when rank 0 ends.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict

from distrain.cluster.process_group import ProcessGroup
from distrain.config import PrepareConfig
from distrain.errors import RankError
from distrain.remote.path import text_of


class WorkerGroup(ProcessGroup):
    """Rank 0 of a group, which starts the other ranks.

    Args:
        config: what the group prepares.
        size: processes of the group, this process included.
    """

    def __init__(self, config: PrepareConfig, size: int) -> None:
        self.rank, self.size = 0, size
        self._workers: list[tuple[subprocess.Popen[bytes], socket.socket]] = []
        read_end, self._write_end = os.pipe()
        path = os.pathsep.join(filter(None, sys.path))
        for rank in range(1, size):
            connection, remote = socket.socketpair()
            with remote:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "distrain.prepare.worker_main", str(remote.fileno()), str(read_end)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[remote.fileno(), read_end],
                    env={**os.environ, "PYTHONPATH": path},
                    process_group=0,  # Ctrl-C reaches rank 0 only, which then ends the workers
                )
            self._workers.append((process, connection))
            task = {"rank": rank, "size": size, "config": asdict(config)}
            send_frame(connection, json.dumps(task, default=text_of).encode())
        os.close(read_end)

    def all_gather_bytes(self, content: bytes) -> list[bytes]:
        """See `ProcessGroup`.

        Raises:
            RankError: a worker ended.
        """
        contents = [content, *(self._receive(rank) for rank in range(1, self.size))]
        frame = pack(contents)
        for _, connection in self._workers:
            with suppress(OSError):  # this worker has ended, as the next `_receive` from it reports
                send_frame(connection, frame)
        return contents

    def _receive(self, rank: int) -> bytes:
        process, connection = self._workers[rank - 1]
        try:
            return receive_frame(connection)
        except (EOFError, OSError):
            code = process.wait()
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            raise RankError(
                f"worker process {rank} of --workers {self.size} {how}. Start again, perhaps with fewer.",
                reporting_rank=0,
            ) from None

    def wait(self) -> None:
        """Wait until all workers have ended by themselves."""
        for process, _ in self._workers:
            process.wait()

    def end(self) -> None:
        """Kill all workers that still run."""
        for process, connection in self._workers:
            connection.close()
            process.kill()
            process.wait()
        if self._write_end >= 0:
            os.close(self._write_end)
            self._write_end = -1


class Worker(ProcessGroup):
    """Another rank of the group of a `WorkerGroup`.

    Args:
        connection: the socket that leads to rank 0.
        rank: number of this process.
        size: processes of the group.
    """

    def __init__(self, connection: socket.socket, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self._connection = connection

    def all_gather_bytes(self, content: bytes) -> list[bytes]:
        """See `ProcessGroup`; exits this process if rank 0 has ended."""
        try:
            send_frame(self._connection, content)
            return unpack(receive_frame(self._connection))
        except (EOFError, OSError):
            raise SystemExit(RankError.exit_code) from None  # rank 0 has reported why


def send_frame(connection: socket.socket, content: bytes) -> None:
    """Send one frame: the content's length as an unsigned 64-bit number in network order, then the content."""
    connection.sendall(struct.pack("!Q", len(content)))
    connection.sendall(content)


def receive_frame(connection: socket.socket) -> bytes:
    """Return the content of the next frame.

    Raises:
        EOFError: the peer closed the connection.
    """
    (size,) = struct.unpack("!Q", _receive_exactly(connection, 8))
    return _receive_exactly(connection, size)


def _receive_exactly(connection: socket.socket, size: int) -> bytes:
    content = bytearray()
    while len(content) < size:
        piece = connection.recv(min(size - len(content), 2**20))
        if not piece:
            raise EOFError
        content += piece
    return bytes(content)


def pack(contents: Sequence[bytes]) -> bytes:
    """Join several contents into one; see `unpack`."""
    return struct.pack(f"!Q{len(contents)}Q", len(contents), *map(len, contents)) + b"".join(contents)


def unpack(packed: bytes) -> list[bytes]:
    """Return the contents that `pack` joined."""
    (count,) = struct.unpack_from("!Q", packed)
    sizes = struct.unpack_from(f"!{count}Q", packed, 8)
    contents, start = [], 8 + 8 * count
    for size in sizes:
        contents.append(packed[start : start + size])
        start += size
    return contents
