"""A bounded sample of random models trains as plain Keras trains them on joined batches.

`benchmarks/keras_exactness.py` compares any number of these models, also under MPI and Horovod.
"""

from __future__ import annotations

import pytest
from keras_oracle import apart
from oracle_runs import CRASH, read
from oracle_ways import train_ways

SEEDS = range(5, 10)
WAYS = ["single", "shares-3", "mirrored-2"]

pytestmark = pytest.mark.timeout(600)  # the first test waits for all trainings


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the trainings of all sampled models, each way."""
    folder = tmp_path_factory.mktemp("random-models")
    programs = ["keras,single", "shares-3,mirrored-2"]  # each program costs seconds of imports
    train_ways(folder, programs, "float64", f"{SEEDS.start}:{SEEDS.stop}")
    return folder


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_model_is_trained_as_keras_trains_it(seed, way, folder):
    words, right = read(folder, "keras", str(seed))
    _, given = read(folder, way, str(seed))
    assert not right.refusal, f"{words}: {right.refusal}"
    assert not given.refusal.startswith(CRASH), f"{words}: {given.refusal}"
    difference = apart(right, given)
    assert difference.weights <= 1e-12, words
    assert difference.metrics <= 1e-6, f"{words}: {difference.where}"
