"""Tries all faults of the writes of some commands, then SIGKILL of ranks and launchers, and prints a table.

$ python tests/faults/campaign.py
$ python tests/faults/campaign.py --subjects synth prepare --stride 10 --kinds kill ENOSPC --kills 0
$ python tests/faults/campaign.py --subjects prepare --lazyfs /mnt/lazy /run/faults /run/completed --kills 0

After each fault the same command runs again. A trial is lost if the results differ from the undisturbed ones, or if a
saved step is gone. An orphan is a hidden file that stays. A fault goes unnoticed if the command succeeded without its
results. Trials with such findings are printed on standard error.

`distrain train` takes seconds a trial, so the campaign tries every 25th of its operations (--train-stride). At the end
two ranks under `mpirun` train, and SIGKILL ends a rank, `mpirun` or all at a random moment.

LazyFS (https://github.com/dsrhaslab/lazyfs) is a file system that forgets what was not synced when it is told to. The
option --lazyfs names its mount, and the pipes `fifo_path` and `fifo_path_completed` of its configuration. The commands
then write there, die at each operation, and LazyFS forgets.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "harness"))

from failing_disk import FailingDisk
from fault_subjects import make_subjects, train_subject, warm_ups
from fault_trials import FAULTS, FINDINGS, LAZYFS, Subject, run_trial, undisturbed, verdict
from kill_trials import TARGETS, findings, run_killed, undisturbed_launch

SUBJECTS = ("write_a_run", "prepare", "prepare sequences", "synth", "train")
TRAIN_STRIDE = 25
SHOWN_CHARACTERS = 2_000


def main() -> None:
    """Try every operation with every kind of fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--subjects", nargs="*", default=list(SUBJECTS), choices=SUBJECTS)
    parser.add_argument("--kinds", nargs="+", default=list(FAULTS), choices=list(FAULTS))
    parser.add_argument("--lazyfs", nargs=3, type=Path, metavar=("MOUNT", "FIFO", "COMPLETED"), help="cut power there")
    parser.add_argument("--stride", type=int, default=1, help="try every N-th operation")
    parser.add_argument("--train-stride", type=int, default=TRAIN_STRIDE, help="the same for `train`")
    parser.add_argument("--kills", type=int, default=6, help="launches to kill of each target")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of kills")
    options = parser.parse_args()
    print("| command | fault | tried | survived |", " | ".join(FINDINGS), "| seconds |")
    print("|---|---|---|---|" + "---|" * len(FINDINGS) + "---|", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        subjects = make_subjects(folder)
        needs_training = options.kills or "train" in options.subjects
        modules = ["tensorflow"] if "train" in options.subjects else []
        with FailingDisk(folder, modules=modules, warm_ups=warm_ups(subjects, folder)) as disk:
            if needs_training:
                undisturbed(disk, subjects["prepare"], folder)
                data = (folder / "place" / "data").rename(folder / "inputs" / "data")
                subjects["train"] = train_subject(data)
            for name in options.subjects:
                stride = options.train_stride if name == "train" else options.stride
                if options.lazyfs:
                    mount, *pipes = options.lazyfs
                    _try_all(disk, subjects[name], mount, LAZYFS, stride, partial(_forget_unsynced, *pipes))
                    continue
                for kind in options.kinds:
                    _try_all(disk, subjects[name], folder, kind, stride)
        if options.kills:
            _kill_launches(folder, data, options.kills, random.Random(options.seed))


def _forget_unsynced(fifo: Path, completed: Path) -> None:
    """Make a LazyFS forget what was not synced, and wait until it has."""
    answers = os.open(completed, os.O_RDWR)  # open before LazyFS writes, for it does not wait for a reader
    fifo.write_text("lazyfs::clear-cache\n")
    assert os.read(answers, 100).startswith(b"finished"), completed
    os.close(answers)


def _try_all(
    disk: FailingDisk,
    subject: Subject,
    folder: Path,
    kind: str,
    stride: int,
    clear_cache: Callable[[], None] = lambda: None,
) -> None:
    started = time.monotonic()
    expected, operations = undisturbed(disk, subject, folder)
    counts: Counter[str] = Counter()
    places = range(1, operations + 2, stride)  # the last one is behind the last operation
    for at in places:
        trial = run_trial(disk, subject, folder, at=at, kind=kind, clear_cache=clear_cache)
        found = verdict(trial, expected)
        counts.update(found)
        counts["survived"] += "lost" not in found
        if found:
            hidden = f"{trial.hidden_first} {trial.hidden_again}"
            ends = f"{trial.first}\n  again {trial.again}"[:SHOWN_CHARACTERS]
            print(f"{subject.name}, {kind} at {at}: {found} {hidden}\n  first {ends}", file=sys.stderr)
    _print_row(subject.name, kind, len(places), counts, started)


def _kill_launches(folder: Path, data: Path, count: int, moments: random.Random) -> None:
    expected, seconds = undisturbed_launch(folder / "undisturbed", data)
    for target in TARGETS:
        started, counts = time.monotonic(), Counter[str]()
        for number in range(count):
            after = moments.uniform(0, seconds)
            trial = run_killed(folder / f"killed {target} {number}", data, target=target, after=after)
            found = findings(trial, expected)
            counts.update(found)
            counts["survived"] += "lost" not in found
            if found:
                print(f"SIGKILL of {target} after {after:.1f} s: {found}\n  {trial}", file=sys.stderr)
        _print_row("mpirun -n 2 train", f"SIGKILL of {target}", count, counts, started)


def _print_row(command: str, fault: str, tried: int, counts: Counter[str], started: float) -> None:
    figures = (counts["survived"], *(counts[finding] for finding in FINDINGS), round(time.monotonic() - started))
    print("|", " | ".join(map(str, (command, fault, tried, *figures))), "|", flush=True)


if __name__ == "__main__":
    main()
