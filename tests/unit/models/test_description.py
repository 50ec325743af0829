"""Two builds of one model have one description; whatever trains otherwise has another, and the difference is named."""

from __future__ import annotations

import keras
import pytest

from distrain.models.description import describe, difference


def functional(units=4, *, activation="relu", outputs=("a_1", "b_1")):
    inputs = [keras.Input((3,)), keras.Input((2,), name="given")]
    shared = keras.layers.Dense(units, activation=activation)
    left = shared(keras.layers.Dense(3)(inputs[0]))
    right = keras.layers.Dense(4)(inputs[1])
    joined = keras.layers.Add()([left, right]) if units == 4 else keras.layers.Concatenate()([left, right])
    joined = keras.layers.Lambda(lambda x: x * 2)(joined)
    return keras.Model(inputs, {name: keras.layers.Dense(1, name=name)(joined) for name in outputs})


def compiled(model=None, **more):
    model = model or functional()
    losses = dict.fromkeys(model.output_names, "mse") if isinstance(model.output, dict) else "mse"
    settings = {"optimizer": keras.optimizers.SGD(0.1), "loss": losses, "metrics": None, **more}
    model.compile(**settings)
    return model


class Own(keras.Model):
    """A model whose config says nothing."""

    def __init__(self, units=3):
        super().__init__()
        self.first = keras.layers.Dense(units)
        self.last = keras.Sequential([keras.layers.Dense(1)])

    def call(self, inputs):
        return self.last(self.first(inputs))

    @property
    def output(self):
        return None


def test_two_builds_of_one_model_do_not_differ():
    """Keras numbers the layers of the second build on."""
    one, two = (
        describe(compiled(metrics={"a_1": [keras.metrics.MeanSquaredError(), keras.metrics.MeanSquaredError()]}))
        for _ in range(2)
    )
    assert difference(one, two) is None
    assert one == two
    schedules = [keras.optimizers.schedules.CosineDecay(0.1, 50) for _ in range(2)]
    one, two = (describe(compiled(optimizer=keras.optimizers.AdamW(each))) for each in schedules)
    assert one == two
    assert describe(compiled(Own())) == describe(compiled(Own()))


@pytest.fixture(scope="module")
def plain():
    return describe(compiled())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"optimizer": keras.optimizers.SGD(0.01)}, "optimizer.learning_rate = 0.1, not 0.01"),
        ({"optimizer": keras.optimizers.SGD(0.1, momentum=0.5)}, "optimizer.momentum = 0, not 0.5"),
        ({"optimizer": "adam"}, 'optimizer.class = "SGD", not "Adam"'),
        ({"loss": "mae"}, "compile.loss"),
        ({"loss": keras.losses.MeanSquaredError(reduction="sum")}, "compile.loss"),
        ({"metrics": ["mae"]}, "compile.metrics = "),
        ({"loss_weights": {"a_1": 2.0, "b_1": 1.0}}, "compile.loss_weights = null, not "),
        ({"model": functional(activation="tanh")}, 'activation = "relu", not "tanh"'),
        ({"model": functional(5)}, "units = 4, not 5"),
        ({"model": functional(outputs=("a_1", "c_1"))}, ".name = "),
    ],
)
def test_a_difference_is_named(plain, change, words):
    found = difference(plain, describe(compiled(**change)))
    assert words in found
    assert len(found) < 300


def test_how_fast_a_model_trains_is_no_difference():
    assert describe(compiled(jit_compile=False)) == describe(compiled(jit_compile=True))


def test_models_without_a_config_differ_by_their_layers():
    found = difference(describe(compiled(Own())), describe(compiled(Own(units=5))))
    assert found == "model.layers[0].config.units = 3, not 5"


def test_a_lambda_in_compile_has_no_address():
    one, two = (describe(compiled(Own(), loss=lambda y, p: (y - p) ** 2)) for _ in range(2))
    assert one == two


def test_code_of_a_user_counts_but_not_where_it_stands():
    sources = {
        "one": "def call(self, x):\n    return self.d(x * 2)",
        "moved": "\n\ndef call(self, x):\n    # twice\n    return self.d(x * 2)",
        "other": "def call(self, x):\n    return self.d(x * 3)",
    }
    described = {name: own(tower(source)) for name, source in sources.items()}
    assert difference(described["one"], described["moved"]) is None
    assert difference(described["one"], described["other"]) == "other code in call"
    later = {**described["other"], "python": "3.99"}
    assert difference(described["one"], later) is None, "bytecode of two versions does not compare"
    assert difference({name: described["one"][name] for name in ("model", "optimizer", "compile")}, later) is None


def own(model, **more):
    model.compile(**{"optimizer": "sgd", "loss": "mse", **more})
    return describe(model)


def tower(source):
    methods = {}
    exec(source, {}, methods)

    class Tower(keras.Model):
        def __init__(self):
            super().__init__()
            self.d = keras.layers.Dense(1)

        call = methods["call"]

    model = Tower()
    model(keras.ops.ones((2, 3)))
    return model


def scaled(factor):
    def own_loss(y_true, y_pred):
        return factor * (y_true - y_pred) ** 2

    return own_loss


@pytest.mark.parametrize("place", ["loss", "metrics"])
def test_captured_values_and_lambdas_count(place):
    def described(function):
        value = [function] if place == "metrics" else function
        return own(keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)]), **{place: value})

    assert difference(described(scaled(1.0)), described(scaled(1.0))) is None
    assert difference(described(scaled(1.0)), described(scaled(2.0))) == "other code in scaled.<locals>.own_loss"
    assert difference(described(lambda y, p: y - p), described(lambda y, p: p - y)).startswith("other code in ")


def test_the_code_of_a_lambda_layer_counts():
    def model(function):
        return own(keras.Sequential([keras.Input((3,)), keras.layers.Lambda(function), keras.layers.Dense(1)]))

    assert difference(model(lambda x: x * 2), model(lambda x: x * 2)) is None
    assert difference(model(lambda x: x * 2), model(lambda x: x * 3)).startswith("other code in ")
