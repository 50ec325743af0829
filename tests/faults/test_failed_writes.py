"""A command whose write fails, or that dies there, gives the undisturbed results when it runs again.

The sample takes some operations of each kind of fault. `python tests/faults/campaign.py` takes all.
"""

from __future__ import annotations

import pytest
from failing_disk import FailingDisk, is_possible
from fault_subjects import make_subjects, warm_ups
from fault_trials import FAULTS, run_trial, undisturbed, verdict

SAMPLE = 12  # operations of a command and a kind of fault, from the first to the one behind the last
SUBJECTS = ("write_a_run", "prepare", "synth")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A failing disk, a folder for trials, and of each command: itself, its results, its number of operations."""
    if not is_possible():
        pytest.skip("cc is not installed")
    folder = tmp_path_factory.mktemp("faults")
    subjects = make_subjects(folder)
    with FailingDisk(folder, warm_ups=warm_ups(subjects, folder)) as disk:
        yield disk, folder, {name: (subjects[name], *undisturbed(disk, subjects[name], folder)) for name in SUBJECTS}


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize("name", SUBJECTS)
def test_the_same_command_goes_on_after_a_fault_at_any_operation(prepared, name, kind):
    disk, folder, subjects = prepared
    subject, expected, operations = subjects[name]
    assert operations > (10 if name == "synth" else 50)
    last = operations + 1
    count = min(SAMPLE, last)
    first = 1 + FAULTS.index(kind) % 3  # each kind of fault tries other operations
    for at in sorted({last, *(first + number * last // count for number in range(count))}):
        trial = run_trial(disk, subject, folder, at=at, kind=kind)
        assert verdict(trial, expected) == [], (at, trial)
        if trial.first.code > 0:
            assert "cannot be written" in trial.first.output.splitlines()[-1], (at, trial)
            assert str(folder) in trial.first.output.splitlines()[-1], (at, trial)
