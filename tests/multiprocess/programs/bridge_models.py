"""Models with masks, several outputs or a step of their own on the bridge, beside plain Keras on the joint batches.

    mpirun -n 2 python bridge_models.py OUT trained            # OUT/CASE.RANK.npz and .json
    python bridge_models.py OUT expected                       # OUT/CASE.expected.npz and .json, by plain Keras

Each rank starts from weights of its own. One, two and three ranks have the same joint batch, so that a reference
serves them all. With masks it depends on the number of ranks: OUT/masked.expected.SIZE.npz.
Two ranks also note refusals.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
from refusal import refusal

import distrain.horovod as hvd

WORLD = hvd.init()

import keras  # noqa: E402 - after the devices are settled
import tensorflow as tf  # noqa: E402

OUT, PART = Path(sys.argv[1]), sys.argv[2]
EPOCHS, JOINT_BATCH, NUM_EXAMPLES, WORDS = 2, 24, 149, 6  # the last step leaves a rank of two or three without examples
BATCH = JOINT_BATCH // WORLD.size
RNG = np.random.default_rng(2)
X = RNG.normal(size=(NUM_EXAMPLES, 4)).astype(np.float32)
SIDE = RNG.normal(size=(NUM_EXAMPLES, 2)).astype(np.float32)
NUMBERS, CLASSES = X.sum(axis=1, keepdims=True), RNG.integers(0, 3, NUM_EXAMPLES)
WEIGHTS = RNG.uniform(0, 2, NUM_EXAMPLES).astype(np.float32)
IDS = RNG.integers(1, 20, (NUM_EXAMPLES, WORDS)) * (np.arange(WORDS) < RNG.integers(1, WORDS + 1, (NUM_EXAMPLES, 1)))


def initial(seed):
    return keras.initializers.GlorotUniform(seed=seed)


def dense(units, seed, activation=None, **settings):
    return keras.layers.Dense(units, activation, kernel_initializer=initial(seed), **settings)


def bridged(model, batches, validation=None, **more):
    callbacks = [hvd.BroadcastCallback(), hvd.MetricAverageCallback(batches)]
    fitted = model.fit(
        batches, epochs=EPOCHS, shuffle=False, verbose=0, callbacks=callbacks, validation_data=validation, **more
    )
    return model, fitted.history


def plain(model, x, y, **more):
    fitted = model.fit(x, y, batch_size=JOINT_BATCH, epochs=EPOCHS, shuffle=False, verbose=0, **more)
    return model, fitted.history


def write(name, model, history):
    np.savez(OUT / f"{name}.npz", **{f"weights{number}": weight.numpy() for number, weight in enumerate(model.weights)})
    (OUT / f"{name}.json").write_text(json.dumps(history, default=float))


def save(case, train, reference):
    """Write what `train()` returns, or what it must equal, which `reference()` returns: a model and its history."""
    if PART == "expected":
        write(f"{case}.expected", *reference())
    else:
        write(f"{case}.{WORLD.rank}", *train())


def two_outputs(seed, optimizer, **settings):
    inputs = [keras.Input((4,), name="x"), keras.Input((2,), name="side")]
    hidden = dense(5, seed, "tanh", activity_regularizer=keras.regularizers.L2(1e-2))(
        keras.layers.Concatenate()(inputs)
    )
    outputs = {"number": dense(1, seed + 1, name="number")(hidden)}
    outputs["kind"] = dense(3, seed + 2, "softmax", name="kind")(hidden)
    model = keras.Model(inputs, outputs)
    model.compile(
        optimizer,
        loss={"number": "mse", "kind": "sparse_categorical_crossentropy"},
        loss_weights={"number": 0.3, "kind": 1.5},
        metrics={"kind": ["accuracy"]},
        weighted_metrics={"number": ["mae"]},
        **settings,
    )
    return model


def case_outputs():
    y = {"number": NUMBERS, "kind": CLASSES}
    weights = {"number": WEIGHTS, "kind": np.flip(WEIGHTS)}
    batches = hvd.RankBatches([X, SIDE], y, BATCH, weights=weights)
    held_out = hvd.RankBatches([X, SIDE], y, 5, weights=weights, training=False)

    def train():
        model = two_outputs(10 * WORLD.rank, hvd.DistributedOptimizer(keras.optimizers.Adam(0.01)))
        return bridged(model, batches, held_out)

    def reference():
        model = two_outputs(0, keras.optimizers.Adam(0.01))
        return plain(model, [X, SIDE], y, sample_weight=weights, validation_data=([X, SIDE], y, weights))

    save("outputs", train, reference)


def classifier(seed, optimizer, **settings):
    model = keras.Sequential([keras.Input((4,)), dense(5, seed, "tanh"), dense(3, seed + 1, "softmax")])
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], **settings)
    return model


def case_class_weight():
    weight = {0: 0.5, 1: 2.0, 2: 1.25}
    build = partial(classifier, weighted_metrics=["accuracy"])

    def train():
        model = build(10 * WORLD.rank, hvd.DistributedOptimizer("adam"))
        return bridged(model, hvd.RankBatches(X, CLASSES, BATCH), class_weight=weight)

    save("class_weight", train, lambda: plain(build(0, "adam"), X, CLASSES, class_weight=weight))


def case_steps_per_execution():
    """7 steps. The last, of 21 examples, leaves no rank without examples, so the figures are exact as well."""
    x, y = np.concatenate([X, X[:16]]), np.concatenate([CLASSES, CLASSES[:16]])

    def train():
        model = classifier(10 * WORLD.rank, hvd.DistributedOptimizer("adam"), steps_per_execution=3)
        return bridged(model, hvd.RankBatches(x, y, BATCH))

    save("steps_per_execution", train, lambda: plain(classifier(0, "adam"), x, y))


class Adversaries(keras.Model):
    """Two networks, two optimizers, one of which is applied twice in a step, and a figure of the step's own."""

    def __init__(self, seed, wrap):
        super().__init__()
        self.maker, self.critic = dense(2, seed), dense(1, seed + 1)
        self.optimizer_of = {"critic": wrap(keras.optimizers.SGD(0.05))}
        self.build((None, 4))
        self.compile(wrap(keras.optimizers.Adam(0.01)))

    def build(self, shape):
        self.maker.build(shape)
        self.critic.build((None, 2))
        self.built = True

    def call(self, inputs):
        return self.critic(self.maker(inputs))

    def train_step(self, data):
        x, real = data
        for _ in range(2):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(self.critic(self.maker(x))) - tf.reduce_mean(tf.square(self.critic(real) - 1))
            variables = self.critic.trainable_variables
            self.optimizer_of["critic"].apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self.critic(self.maker(x))))
        variables = self.maker.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables, strict=True))
        return {"loss": loss}


