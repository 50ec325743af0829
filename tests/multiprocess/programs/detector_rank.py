"""One rank of a run with a failure detector: detector_rank.py RANK SIZE FOLDER SILENCE.

Executes the commands in the files `command-RANK` of the folder, one after the other. A command is a name and a number:

    step N     report that step N is done
    fail N     call detector.fail(N), print so, exit with N
    hang N     call detector.fail(N), print so, and never exit
    data, value, exit N, stop
               leave the context with DataError, ValueError, SystemExit(N), StopRequested
    write N    print N lines of 99 characters
    sleep S    sleep S seconds in C, without the interpreter's lock
    busy S     compute S seconds in Python
    end S      leave the context after S seconds

Prints "detecting" inside the context, and "did NAME" after each command.
"""

from __future__ import annotations

import ctypes
import sys
import time
from pathlib import Path

from distrain.cluster import failure_detector
from distrain.cluster.process_group import ProcessGroup
from distrain.errors import DataError, DistrainError, StopRequested

rank, size, folder, silence = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4])
exchanges = iter(range(10))
failure_detector.BEAT_SECONDS = failure_detector.PATIENCE_SECONDS = 0.5
failure_detector.VERDICT_SECONDS = failure_detector.EXIT_SECONDS = 1.0
failure_detector.GOODBYE_SECONDS = 0.1


def take(path: Path) -> bytes:
    """Wait for a file that another process renames into place; return its content."""
    while not path.exists():
        time.sleep(0.01)
    return path.read_bytes()


class FileGroup(ProcessGroup):
    """All ranks; contents travel as files."""

    rank, size = rank, size

    def all_gather_bytes(self, content: bytes) -> list[bytes]:
        number = next(exchanges)
        tmp_path = folder / f"exchange-{number}-{rank}.part"
        tmp_path.write_bytes(content)
        tmp_path.rename(folder / f"exchange-{number}-{rank}")
        return [take(folder / f"exchange-{number}-{other}") for other in range(size)]


def say(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    with failure_detector.detect_failures(FileGroup(), silence_seconds=silence) as detector:
        say("detecting")
        command_file = folder / f"command-{rank}"
        while True:
            name, number = take(command_file).decode().split()
            command_file.unlink()
            match name:
                case "step":
                    detector.at_step(int(number))
                case "data":
                    raise DataError("shard 7 is damaged")
                case "value":
                    raise ValueError("a defect")
                case "exit":
                    sys.exit(int(number))
                case "stop":
                    raise StopRequested("somebody asked")
                case "fail" | "hang":
                    detector.fail(int(number))
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
                    ctypes.CDLL(None).sleep(int(number))  # ctypes releases the interpreter's lock
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
