"""Every loss, metric, optimizer and schedule of Keras: trained as by plain Keras at N = 1 and 3, or refused.

The data is ragged and weighted, in float64. Of N = 3, two shares of the last step are short or empty.
"""

from __future__ import annotations

import inspect
from dataclasses import replace

import keras
import numpy as np
import pytest
from family_cases import FAMILY_CASES
from keras_families import EXACT, LOSSES, METRICS, REFUSED, REFUSED_LOSSES, REFUSED_METRICS, figure_of, name_of
from keras_optimizer_families import OPTIMIZERS, SCHEDULES
from keras_oracle import Trained, apart, relative
from oracle_runs import CRASH, read
from oracle_ways import train_ways

WAYS = ["single", "shares-3"]
WEIGHTS, FIGURES = 1e-12, 1e-6  # bounds of relative differences
IN_FLOAT32 = "CTC"  # TensorFlow computes this loss in float32, whatever the type of the model
SINGLE_WEIGHTS = 1e-5  # bound for float32
MAX_SENTENCE = 600  # characters of a refusal

pytestmark = pytest.mark.timeout(1200)  # the first test waits for all trainings
each_way = pytest.mark.parametrize("way", WAYS)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """`trained(way, name)` returns what the training of a case left."""
    folder = tmp_path_factory.mktemp("families")
    train_ways(folder, ["keras,single", "shares-3"], "float64", "families", timeout=1000)
    return lambda way, name: read(folder, way, name)[1]


def exact(rows: dict) -> list[str]:
    return [name for name, row in rows.items() if row.verdict == EXACT and name != IN_FLOAT32]


def check_figure(keras_side: Trained, distrain_side: Trained, name: str) -> None:
    """Check a figure of training and validation after each epoch."""
    assert not distrain_side.refusal, distrain_side.refusal
    for right, given in zip(keras_side.logs, distrain_side.logs, strict=True):
        for key in (name, f"val_{name}"):
            assert relative(np.array(given[key]), np.array(right[key])) <= FIGURES, (key, right[key], given[key])


@pytest.mark.parametrize(
    ("module", "rows"),
    [
        (keras.losses, LOSSES),
        (keras.metrics, METRICS),
        (keras.optimizers, OPTIMIZERS),
        (keras.optimizers.schedules, SCHEDULES),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_every_class_of_keras_has_a_row(module, rows):
    assert {name for name, value in vars(module).items() if inspect.isclass(value)} == rows.keys()


@each_way
@pytest.mark.parametrize("name", exact(LOSSES))
def test_a_loss_is_exact(name, way, trained):
    check_figure(trained("keras", "losses"), trained(way, "losses"), f"{name}_loss")


@each_way
def test_a_loss_in_float32_is_exact_up_to_its_rounding(way, trained):
    difference = apart(trained("keras", f"loss {IN_FLOAT32}"), trained(way, f"loss {IN_FLOAT32}"))
    assert difference.weights <= SINGLE_WEIGHTS
    assert difference.metrics <= FIGURES, difference.where


@each_way
@pytest.mark.parametrize("argument", ["metrics", "weighted_metrics"])
@pytest.mark.parametrize("name", exact(METRICS))
def test_a_metric_is_exact(name, argument, way, trained):
    case, figure = "metrics", figure_of(name, METRICS[name], argument)
    if name == "Metric":  # of a user's own, so the only one of its model
        case, figure = "metric Metric", name_of(name, argument)
    check_figure(trained("keras", case), trained(way, case), figure)


@each_way
@pytest.mark.parametrize("name", ["losses", "metrics", "metric Metric"])
def test_all_losses_give_the_gradients_of_keras(name, way, trained):
    difference = apart(trained("keras", name), trained(way, name))
    assert difference.weights <= WEIGHTS
    assert difference.metrics <= FIGURES, difference.where


@each_way
@pytest.mark.parametrize("name", [name for name in FAMILY_CASES if name.startswith("optimizer")])
def test_an_optimizer_is_exact(name, way, trained):
    difference = apart(trained("keras", name), trained(way, name))
    assert difference.weights <= WEIGHTS
    assert difference.metrics <= FIGURES, difference.where


@each_way
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_is_exact(name, way, trained):
    """The layer with the name of the schedule has kernel and bias, in the order of the layers."""
    sides = trained("keras", "schedules"), trained(way, "schedules")
    first = 2 * list(SCHEDULES).index(name)
    of_layer = [replace(side, weights=[epoch[first : first + 2] for epoch in side.weights]) for side in sides]
    difference = apart(*of_layer)
    assert difference.weights <= WEIGHTS
    kernels = [epoch[0] for epoch in of_layer[1].weights]
    assert not np.allclose(kernels[0], kernels[1]), "the layer is trained"


@each_way
@pytest.mark.parametrize(
    "name", [*(f"loss {name}" for name in REFUSED_LOSSES), *(f"metric {name}" for name in REFUSED_METRICS)]
)
def test_what_does_not_divide_into_shares_is_refused_in_a_sentence(name, way, trained):
    sentence = trained(way, name).refusal
    assert sentence
    assert not sentence.startswith(CRASH), sentence
    assert "\n" not in sentence
    assert len(sentence) <= MAX_SENTENCE


def test_the_rows_that_are_refused_are_those_that_the_tests_see_refused():
    assert {name for name, row in LOSSES.items() if row.verdict == REFUSED} <= REFUSED_LOSSES.keys()