class Hidden:
    """Holds an optimizer where the bridge does not look for it."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    def __getitem__(self, name):
        return self.optimizer


def case_own_step():
    def train():
        return bridged(Adversaries(10 * WORLD.rank, hvd.DistributedOptimizer), hvd.RankBatches(X, SIDE, BATCH))

    save("own_step", train, lambda: plain(Adversaries(0, lambda optimizer: optimizer), X, SIDE))


def tagger(seed, optimizer):
    layers = keras.layers
    embedding = layers.Embedding(20, 4, mask_zero=True, embeddings_initializer=initial(seed))
    kernels = {"kernel_initializer": initial(seed + 1), "recurrent_initializer": initial(seed + 3)}
    recurrent = layers.SimpleRNN(4, return_sequences=True, **kernels)
    model = keras.Sequential(
        [keras.Input((WORDS,), dtype="int32"), embedding, recurrent, dense(3, seed + 2, "softmax")]
    )
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def case_masked():
    """The rule for masks: each rank's mean over unmasked positions weighs as many examples as the rank has."""
    tags = IDS % 3
    if PART == "expected":
        for size in (1, 2, 3):
            write(f"masked.expected.{size}", masked_reference(tags, JOINT_BATCH // size), {})
    else:
        model = tagger(10 * WORLD.rank, hvd.DistributedOptimizer("sgd"))
        write(f"masked.{WORLD.rank}", *bridged(model, hvd.RankBatches(IDS, tags, BATCH)))


def masked_reference(tags, batch):
    reference = tagger(0, "sgd")
    variables = reference.trainable_variables
    for _ in range(EPOCHS):
        for start in range(0, NUM_EXAMPLES, JOINT_BATCH):
            stop = min(start + JOINT_BATCH, NUM_EXAMPLES)
            with tf.GradientTape() as tape:
                loss = 0.0
                for first in range(start, stop, batch):
                    rows = slice(first, min(first + batch, stop))
                    outputs = reference(IDS[rows], training=True)
                    part = reference.compute_loss(y=tf.constant(tags[rows]), y_pred=outputs)
                    loss += part * (rows.stop - rows.start) / (stop - start)
            gradients = [tf.convert_to_tensor(gradient) for gradient in tape.gradient(loss, variables)]
            reference.optimizer.apply(gradients, variables)
    return reference


def write_refusals():
    batches = hvd.RankBatches(X, CLASSES, BATCH)

    def fit(reduction="sum_over_batch_size", **settings):
        model = classifier(0, hvd.DistributedOptimizer("sgd"))
        loss = keras.losses.SparseCategoricalCrossentropy(reduction=reduction)
        model.compile(model.optimizer, loss, **settings)
        model.fit(batches, shuffle=False, verbose=0, callbacks=[hvd.BroadcastCallback()])

    def fit_twice():
        model = Adversaries(0, hvd.DistributedOptimizer)
        model.compile(model.optimizer, steps_per_execution=2)
        model.fit(hvd.RankBatches(X, SIDE, BATCH), shuffle=False, verbose=0, callbacks=[hvd.BroadcastCallback()])

    def fit_half():
        model = Adversaries(0, lambda optimizer: optimizer)
        model.compile(hvd.DistributedOptimizer(model.optimizer))
        model.fit(hvd.RankBatches(X, SIDE, BATCH), shuffle=False, verbose=0, callbacks=[hvd.BroadcastCallback()])

    def fit_hidden():
        model = Adversaries(0, hvd.DistributedOptimizer)
        model.optimizer_of = Hidden(keras.optimizers.SGD(0.05))
        model.fit(hvd.RankBatches(X, SIDE, BATCH), shuffle=False, verbose=0, callbacks=[hvd.BroadcastCallback()])

    found = {
        "mean": refusal(lambda: fit("mean")),
        "sum": refusal(lambda: fit("sum")),
        "mean_with_sample_weight": refusal(lambda: fit("mean_with_sample_weight")),
        "applied twice": refusal(fit_twice),
        "one optimizer alone": refusal(fit_half),
        "an optimizer in another object": refusal(fit_hidden),
        "labels": refusal(lambda: hvd.RankBatches(X, {"a": CLASSES, "b": CLASSES[1:]}, BATCH)),
    }
    (OUT / f"refusals.{WORLD.rank}.json").write_text(json.dumps(found))


for run in (case_outputs, case_class_weight, case_steps_per_execution, case_own_step, case_masked):
    run()
if WORLD.size == 2:
    write_refusals()
