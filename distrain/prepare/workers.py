"""The processes that share the work of `distrain prepare`, and how an error on one of them reaches all.

Decides: how many there are, and where they come from: this process alone, processes that it starts on this machine, or
those that mpirun or srun started. Never: what any of them does.

    with gathered_team(config) as team:                        # in every process that was started by hand
        prepare(config, console=console, team=team)
        with shared_folders(team, config.out) as (new, scratch): ...

Results do not depend on how many there are. Processes on one machine speak over socket pairs, in frames of bytes; the
chief stands between the others. They end with it: at its word, or when it dies.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

from distrain.cluster.process_group import ProcessGroup, SingleProcess
from distrain.cluster.world import find_world
from distrain.config import PrepareConfig
from distrain.errors import ConfigurationError, DataError, DistrainError, RankError
from distrain.prepare.staging import staged

MAX_WORKERS = 8  # by default; what each reads of the others' rows is then about a third of its work
_BYTES_PER_WORKER = 2**24  # with less text, starting a process takes longer than it saves
_KINDS = {kind.exit_code: kind for kind in (ConfigurationError, DataError, RankError)}
_FINE, _FAILED = b"+", b"-"
_SECONDS_TO_END = 5.0


class Company(ProcessGroup):
    """A process group that relays errors.

    Args:
        group: the processes.
        end: ends the other processes, where that is this process's to do.
        speaker: rank that tells people of errors; None: the one where it happened.
    """

    def __init__(
        self, group: ProcessGroup, *, end: Callable[[], None] = lambda: None, speaker: int | None = None
    ) -> None:
        self._group = group
        self.end = end
        self._speaker = speaker
        self.rank, self.size = group.rank, group.size

    def all_gather_bytes(self, content: bytes) -> list[bytes]:
        """See `ProcessGroup`."""
        heard = self._group.all_gather_bytes(_FINE + content)
        for rank, answer in enumerate(heard):
            if answer[:1] == _FAILED:
                raise self._heard(rank, answer[1:])
        return [answer[1:] for answer in heard]

    def fail(self, error: Exception) -> None:
        """Let the others' next exchange fail with `error`, instead of taking part in it."""
        code = error.exit_code if isinstance(error, DistrainError) else DistrainError.exit_code
        told = {"code": code, "message": str(error) or type(error).__name__}
        heard = self._group.all_gather_bytes(_FAILED + json.dumps(told).encode())
        if isinstance(error, DistrainError):  # the same row may be wrong for all: one of them tells of it
            first = min(rank for rank, answer in enumerate(heard) if answer[:1] == _FAILED)
            error.reporting_rank = first if self._speaker is None else self._speaker

    def _heard(self, rank: int, told: bytes) -> DistrainError:
        content = json.loads(told)
        error = _KINDS.get(content["code"], DistrainError)(content["message"])
        error.reporting_rank = rank if self._speaker is None else self._speaker
        return error


@contextmanager
def gathered_group(config: PrepareConfig) -> Iterator[ProcessGroup]:
    """The team that this process belongs to, or gathers, to prepare what `config` asks for.

    Raises:
        ConfigurationError: the launcher's processes cannot be joined.
    """
    world = find_world(os.environ)
    if world.size > 1:
        from distrain.prepare.mpi_workers import join_mpi

        mpi = join_mpi(world)
        try:
            yield Company(mpi, end=mpi.abort)
        except BaseException as error:
            if not isinstance(error, Exception):  # a signal: the others do not know of it
                mpi.abort()
            raise
        return
    workers = config.workers or _workers_for(config)
    if workers == 1:
        yield SingleProcess()
        return
    with ExitStack() as stack:
        chief = Chief(config, workers)
        stack.callback(chief.end)
        yield Company(chief, end=chief.end, speaker=0)
        chief.wait()


