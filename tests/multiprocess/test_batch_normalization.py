"""Synchronized batch normalization on every distribution, against plain Keras; see programs/normalizing_models.py."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from launching import environment, needs_horovod, needs_mpi, run_ranks
from preloaded import preloaded_python

PROGRAM = Path(__file__).parent / "programs" / "normalizing_models.py"
MODELS = ("rows", "images", "masked", "steps_of_time", "renormalized")
SECONDS = 400

pytestmark = pytest.mark.timeout(SECONDS + 60)

SINGLE = ("", "single", "cpu:1", 1)  # this launch trains plain Keras, too
REPLICAS = [
    pytest.param(("", "mirrored", "cpu:3", 1), 3, id="mirrored 3"),
    pytest.param(("mpirun", "mpi", "cpu:1", 2), 2, id="mpi 2", marks=needs_mpi),
    pytest.param(("mpirun", "horovod", "cpu:1", 3), 3, id="horovod 3", marks=needs_horovod),
]


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """`launched(launch)`: the folder of what the ranks wrote; each launch starts once."""
    done = {}

    def of(launch):
        if launch not in done:
            launcher, strategy, devices, size = launch
            folder = tmp_path_factory.mktemp("normalizing")
            command = [*preloaded_python(), str(PROGRAM), str(folder), strategy, devices]
            if launcher:
                ended = run_ranks(launcher, size, command, timeout=SECONDS)
            else:
                ended = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
            assert ended.returncode == 0, ended.stderr[-4000:]
            done[launch] = folder
        return done[launch]

    return of


def arrays(folder, kind, model, rank=0):
    with np.load(folder / f"{kind} of {model}.{rank}.npz") as archive:
        return list(archive.values())


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("launch", "num_replicas"), [pytest.param(SINGLE, 1, id="single"), *REPLICAS])
def test_weights_and_moving_statistics_are_those_of_one_process(launch, num_replicas, model, launched):
    """After 2 epochs, whose last step is ragged and leaves one replica idle."""
    check_weights(launched(launch), launch[-1], model, arrays(launched(SINGLE), "expected", model))


@pytest.mark.parametrize(("launch", "num_replicas"), REPLICAS)
def test_a_microbatch_has_the_statistics_of_all_replicas(launch, num_replicas, launched):
    expected = arrays(launched(SINGLE), "expected", f"accumulated by {num_replicas}")
    check_weights(launched(launch), launch[-1], "accumulated", expected)


def check_weights(folder, size, model, expected):
    weights = [arrays(folder, "weights", model, rank) for rank in range(size)]
    assert len(expected) == len(weights[0]) > 4
    for number, wanted in enumerate(expected):
        for of_rank in weights:
            np.testing.assert_array_equal(of_rank[number], weights[0][number])
        tolerance = 1e-5 * max(1.0, np.abs(wanted).max())
        np.testing.assert_allclose(weights[0][number], wanted, rtol=0, atol=tolerance, err_msg=f"weight {number}")
