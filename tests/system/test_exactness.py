"""The model does not depend on the number of replicas, and equals the model that plain Keras trains."""

from __future__ import annotations

import json

import numpy as np
import pytest
from commands import SMALL_MODEL

SETTINGS = {"epochs": 3, "patience": 0, "seed": 7, **SMALL_MODEL}
PRECISE_SEQUENCE = {"embedding": 64, "filters": 32, "learning_rate": 5e-3, "floatx": "float64"}


@pytest.fixture(scope="module")
def runs(many_runs, text, tmp_path_factory):
    """A folder of runs DATA-G-REPLICAS, with dropout; 331 rows divide neither by 64 nor by 63."""
    out = tmp_path_factory.mktemp("exactness")

    def settings(kind: str, size: int, replicas: int, name: str, **more: object) -> dict[str, object]:
        run = out / f"{name}-{size}-{replicas}"
        own = {"data": text[kind], "run": run, "devices": f"cpu:{replicas}", "global_batch_size": size}
        return {**SETTINGS, **own, **more}

    def both(size: int, replicas: int) -> list[dict[str, object]]:
        return [settings(kind, size, replicas, kind) for kind in ("ngram", "sequence")]

    def precise(replicas: int) -> list[dict[str, object]]:
        return [settings("sequence", 64, replicas, "float64", **PRECISE_SEQUENCE)]

    many_runs(both(64, 2) + precise(2), both(64, 1) + both(63, 1) + precise(1), both(64, 4), both(63, 3))
    return out


@pytest.mark.parametrize("kind", ["ngram", "sequence"])
@pytest.mark.parametrize(("size", "replicas"), [(64, 2), (64, 4), (63, 3)])
def test_text_models_do_not_depend_on_the_number_of_replicas(kind, size, replicas, runs, difference):
    apart = difference(runs / f"{kind}-{size}-1", runs / f"{kind}-{size}-{replicas}")
    assert apart.weights <= 1e-5
    assert apart.validation_loss <= 1e-6


def test_in_float64_no_difference_remains(runs, difference, last_weights):
    weights = last_weights(runs / "float64-64-1")
    assert {array.dtype for array in weights.values()} == {np.dtype(np.float64)}
    apart = difference(runs / "float64-64-1", runs / "float64-64-2")
    assert apart.weights <= 1e-12
    assert apart.validation_loss <= 1e-12


@pytest.mark.parametrize("kind", ["ngram", "sequence"])
def test_training_moves_the_weights_far_more_than_the_bound(kind, runs, difference):
    apart = difference(runs / f"{kind}-64-1", runs / f"{kind}-63-1")
    assert apart.weights > 1e-3


def test_plain_keras_trains_the_same_weights(program):
    apart = json.loads(program("witness").splitlines()[-1])
    assert apart.keys() == {"stock", "weighted", "sparse"}
    assert all(difference <= 1e-5 for difference in apart.values()), apart
