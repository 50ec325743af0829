"""Ranks and launchers that SIGKILL ends at any moment: the same command ends with the undisturbed weights.

The sample kills two launches. `python tests/faults/campaign.py` kills more.
"""

from __future__ import annotations

import random

import pytest
from kill_trials import findings, run_killed, undisturbed_launch
from launching import needs_mpi
from prepared_data import Result, rows, write_csv

MOMENTS = random.Random(17)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Prepared data, and the weights and seconds of a launch that nobody kills."""
    folder = tmp_path_factory.mktemp("launches")
    Result(train=str(write_csv(folder / "train.csv", rows(60))), out=folder / "data", workers=1)
    return folder / "data", *undisturbed_launch(folder / "undisturbed", folder / "data")


@needs_mpi
@pytest.mark.parametrize("target", ["rank 1", "mpirun"])
def test_the_same_command_goes_on_after_sigkill_at_any_moment(undisturbed, tmp_path, target):
    data, expected, seconds = undisturbed
    after = MOMENTS.uniform(0.2, 0.8) * seconds  # since the target runs, which is a while after the start
    trial = run_killed(tmp_path / "run", data, target=target, after=after)
    assert findings(trial, expected) == [], trial
