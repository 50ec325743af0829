"""Models at the edges of what `compile` and `fit` accept, each as plain Keras trains it.

Decides: the models. Never: how they are trained; `oracle_runs.py` has the ways.

    ODD_CASES["a dict of outputs, one without a loss"]()               # a `Case`
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras_oracle import Case
from odd_layers import Added, Counter, Nest, Opaque, OwnLoss, RunningMean, Switch, Watching, vector

ROWS, WIDTH, POSITIONS, CLASSES = 25, 4, 5, 3
LAYERS, LOSSES, METRICS, OPS = keras.layers, keras.losses, keras.metrics, keras.ops
Build = Callable[[], Any]


def _rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def _floats(*shape: int, seed: int = 1) -> np.ndarray:
    return _rng(seed).normal(size=(ROWS, *shape)).astype(keras.config.floatx())


def _ints(high: int, *shape: int, seed: int = 2) -> np.ndarray:
    return _rng(seed).integers(0, high, (ROWS, *shape))


def _weights(*shape: int, seed: int = 3) -> np.ndarray:
    return _rng(seed).choice([0, 0.5, 1, 3], (ROWS, *shape)).astype(keras.config.floatx())


def _one_hot(seed: int = 2) -> np.ndarray:
    return np.eye(CLASSES, dtype=keras.config.floatx())[_ints(CLASSES, seed=seed)]


def _dense(width: int, activation: str | None = None, **more: Any) -> Any:
    return LAYERS.Dense(width, activation, **more)


def _sequential(*layers: Callable[[], Any], shape: tuple[int, ...] = (WIDTH,), dtype: str | None = None) -> Build:
    return lambda: keras.Sequential([keras.Input(shape, dtype=dtype), *(layer() for layer in layers)])


def _two_heads(kind: type = dict, second: int = 1) -> Build:
    def build() -> Any:
        inputs = keras.Input((WIDTH,))
        hidden = _dense(6, "tanh")(inputs)
        heads = {"a": _dense(1, name="a")(hidden), "b": _dense(second, name="b")(hidden)}
        return keras.Model(inputs, heads if kind is dict else kind(heads.values()))

    return build


def _case(build: Build, arguments: Callable[[], dict[str, Any]], train: tuple[Any, ...], **more: Any) -> Case:
    def seeded() -> Any:
        keras.utils.set_random_seed(4)
        return build()

    def compiled() -> dict[str, Any]:
        return {"optimizer": keras.optimizers.Adam(0.05), **arguments()}

    return Case("", seeded, compiled, train, epochs=2, **{"validation": train, **more})


def _simple(
    arguments: Callable[[], dict[str, Any]], *layers: Callable[[], Any], labels: Any = None, **more: Any
) -> Case:
    stack = layers or (lambda: _dense(6, "tanh"), lambda: _dense(1))
    train = (_floats(WIDTH), _floats(1, seed=2) if labels is None else labels)
    return _case(_sequential(*stack), arguments, train, **more)


def _masked_sequence(*layers: Callable[[], Any]) -> Build:
    return _sequential(lambda: LAYERS.Masking(0.0), *layers, shape=(POSITIONS, WIDTH))


def _padded() -> np.ndarray:
    values = _floats(POSITIONS, WIDTH)
    return np.where(np.arange(POSITIONS)[:, None] < _ints(POSITIONS, seed=9)[:, None, None] + 1, values, 0).astype(
        values.dtype
    )


def _shared_layer() -> Any:
    first, second = keras.Input((WIDTH,), name="first"), keras.Input((WIDTH,), name="second")
    shared = _dense(4, "tanh")
    return keras.Model(
        {"second": second, "first": first}, _dense(1)(LAYERS.Subtract()([shared(first), shared(second)]))
    )


def _nested_inputs() -> Any:
    inputs = {
        "z": keras.Input((2,), name="z"),
        "a": {"q": keras.Input((3,), name="q"), "b": keras.Input((1,), name="b")},
    }
    joined = LAYERS.Concatenate()([inputs["a"]["b"], inputs["z"], inputs["a"]["q"]])
    return keras.Model(inputs, {"out": {"y": _dense(1, name="y")(joined), "x": _dense(2, name="x")(joined)}})


def _per_variable() -> Any:
    return keras.Sequential(
        [
            keras.Input((WIDTH,)),
            _dense(5, kernel_constraint="max_norm", kernel_initializer="ones"),
            _dense(1, kernel_constraint=keras.constraints.NonNeg()),
        ]
    )


def _pair(*labels: Any) -> dict[str, Any]:
    return dict(zip("ab", labels, strict=False))


def _mean_square() -> dict[str, Any]:
    return {"loss": "mse", "metrics": ["mae"]}


ODD_CASES: dict[str, Callable[[], Case]] = {
    "a dict of outputs, one without a loss": lambda: _case(
        _two_heads(),
        lambda: {"loss": {"a": "mse", "b": None}, "metrics": {"b": ["mae"]}},
        (_floats(WIDTH), _pair(_floats(1, seed=2), _floats(1, seed=3))),
    ),
    "a list of loss weights": lambda: _case(
        _two_heads(list),
        lambda: {"loss": ["mse", "mae"], "loss_weights": [0.3, 2], "metrics": [["mae"], ["mse"]]},
        (_floats(WIDTH), (_floats(1, seed=2), _floats(1, seed=3))),
    ),
    "weights per position and per output": lambda: _case(
        _two_heads(),
        lambda: {"loss": "mse"},
        (_floats(WIDTH), _pair(_floats(1, seed=2), _floats(1, seed=3)), _pair(_weights(1), _weights(1, seed=5))),
    ),
    "masking and weights per position": lambda: _case(
        _masked_sequence(lambda: LAYERS.GRU(4, return_sequences=True), lambda: _dense(CLASSES, "softmax")),
        lambda: {"loss": "sparse_categorical_crossentropy", "metrics": ["accuracy"]},
        (_padded(), _ints(CLASSES, POSITIONS), _weights(POSITIONS)),
    ),
    "no reduction": lambda: _simple(lambda: {"loss": LOSSES.MeanSquaredError(reduction="none"), "metrics": ["mae"]}),
    "a metric's name in two outputs": lambda: _case(
        _two_heads(),
        lambda: {
            "loss": "mse",
            "metrics": {"a": [METRICS.MeanAbsoluteError(name="m")], "b": [METRICS.MeanSquaredError(name="m")]},
        },
        (_floats(WIDTH), _pair(_floats(1, seed=2), _floats(1, seed=3))),
    ),
    "a metric as weighted and unweighted": lambda: _simple(
        lambda: {"loss": "mse", "metrics": ["mae"], "weighted_metrics": ["mae"]}
    ),
    "a metric object for two outputs": lambda: _case(
        _two_heads(),
        lambda: (lambda m: {"loss": "mse", "metrics": {"a": [m], "b": [m]}})(METRICS.MeanAbsoluteError()),
        (_floats(WIDTH), _pair(_floats(1, seed=2), _floats(1, seed=3))),
    ),
    "a metric function that returns a vector": lambda: _simple(
        lambda: {"loss": "mse", "metrics": [vector], "weighted_metrics": [vector]},
        lambda: _dense(2),
        labels=_floats(2, seed=2),
    ),
    "uint8 features": lambda: _case(
        _sequential(lambda: LAYERS.Rescaling(1 / 255), lambda: LAYERS.Flatten(), lambda: _dense(1), shape=(4, 4, 1)),
        _mean_square,
        (_ints(256, 4, 4, 1).astype(np.uint8), _floats(1, seed=2)),
    ),
    "float64 labels and float16 features": lambda: _case(
        _sequential(lambda: _dense(1)),
        _mean_square,
        (_floats(WIDTH).astype(np.float16), _floats(1, seed=2).astype(np.float64)),
    ),
    "boolean features and int8 labels": lambda: _case(
        _sequential(lambda: _dense(CLASSES, "softmax")),
        lambda: {"loss": "sparse_categorical_crossentropy"},
        (_ints(2, WIDTH).astype(bool), _ints(CLASSES, seed=4).astype(np.int8)),
    ),
    "nested inputs and outputs": lambda: _case(
        _nested_inputs,
        lambda: {"loss": {"out": {"x": "mse", "y": "mae"}}, "metrics": {"out": {"x": ["mae"], "y": ["mse"]}}},
        (
            {"a": {"b": _floats(1), "q": _floats(3, seed=6)}, "z": _floats(2, seed=7)},
            {"out": {"x": _floats(2, seed=2), "y": _floats(1, seed=3)}},
        ),
    ),
    "class weights and one-hot labels": lambda: _simple(
        lambda: {"loss": "categorical_crossentropy", "metrics": ["accuracy"], "weighted_metrics": ["accuracy"]},
        lambda: _dense(CLASSES, "softmax"),
        labels=_one_hot(),
        fit={"class_weight": {0: 1.0, 1: 2.0, 2: 0.5}},
    ),
    "constraints": lambda: _case(_per_variable, _mean_square, (_floats(WIDTH), _floats(1, seed=2))),
    "a layer of two inputs in another order": lambda: _case(
        _shared_layer, _mean_square, ({"first": _floats(WIDTH), "second": _floats(WIDTH, seed=5)}, _floats(1, seed=2))
    ),
    "an opaque model": lambda: _case(lambda: Opaque(OPS.tanh), _mean_square, (_floats(WIDTH), _floats(1, seed=2))),
    "a loss of the model's own": lambda: _case(
        OwnLoss, lambda: {"loss": "mse", "metrics": ["mae"]}, (_floats(WIDTH), _floats(1, seed=2))
    ),
    "losses of layers alone": lambda: _case(
        _sequential(lambda: _dense(3), Added),
        lambda: {"loss": None, "metrics": ["mae"]},
        (_floats(WIDTH), _floats(3, seed=2)),
    ),
    "a loss of a layer in a layer": lambda: _case(
        _sequential(lambda: Nest(Nest(Added())), lambda: _dense(1, activity_regularizer="l2", kernel_regularizer="l1")),
        _mean_square,
        (_floats(WIDTH), _floats(1, seed=2)),
    ),
    "a layer that counts calls": lambda: _simple(_mean_square, Counter, lambda: _dense(1)),
    "batch normalization of each replica": lambda: _simple(_mean_square, LAYERS.BatchNormalization, lambda: _dense(1)),
    "a layer with a running mean": lambda: _simple(_mean_square, RunningMean, lambda: _dense(1)),
    "a layer with a metric": lambda: _simple(_mean_square, Watching, lambda: _dense(1)),
    "a model in a model": lambda: _case(
        lambda: keras.Sequential(
            [keras.Input((WIDTH,)), _sequential(lambda: _dense(3, kernel_regularizer="l2"))(), Nest(_dense(1))]
        ),
        _mean_square,
        (_floats(WIDTH), _floats(1, seed=2)),
    ),
    "all weights of a step zero": lambda: _case(
        _sequential(lambda: _dense(1)),
        lambda: {"loss": LOSSES.MeanSquaredError(reduction="mean_with_sample_weight"), "weighted_metrics": ["mae"]},
        (_floats(WIDTH), _floats(1, seed=2), np.zeros(ROWS, keras.config.floatx())),
    ),
    "a switch of a callback": lambda: _simple(
        _mean_square, lambda: _dense(3), lambda: _dense(1), callbacks=lambda: [Switch()]
    ),
    "spectral normalization": lambda: _simple(
        _mean_square, lambda: LAYERS.SpectralNormalization(_dense(3)), lambda: _dense(1)
    ),
    "features one by one": lambda: _case(
        _sequential(lambda: LAYERS.Reshape((1,)), lambda: _dense(1), shape=()),
        _mean_square,
        (_floats(), _floats(1, seed=2)),
    ),
}
