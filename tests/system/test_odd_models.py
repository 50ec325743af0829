"""Models at the edges of what Keras accepts train on devices and on ranks as plain Keras trains them.

`oracle_runs.py FOLDER WAY float64 odd` trains many more of them.
"""

from __future__ import annotations

import pytest
from keras_oracle import apart
from launching import needs_mpi
from oracle_runs import read
from oracle_ways import train_ways

EXACT = [
    "no reduction",
    "masking and weights per position",
    "a metric object for two outputs",
    "nested inputs and outputs",
    "class weights and one-hot labels",
    "a loss of the model's own",
    "losses of layers alone",
    "a layer that counts calls",
    "a layer with a metric",
    "a switch of a callback",
]
OF_EACH_REPLICA = ["batch normalization of each replica", "a layer with a running mean"]
WAYS = [pytest.param("mirrored-2"), pytest.param("mpi-2", marks=needs_mpi)]

pytestmark = pytest.mark.timeout(600)  # the first test waits for all trainings


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """`trained(way, name)` returns what the training of a case left; the first call of a way trains all cases."""
    folder = tmp_path_factory.mktemp("odd-models")
    programs = {"keras": "keras,mirrored-2", "mirrored-2": "keras,mirrored-2", "mpi-2": "mpi-2"}

    def of(way, name):
        if not list(folder.glob(f"{way}.*")):
            train_ways(folder, [programs[way]], "float64", f"odd={';'.join([*EXACT, *OF_EACH_REPLICA])}")
        given = read(folder, way, name)[1]
        assert not given.refusal, given.refusal
        return given

    return of


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("way", WAYS)
def test_an_odd_model_is_trained_as_keras_trains_it(name, way, trained):
    difference = apart(trained("keras", name), trained(way, name))
    assert difference.weights <= 1e-12
    assert difference.metrics <= 1e-6, difference.where


@needs_mpi
@pytest.mark.parametrize("name", OF_EACH_REPLICA)
def test_states_of_each_replica_are_averaged_on_devices_as_on_ranks(name, trained):
    """The last step of an epoch has one example, so that one replica idles."""
    difference = apart(trained("mirrored-2", name), trained("mpi-2", name))
    assert difference.weights <= 1e-12
    assert difference.metrics <= 1e-6, difference.where
