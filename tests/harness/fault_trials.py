"""Trials of a command on a failing disk: the fault at one operation, then the same command again without faults.

subject = Subject("synth", ("synth", "--out", "{place}/text", "--rows", "100"), results=tree)
expected, operations = undisturbed(disk, subject, folder)
trial = run_trial(disk, subject, folder, at=17, kind="kill")
assert verdict(trial, expected) == []
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from failing_disk import KINDS, Ended, FailingDisk
from power_cut import cut_power

POWER_CUTS = {"power cut": False, "power cut, names kept": True}
FAULTS = (*KINDS, *POWER_CUTS)
LAZYFS = "power cut, LazyFS"
LASTING = {".lock"}  # hidden files that stay
EXIT_CODES = {0, 2, 3, 4, 5, 6}  # docs/reference/exit-codes.md, without the request to stop
FINDINGS = ("lost", "orphans", "unnoticed", "tracebacks")


class Subject(NamedTuple):
    """A command whose writes are tried.

    Attributes:
        name: for a table.
        words: words of the command; "{place}" stands for a new folder, below which the command writes.
        results: returns what an undisturbed command leaves in this folder.
    """

    name: str
    words: tuple[str, ...]
    results: Callable[[Path], object]


class Trial(NamedTuple):
    """A command with a fault, and the same command again.

    Attributes:
        first: the command with a fault.
        results_first: results after the first command, and after the power cut if there was one.
        hidden_first: hidden files at that time, relative to the folder.
        again: the same command without a fault.
        results_again: results after both commands.
        hidden_again: hidden files after both commands.
    """

    first: Ended
    results_first: object
    hidden_first: list[str]
    again: Ended
    results_again: object
    hidden_again: list[str]


def undisturbed(disk: FailingDisk, subject: Subject, folder: Path) -> tuple[object, int]:
    """Return the results of a command without faults, and the number of its operations."""
    place = _new(folder)
    ended = disk.run(*_words(subject, place), below=place)
    assert ended.code == 0, ended.output
    return subject.results(place), ended.operations


def run_trial(
    disk: FailingDisk,
    subject: Subject,
    folder: Path,
    *,
    at: int,
    kind: str,
    clear_cache: Callable[[], None] = lambda: None,
) -> Trial:
    """Run a command whose operation `at` fails, then the same command without a fault.

    With a power cut, the command dies at the operation, or ends well if it has no such operation. If `kind` is
    `LAZYFS`, `folder` lies in a LazyFS, and `clear_cache` makes it forget what was not synced.
    """
    place, journal = _new(folder), folder / "journal"
    shutil.rmtree(journal, ignore_errors=True)
    words, is_cut = _words(subject, place), kind in POWER_CUTS
    dies = "kill" if is_cut or kind == LAZYFS else kind
    first = disk.run(*words, below=place, at=at, kind=dies, journal=journal if is_cut else None)
    if is_cut:
        cut_power(place, journal, keeps_names=POWER_CUTS[kind])
    clear_cache()
    results_first, hidden_first = subject.results(place), hidden_files(place)
    again = disk.run(*words, below=place)
    return Trial(first, results_first, hidden_first, again, subject.results(place), hidden_files(place))


def verdict(trial: Trial, expected: object) -> list[str]:
    """Return which of `FINDINGS` a trial shows."""
    found, has_died = [], trial.first.code == -9
    is_step_lost = _last("saved", trial.first) > _last("from", trial.again)
    is_told = "WARNING" in trial.first.output
    is_line_lost = not is_told and _last("logged", trial.first) > _last("found lines", trial.again)
    if trial.again.code != 0 or trial.results_again != expected or is_step_lost or is_line_lost:
        found.append("lost")
    if trial.hidden_again or (trial.hidden_first and trial.first.code > 0):
        found.append("orphans")
    if trial.first.code == 0 and trial.results_first != expected:
        found.append("unnoticed")
    outputs = trial.first.output + trial.again.output
    if "Traceback" in outputs or not (has_died or trial.first.code in EXIT_CODES):
        found.append("tracebacks")
    return found


def tree(place: Path) -> dict[str, bytes]:
    """Return the content of all files below a folder, but of hidden ones, by name."""
    files = (path for path in place.rglob("*") if path.is_file() and path.name not in LASTING)
    return {
        str(path.relative_to(place)): path.read_bytes() for path in files if "/." not in f"/{path.relative_to(place)}"
    }


def _last(word: str, ended: Ended) -> int:
    """Return the last number that tests/faults/write_a_run.py printed behind a word."""
    return max(map(int, re.findall(rf"^{word} (\d+)", ended.output, re.MULTILINE)), default=0)


def _words(subject: Subject, place: Path) -> list[str]:
    return [word.replace("{place}", str(place)) for word in subject.words]


def _new(folder: Path) -> Path:
    place = folder / "place"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    return place


def hidden_files(place: Path) -> list[str]:
    """Return the hidden files below a folder that should not stay, by name."""
    return [str(path.relative_to(place)) for path in place.rglob(".*") if path.name not in LASTING]
