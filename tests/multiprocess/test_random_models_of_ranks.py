"""A few random models train on ranks as plain Keras trains them on joined batches; one launch per way.

`benchmarks/keras_exactness.py` compares any number of these models.
"""

from __future__ import annotations

import pytest
from keras_oracle import apart
from launching import needs_horovod, needs_mpi
from oracle_runs import read
from oracle_ways import train_ways

SEEDS = range(9, 12)  # two outputs, ignored classes, averaged weights, decay without biases, a sum as reduction
WAYS = [
    pytest.param("mpi-2", marks=needs_mpi),
    pytest.param("mpi-3", marks=needs_mpi),
    pytest.param("horovod-2", marks=needs_horovod),
]

pytestmark = pytest.mark.timeout(600)  # for a machine with other work; a launch takes less than a minute


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """`trained(way)` returns the folder with the trainings of the models this way; the first call launches them."""
    folder = tmp_path_factory.mktemp("random-models-of-ranks")

    def train(way):
        if not list(folder.glob(f"{way}.*")):
            train_ways(folder, [way], "float64", f"{SEEDS.start}:{SEEDS.stop}")
        return folder

    train("keras")
    return train


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("way", WAYS)
def test_ranks_train_a_random_model_as_keras_trains_it(seed, way, trained):
    folder = trained(way)
    words, right = read(folder, "keras", str(seed))
    _, given = read(folder, way, str(seed))
    assert not right.refusal, f"{words}: {right.refusal}"
    difference = apart(right, given)
    assert difference.weights <= 1e-12, words
    assert difference.metrics <= 1e-6, f"{words}: {difference.where}"
