"""All faults of the writes of some commands, one after the other, with a table.

$ python tests/faults/campaign.py
$ python tests/faults/campaign.py --subjects synth prepare --stride 10 --kinds kill ENOSPC

After each fault the same command runs again. A trial is lost if the results differ from the undisturbed ones, or if a
saved step is gone. An orphan is a hidden file that stays. A fault goes unnoticed if the command succeeded without its
results. Trials with such findings are printed on standard error.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "harness"))

from failing_disk import FailingDisk
from fault_subjects import make_subjects, train_subject, warm_ups
from fault_trials import FAULTS, FINDINGS, Subject, run_trial, undisturbed, verdict

SHOWN_CHARACTERS = 2_000


def main() -> None:
    """Try every operation with every kind of fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--subjects", nargs="+", default=["write_a_run", "prepare", "prepare sequences", "synth"])
    parser.add_argument("--kinds", nargs="+", default=list(FAULTS), choices=list(FAULTS))
    parser.add_argument("--stride", type=int, default=1, help="try every N-th operation")
    options = parser.parse_args()
    print("| command | fault | tried | survived |", " | ".join(FINDINGS), "| seconds |")
    print("|---|---|---|---|" + "---|" * len(FINDINGS) + "---|", flush=True)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        subjects = make_subjects(folder)
        modules = ["tensorflow"] if "train" in options.subjects else []
        with FailingDisk(folder, modules=modules, warm_ups=warm_ups(subjects, folder)) as disk:
            if "train" in options.subjects:
                undisturbed(disk, subjects["prepare"], folder)
                data = (folder / "place" / "data").rename(folder / "inputs" / "data")
                subjects["train"] = train_subject(data)
            for name in options.subjects:
                for kind in options.kinds:
                    _try_all(disk, subjects[name], folder, kind, options.stride)


def _try_all(disk: FailingDisk, subject: Subject, folder: Path, kind: str, stride: int) -> None:
    started = time.monotonic()
    expected, operations = undisturbed(disk, subject, folder)
    counts: Counter[str] = Counter()
    places = range(1, operations + 2, stride)  # the last one is behind the last operation
    for at in places:
        trial = run_trial(disk, subject, folder, at=at, kind=kind)
        found = verdict(trial, expected)
        counts.update(found)
        counts["survived"] += "lost" not in found
        if found:
            hidden = f"{trial.hidden_first} {trial.hidden_again}"
            ends = f"{trial.first}\n  again {trial.again}"[:SHOWN_CHARACTERS]
            print(f"{subject.name}, {kind} at {at}: {found} {hidden}\n  first {ends}", file=sys.stderr)
    figures = [counts["survived"], *(counts[finding] for finding in FINDINGS), round(time.monotonic() - started)]
    print("|", " | ".join(map(str, (subject.name, kind, len(places), *figures))), "|", flush=True)


if __name__ == "__main__":
    main()
