"""Models with `BatchNormalization(synchronized=True)` by `distrain.fit`, each beside plain Keras on the joint batches.

    mpirun -n 2 python normalizing_models.py OUT STRATEGY DEVICES        # OUT/weights of MODEL.RANK.npz

The models train side by side, as parts of one model. They share no weight, and its loss is the sum of their losses.
The strategy "single" also trains the layer without synchronization in plain Keras. The model "accumulated" is `rows`
alone in two microbatches, each with the statistics of all replicas. Its steps run in a loop of the graph. One process
also writes the weights to expect with 2 and 3 replicas.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import distrain
from distrain.cluster.world import find_world
from distrain.data.shuffle import epoch_order

EPOCHS, SEED, GLOBAL_BATCH = 2, 3, 12
NUM_EXAMPLES = 53  # 4 steps of 12, and a step of 5 examples, which leaves one replica of two or three idle
WORDS, MICROBATCHES = 6, 2
LAYERS = keras.layers


def _initial(seed: int) -> keras.Initializer:
    return keras.initializers.GlorotUniform(seed=seed)


def _dense(units: int, seed: int, activation: str | None = None) -> keras.Layer:
    return LAYERS.Dense(units, activation, kernel_initializer=_initial(seed))


def _normalization(synchronized: bool, **settings: Any) -> keras.Layer:
    return LAYERS.BatchNormalization(momentum=0.8, synchronized=synchronized, **settings)


def rows(synchronized: bool) -> keras.Model:
    """Two branches on rows whose mean is 100 times their deviation."""
    inputs = keras.Input((4,))
    branches = [
        _dense(5, 2, "tanh")(_normalization(synchronized)(inputs)),
        _normalization(synchronized, scale=False)(_dense(5, 3, "tanh")(_normalization(synchronized)(inputs))),
    ]
    return keras.Model(inputs, _dense(3, 4, "softmax")(LAYERS.Concatenate()(branches)))


def images(synchronized: bool) -> keras.Model:
    """Channels last in a model inside the model, then channels first."""
    convolution = LAYERS.Conv2D(4, 3, padding="same", kernel_initializer=_initial(5))
    inner = keras.Sequential([keras.Input((5, 5, 2)), convolution, _normalization(synchronized), LAYERS.ReLU()])
    outer = [LAYERS.Permute((3, 1, 2)), _normalization(synchronized, axis=1), LAYERS.Flatten(), _dense(3, 6, "softmax")]
    return keras.Sequential([keras.Input((5, 5, 2)), inner, *outer])


def masked(synchronized: bool) -> keras.Model:
    """Padding counts in no statistic."""
    embedding = LAYERS.Embedding(20, 4, mask_zero=True, embeddings_initializer=_initial(7))
    layers = [embedding, _normalization(synchronized), LAYERS.GlobalAveragePooling1D(), _dense(3, 8, "softmax")]
    return keras.Sequential([keras.Input((WORDS,), dtype="int32"), *layers])


def steps_of_time(synchronized: bool) -> keras.Model:
    """A wrapper calls the layer once for each step of time."""
    layers = [LAYERS.TimeDistributed(_normalization(synchronized)), LAYERS.Flatten(), _dense(3, 9, "softmax")]
    return keras.Sequential([keras.Input((3, 4)), *layers])


def renormalized(synchronized: bool) -> keras.Model:
    """Batch renormalization corrects by moving statistics."""
    clipping = {"rmax": 1.5, "rmin": 0.5, "dmax": 0.7}
    layers = [_normalization(synchronized, renorm=True, renorm_clipping=clipping), _dense(3, 10, "softmax")]
    return keras.Sequential([keras.Input((4,)), *layers])


def features(name: str) -> np.ndarray:
    """Return the examples of a model."""
    rng = np.random.default_rng(11)
    if name == "masked":
        lengths = rng.integers(1, WORDS + 1, (NUM_EXAMPLES, 1))
        return (rng.integers(1, 20, (NUM_EXAMPLES, WORDS)) * (np.arange(WORDS) < lengths)).astype(np.int32)
    shape = {"images": (5, 5, 2), "steps_of_time": (3, 4)}.get(name, (4,))
    drawn = rng.normal(size=(NUM_EXAMPLES, *shape)) * [1, 2][: shape[-1]] if name == "images" else 0
    if name != "images":
        drawn = rng.normal(size=(NUM_EXAMPLES, *shape)) * [1, 2, 3, 4] + [100, 5, -5, 1]
    return np.asarray(drawn, np.float32)


def labels() -> np.ndarray:
    """Return the class of each example."""
    return np.random.default_rng(12).integers(0, 3, NUM_EXAMPLES)


def compiled(model: keras.Model) -> keras.Model:
    """Compile and return the model."""
    loss = "sparse_categorical_crossentropy"
    losses = dict.fromkeys(model.output, loss) if isinstance(model.output, dict) else loss
    model.compile(keras.optimizers.SGD(0.02, momentum=0.9), losses, jit_compile=False)
    return model


def side_by_side(synchronized: bool) -> keras.Model:
    """Return a model with an input, an output and a part for each of MODELS."""
    inputs = {name: keras.Input(x.shape[1:], dtype=x.dtype.name, name=f"{name} in") for name, x in X.items()}
    parts = {name: build(synchronized) for name, build in MODELS.items()}
    for name, part in parts.items():
        part.name = name
    return keras.Model(inputs, {name: part(inputs[name]) for name, part in parts.items()})


def weights_of(model: keras.Model) -> dict[str, list[np.ndarray]]:
    """Return a copy of the weights of each part."""
    return {name: [np.array(weight) for weight in model.get_layer(name).get_weights()] for name in MODELS}


def plain_keras() -> dict[str, list[np.ndarray]]:
    """Return the weights after training without distrain; distrain defines the order of the examples."""
    model = compiled(side_by_side(False))
    for epoch in range(EPOCHS):
        order = epoch_order(NUM_EXAMPLES, seed=SEED, epoch=epoch).examples(range(NUM_EXAMPLES))
        y = dict.fromkeys(MODELS, labels()[order])
        model.fit({name: x[order] for name, x in X.items()}, y, batch_size=GLOBAL_BATCH, shuffle=False, verbose=0)
    return weights_of(model)


def accumulated_by_keras(num_replicas: int, x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """Return the weights of `rows`, if microbatch k of a step joins the microbatches k of all replicas."""
    model = compiled(rows(False))
    size = GLOBAL_BATCH // (num_replicas * MICROBATCHES)
    for epoch in range(EPOCHS):
        order = epoch_order(NUM_EXAMPLES, seed=SEED, epoch=epoch)
        for start in range(0, NUM_EXAMPLES, GLOBAL_BATCH):
            chosen = order.examples(range(start, min(start + GLOBAL_BATCH, NUM_EXAMPLES)))
            parts = [chosen[first : first + size] for first in range(0, GLOBAL_BATCH, size)]
            joined = [np.concatenate(parts[number::MICROBATCHES]) for number in range(MICROBATCHES)]
            gradients = [0.0] * len(model.trainable_variables)
            for part in joined:
                if len(part):
                    with tf.GradientTape() as tape:
                        loss = model.compute_loss(x[part], y[part], model(x[part], training=True))
                    own = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
                    gradients = [g + o * (len(part) / len(chosen)) for g, o in zip(gradients, own, strict=True)]
            model.optimizer.apply(gradients, model.trainable_variables)
    return [np.array(weight) for weight in model.get_weights()]


class _LastWeights(keras.callbacks.Callback):
    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        is_alone = isinstance(self.model.output, keras.KerasTensor)
        self.parts = {"accumulated": self.model.get_weights()} if is_alone else weights_of(self.model)


MODELS = {model.__name__: model for model in (rows, images, masked, steps_of_time, renormalized)}
X = {name: features(name) for name in MODELS}


def trained(build: Callable[[bool], keras.Model], x: Any, y: Any, **settings: Any) -> dict[str, list[np.ndarray]]:
    """Return the last weights of each part of a model that `distrain.fit` trains."""
    last = _LastWeights()
    distrain.fit(
        lambda: compiled(build(True)),
        (x, y),
        callbacks=[last],
        seed=SEED,
        epochs=EPOCHS,
        global_batch_size=GLOBAL_BATCH,
        jit_compile=False,  # XLA would compile the update alone, which no synchronized layer changes
        **settings,
    )
    return last.parts


def main(out: Path, strategy: str, devices: str) -> None:
    """Train all models in both ways, and write the weights."""
    rank = find_world(os.environ).rank
    settings = {"strategy": strategy, "devices": devices, "run": None if rank == 0 else out / "not the chief's"}
    weights = trained(side_by_side, X, dict.fromkeys(MODELS, labels()), **settings)
    settings |= {"accumulation_steps": MICROBATCHES, "steps_per_execution": 2}
    weights |= trained(rows, X["rows"], labels(), **settings)
    expected = {}
    if strategy == "single":
        expected = plain_keras()
        for size in (2, 3):
            expected[f"accumulated by {size}"] = accumulated_by_keras(size, X["rows"], labels())
    for kind, found in (("weights", weights), ("expected", expected)):
        for name, arrays in found.items():
            np.savez(out / f"{kind} of {name}.{rank}.npz", *arrays)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
