"""Mutates valid files of every kind for some time, and counts what distrain makes of them.

$ python tests/faults/fuzz.py --minutes 10

Each kind of file is fuzzed in a process of its own, so that a crash of compiled code and its memory are seen. The table
counts files that were read, refused in a sentence, ended in another error, took over 10 seconds, or crashed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "harness"))

from fuzzed_files import FuzzSubject, fuzz_subjects
from fuzzed_formats import format_subjects

MAX_SECONDS = 10


def main() -> None:
    """Fuzz each kind of file for its share of the time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=[])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        names = [one.name for one in _subjects(Path(folder)) if not options.only or one.name in options.only]
    print("| file | tried | read | refused | other errors | too long | crashed | memory, MiB |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for name in names:
        _fuzz_apart(name, options.minutes * 60 / len(names), options.seed)


def _subjects(folder: Path) -> list[FuzzSubject]:
    return [*fuzz_subjects(folder), *format_subjects(folder / "formats")]


def _fuzz_apart(name: str, seconds: float, seed: int) -> None:
    counts: Counter[str] = Counter()
    growth, end = 0, time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:  # a new process after a crash
        results: multiprocessing.Queue = multiprocessing.Queue()
        process = multiprocessing.Process(target=_fuzz, args=(name, left, seed + counts["crashed"], results))
        process.start()
        process.join()
        while not results.empty():
            found, grown = results.get()
            counts.update(found)
            growth = max(growth, grown)
        counts["crashed"] += process.exitcode != 0
    kinds = ("read", "refused", "other errors", "too long", "crashed")
    print(
        f"| {name} | {counts.total():,} |",
        " | ".join(f"{counts[kind]:,}" for kind in kinds),
        f"| {growth} |",
        flush=True,
    )


def _fuzz(name: str, seconds: float, seed: int, results: multiprocessing.Queue) -> None:
    signal.signal(signal.SIGALRM, _too_long)
    with tempfile.TemporaryDirectory() as folder:
        subject = next(one for one in _subjects(Path(folder)) if one.name == name)
        subject.read()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        end, number, counts = time.monotonic() + seconds, 0, Counter[str]()
        while time.monotonic() < end:
            number += 1
            counts[_result(subject, random.Random(f"{seed} {name} {number}"), f"{seed} {name} {number}")] += 1
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    results.put((counts, grown // 1024))


def _result(subject, chance, label) -> str:
    signal.alarm(MAX_SECONDS)
    try:
        return "refused" if subject.try_mutation(chance) else "read"
    except TimeoutError:
        print(f"{label}: over {MAX_SECONDS} s", file=sys.stderr)
        return "too long"
    except Exception:
        print(f"{label}:\n{traceback.format_exc()}", file=sys.stderr)
        return "other errors"
    finally:
        signal.alarm(0)


def _too_long(number: int, frame: object) -> None:
    raise TimeoutError


if __name__ == "__main__":
    main()