def _workers_for(config: PrepareConfig) -> int:
    """As many as there are cores, but none with too little to do."""
    size = config.train.stat().st_size if config.train.is_file() else 0
    return max(1, min(len(os.sched_getaffinity(0)), MAX_WORKERS, size // _BYTES_PER_WORKER))


@contextmanager
def errors_told(group: ProcessGroup) -> Iterator[None]:
    """Tell the team of an error in this block, unless it told of it."""
    try:
        yield
    except BaseException as raised:
        # Where a signal comes while a kernel hands back its result, its exception comes inside others.
        inner: BaseException | None = raised
        while isinstance(inner, SystemError):
            inner = inner.__cause__ or inner.__context__
        error = inner if isinstance(inner, KeyboardInterrupt | SystemExit) else raised
        if isinstance(group, Company):
            if not isinstance(error, Exception):
                group.end()
            elif getattr(error, "reporting_rank", None) is None:
                group.fail(error)
        raise error from error.__cause__


@contextmanager
def shared_folders(group: ProcessGroup, out: Path) -> Iterator[tuple[Path, Path]]:
    """`staged(out)` for a team: all get the folders, and the chief alone makes and renames them.

    Raises:
        ConfigurationError: see `staged`; or the folders cannot be seen from here.
    """
    with ExitStack() as stack:
        with errors_told(group):
            folders = stack.enter_context(staged(out)) if group.rank == 0 else None
            told = group.all_gather_bytes(json.dumps([str(folder) for folder in folders or ()]).encode())
            new, scratch = map(Path, json.loads(told[0]))
            if not scratch.is_dir():
                raise ConfigurationError(
                    f"--out {out} is on another file system for rank {group.rank} than for rank 0. "
                    "Choose a folder that all hosts share."
                )
        with errors_told(group):
            yield new, scratch
            group.barrier()  # nobody has failed


class Chief(ProcessGroup):
    """The end of the channel that starts the other processes, with `distrain.prepare.worker_main`.

    Args:
        config: what they are to prepare.
        size: processes, this one included.
    """

    def __init__(self, config: PrepareConfig, size: int) -> None:
        self.rank, self.size = 0, size
        self._workers: list[tuple[subprocess.Popen[bytes], socket.socket]] = []
        hears, self._alive = os.pipe()
        path = os.pathsep.join(filter(None, sys.path))
        for rank in range(1, size):
            ours, theirs = socket.socketpair()
            with theirs:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-m", "distrain.prepare.worker_main", str(theirs.fileno()), str(hears)],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno(), hears],
                    env={**os.environ, "PYTHONPATH": path},
                    process_group=0,  # Ctrl-C is the chief's; it ends the others
                )
            self._workers.append((process, ours))
            send(ours, json.dumps({"rank": rank, "size": size, "config": asdict(config)}, default=str).encode())
        os.close(hears)

    def all_gather_bytes(self, content: bytes) -> list[bytes]:
        """See `ProcessGroup`."""
        answers = [content, *(self._receive(rank) for rank in range(1, self.size))]
        frame = pack(answers)
        for _, ours in self._workers:
            with suppress(OSError):  # it is lost, which the next to hear of it says
                send(ours, frame)
        return answers

    def _receive(self, rank: int) -> bytes:
        process, ours = self._workers[rank - 1]
        try:
            return receive(ours)
        except (EOFError, OSError):
            code = process.wait()
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            lost = RankError(f"worker process {rank} of --workers {self.size} {how}. Start again, perhaps with fewer.")
            lost.reporting_rank = 0
            raise lost from None

    def wait(self) -> None:
        """Let the others end by themselves."""
        for process, _ in self._workers:
            process.wait()

    def end(self) -> None:
        """End the other processes."""
        for process, ours in self._workers:
            ours.close()
            process.kill()
            process.wait()
        if self._alive >= 0:
            os.close(self._alive)
            self._alive = -1


class Worker(ProcessGroup):
    """The other end of a `Chief`'s channel.

    Args:
        to_chief: the socket that leads to it.
        rank: number of this process.
        size: processes in all.
    """

    def __init__(self, to_chief: socket.socket, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self._to_chief = to_chief

    def all_gather_bytes(self, content: bytes) -> list[bytes]:
        """See `ProcessGroup`."""
        try:
            send(self._to_chief, content)
            return unpack(receive(self._to_chief))
        except (EOFError, OSError):
            raise SystemExit(RankError.exit_code) from None  # the chief has ended, and said why


def send(to: socket.socket, content: bytes) -> None:
    """Send one frame."""
    to.sendall(struct.pack("!Q", len(content)))
    to.sendall(content)


def receive(ours: socket.socket) -> bytes:
    """The next frame.

    Raises:
        EOFError: the other side has closed the connection.
    """
    (size,) = struct.unpack("!Q", _receive_exactly(ours, 8))
    return _receive_exactly(ours, size)


def _receive_exactly(ours: socket.socket, size: int) -> bytes:
    content = bytearray()
    while len(content) < size:
        piece = ours.recv(min(size - len(content), 2**20))
        if not piece:
            raise EOFError
        content += piece
    return bytes(content)


def pack(contents: Sequence[bytes]) -> bytes:
    """Several contents as one."""
    return struct.pack(f"!Q{len(contents)}Q", len(contents), *map(len, contents)) + b"".join(contents)


def unpack(frame: bytes) -> list[bytes]:
    """The reverse of `pack`."""
    (count,) = struct.unpack_from("!Q", frame)
    sizes = struct.unpack_from(f"!{count}Q", frame, 8)
    contents, start = [], 8 + 8 * count
    for size in sizes:
        contents.append(frame[start : start + size])
        start += size
    return contents
