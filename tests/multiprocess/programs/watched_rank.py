"""One rank of a watched run: watched_rank.py RANK SIZE FOLDER SILENCE.

Does what the files `tell-RANK` in the folder say, one after the other, each an order and a number:

    step N     tell that step N is done
    fail N     watch.failed(N), say so, leave with N
    hang N     watch.failed(N), say so, and then never come to an end
    data, value, exit N, stop
               leave the context with DataError, ValueError, SystemExit(N), StopRequested
    write N    print N lines of 99 characters
    sleep S    S seconds in C, without the interpreter's lock
    busy S     S seconds in Python
    end S      leave the context after S seconds

Prints "watching" once it does, and "did ORDER" after each.
"""

from __future__ import annotations

import ctypes
import sys
import time
from pathlib import Path

from distrain.cluster import failure_detector as heartbeat
from distrain.cluster.process_group import ProcessGroup
from distrain.errors import DataError, DistrainError, StopRequested

rank, size, folder, silence = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4])
rounds = iter(range(10))
heartbeat.BEAT_SECONDS = heartbeat.PATIENCE_SECONDS = 0.5
heartbeat.ECHO_SECONDS = heartbeat.LAST_SECONDS = 1.0
heartbeat.GOODBYE_SECONDS = 0.1


def take(path: Path) -> bytes:
    """The content of a file that somebody else is about to write."""
    while not path.exists():
        time.sleep(0.01)
    return path.read_bytes()


class FileGroup(ProcessGroup):
    """All ranks; contents travel as files."""

    rank, size = rank, size

    def all_gather_bytes(self, content: bytes) -> list[bytes]:
        number = next(rounds)
        beside = folder / f"exchange-{number}-{rank}.part"
        beside.write_bytes(content)
        beside.rename(folder / f"exchange-{number}-{rank}")
        return [take(folder / f"exchange-{number}-{other}") for other in range(size)]


def say(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    with heartbeat.watching(FileGroup(), silence_seconds=silence) as watch:
        say("watching")
        order_file = folder / f"tell-{rank}"
        while True:
            name, number = take(order_file).decode().split()
            order_file.unlink()
            match name:
                case "step":
                    watch.at_step(int(number))
                case "data":
                    raise DataError("shard 7 is damaged")
                case "value":
                    raise ValueError("a defect")
                case "exit":
                    sys.exit(int(number))
                case "stop":
                    raise StopRequested("somebody asked")
                case "fail" | "hang":
                    watch.failed(int(number))
                    print(f"rank {rank} failed by itself", file=sys.stderr, flush=True)
                    if name == "fail":
                        return int(number)
                    while True:
                        time.sleep(1)
                case "write":
                    say("writes")
                    for _ in range(int(number)):
                        print("x" * 99)
                case "sleep":
                    ctypes.CDLL(None).sleep(int(number))  # ctypes gives the lock away
                case "busy":
                    end = time.monotonic() + float(number)
                    while time.monotonic() < end:
                        pass
                case "end":
                    time.sleep(float(number))
                    break
            say(f"did {name}")
    say("left")
    return 0


try:
    sys.exit(main())
except DistrainError as error:
    print(f"distrain: error: {error}", *getattr(error, "__notes__", ()), file=sys.stderr)
    sys.exit(error.exit_code)
