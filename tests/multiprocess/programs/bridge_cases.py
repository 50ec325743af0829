"""Fit scripts on the bridge, each beside one process on the joint batches; run by every rank of a launcher.

    mpirun -n 2 python bridge_cases.py OUT trained CASE [CASE ...]     # OUT/CASE.RANK.npz and .json
    python bridge_cases.py OUT expected CASE [CASE ...]                # OUT/CASE.expected.npz and .json

Plain Keras trains the references. One, two and three ranks have the same joint batch, so a reference serves them all.
"""

from __future__ import annotations

import json
import random
import sys
from functools import cache
from pathlib import Path

import numpy as np
from refusal import refusal

import distrain.horovod as hvd

WORLD = hvd.init()

import keras  # noqa: E402 - after the devices are settled
import tensorflow as tf  # noqa: E402

from distrain.data.shuffle import epoch_order  # noqa: E402
from distrain.errors import DistrainError  # noqa: E402

OUT, PART = Path(sys.argv[1]), sys.argv[2]
EPOCHS = 3
JOINT_BATCH = 24
BATCH = JOINT_BATCH // WORLD.size
FEATURES, CLASSES = 7, 3


def examples(num_examples, seed=5):
    drawn = np.random.default_rng(seed)
    x = drawn.normal(size=(num_examples, FEATURES)).astype(np.float32)
    y = (x @ drawn.normal(size=(FEATURES, CLASSES)) + drawn.normal(size=(num_examples, CLASSES))).argmax(1)
    return x, y.astype(np.int32)


# Over 2 ranks: the last step has 12 and 1 examples, or 5 and none. Over 3: 8, 5 and none; or 5 and none, twice.
NUM_EXAMPLES = 157
EMPTY_EXAMPLES = 149
X, Y = examples(NUM_EXAMPLES)
HELD_OUT = examples(51, seed=6)


def perceptron(seed):
    regularizer = keras.regularizers.L2(1e-2)
    return keras.Sequential(
        [
            keras.Input((FEATURES,)),
            keras.layers.Dense(9, "tanh", kernel_initializer=glorot(seed), kernel_regularizer=regularizer),
            keras.layers.Dense(CLASSES, "softmax", kernel_initializer=glorot(seed + 1)),
        ]
    )


def embedder(seed):
    return keras.Sequential(
        [
            keras.Input((FEATURES,)),
            keras.layers.Embedding(1000, 4, embeddings_initializer=glorot(seed)),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(CLASSES, "softmax", kernel_initializer=glorot(seed + 1)),
        ]
    )


def glorot(seed):
    return keras.initializers.GlorotUniform(seed=seed)


def compiled(model, optimizer, **more):
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"], **more)
    return model


def bridged(batches, optimizer, *, build=perceptron, callbacks=(), validation=None, compression="none", **more):
    """A fit on the bridge; each rank starts from weights of its own."""
    model = compiled(build(100 * WORLD.rank), hvd.DistributedOptimizer(optimizer, compression=compression), **more)
    first = [hvd.BroadcastCallback(), hvd.MetricAverageCallback(batches)]
    history = model.fit(
        batches,
        epochs=EPOCHS,
        shuffle=False,
        verbose=0,
        callbacks=[*first, *callbacks],
        validation_data=validation,
    )
    return model, history.history


def reference(optimizer, *, x=X, y=Y, build=perceptron, order=None, weights=None, **more):
    """The same in one process, on the joint batches; `order` gives an epoch's examples."""
    model = compiled(build(0), optimizer)
    histories = []
    spans = [(0, EPOCHS)] if order is None else [(epoch, epoch + 1) for epoch in range(EPOCHS)]
    for start, stop in spans:
        chosen = np.arange(len(y)) if order is None else order(start)
        history = model.fit(
            x[chosen],
            y[chosen],
            sample_weight=None if weights is None else weights[chosen],
            batch_size=JOINT_BATCH,
            initial_epoch=start,
            epochs=stop,
            shuffle=False,
            verbose=0,
            **more,
        )
        histories.append(history.history)
    return model, {name: [x for history in histories for x in history[name]] for name in histories[0]}


def save(case, *, weights=(), expected=(), **facts):
    arrays = {f"weights{number}": np.asarray(value) for number, value in enumerate(weights)}
    arrays.update({f"expected{number}": np.asarray(value) for number, value in enumerate(expected)})
    of = "expected" if PART == "expected" else WORLD.rank
    np.savez(OUT / f"{case}.{of}.npz", **arrays)
    (OUT / f"{case}.{of}.json").write_text(json.dumps(facts, default=float))


def save_pair(case, train, reference, facts=()):
    """Save what `train()` returns, or what it must equal, which `reference()` returns: a model and its history."""
    if PART == "expected":
        model, history = reference()
        save(case, expected=state(model), history=history)
    else:
        model, history = train()
        save(case, weights=state(model), history=history, **dict(facts))


def state(model):
    """Weights and what the optimizer keeps about them."""
    return [v.numpy() for v in [*model.weights, *model.optimizer.variables]]


class Fed(hvd.RankBatches):
    """Notes the rows that `fit` asks for, by epoch: x of each example is made unique by its number."""

    def __init__(self, *args, **kwargs):
        self.fed = []
        super().__init__(*args, **kwargs)

    def on_epoch_begin(self):
        self.fed.append([])
        super().on_epoch_begin()

    def __getitem__(self, step):
        batch = super().__getitem__(step)
        if self.fed:
            rows = [int(np.flatnonzero((row == X).all(axis=1))[0]) for row in batch[0]]
            counts = float(self.rows(step)[0] > 0)
            self.fed[-1].append([[row, counts] for row in rows])
        return batch


def sgd():
    return keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True, global_clipnorm=0.05)


@cache
def sgd_reference():
    return reference(sgd())


def case_clipping():
    batches = Fed(X, Y, BATCH)
    save_pair("clipping", lambda: bridged(batches, sgd()), sgd_reference, {"fed": batches.fed})


def case_adam():
    x, y = X[:EMPTY_EXAMPLES], Y[:EMPTY_EXAMPLES]
    batches = Fed(x, y, BATCH, shuffle=True, seed=9)
    order = lambda epoch: epoch_order(len(y), seed=9, epoch=epoch).examples(range(len(y)))  # noqa: E731
    save_pair(
        "adam",
        lambda: bridged(batches, keras.optimizers.Adam(0.01)),
        lambda: reference(keras.optimizers.Adam(0.01), x=x, y=y, order=order),
        {"fed": batches.fed},
    )


def case_accumulation():
    def optimizer():
        return keras.optimizers.Adam(0.01, gradient_accumulation_steps=2, clipnorm=0.02)

    weights = np.random.default_rng(3).uniform(0, 2, len(Y)).astype(np.float32)
    batches = hvd.RankBatches(X, Y, BATCH, weights=weights)
    save_pair("accumulation", lambda: bridged(batches, optimizer()), lambda: reference(optimizer(), weights=weights))


def with_dense_gradients(optimizer):
    """Of a row that occurs twice in a batch, Keras alone squares the two parts of the gradient, not their sum."""
    apply = optimizer.apply
    optimizer.apply = lambda grads, variables=None: apply([tf.convert_to_tensor(g) for g in grads], variables)
    return optimizer


def case_average_of_weights():
    def optimizer():
        schedule = keras.optimizers.schedules.ExponentialDecay(0.05, 5, 0.8)
        return keras.optimizers.AdamW(schedule, weight_decay=0.1, use_ema=True, ema_overwrite_frequency=4)

    x = np.random.default_rng(4).integers(0, 1000, X.shape).astype(np.int32)
    batches = hvd.RankBatches(x, Y, BATCH)
    save_pair(
        "average_of_weights",
        lambda: bridged(batches, optimizer(), build=embedder),
        lambda: reference(with_dense_gradients(optimizer()), x=x, build=embedder),
    )


def case_figures():
    """Callbacks that decide on figures, an uneven validation part, and a step without examples on the last rank."""
    x, y = X[:EMPTY_EXAMPLES], Y[:EMPTY_EXAMPLES]

    def callbacks():
        plateau = keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=1, min_delta=10.0)
        return [keras.callbacks.LearningRateScheduler(lambda epoch, rate: [0.3, 0.4, rate][epoch]), plateau]

    batches = hvd.RankBatches(x, y, BATCH)
    validation = hvd.RankBatches(*HELD_OUT, BATCH, training=False)
    save_pair(
        "figures",
        lambda: bridged(batches, keras.optimizers.SGD(0.1), callbacks=callbacks(), validation=validation),
        lambda: reference(keras.optimizers.SGD(0.1), x=x, y=y, callbacks=callbacks(), validation_data=HELD_OUT),
    )


def case_eager():
    batches = hvd.RankBatches(X, Y, BATCH)
    save_pair("eager", lambda: bridged(batches, sgd(), run_eagerly=True), sgd_reference)


def case_xla():
    """Keras' default on a GPU, and what the saved file holds."""
    batches = hvd.RankBatches(X, Y, BATCH)
    facts = {}

    def train():
        model, history = bridged(batches, sgd(), jit_compile=True)
        path = OUT / f"saved.{WORLD.rank}.keras"
        model.save(path)
        loaded = keras.models.load_model(path)
        facts["same"] = all(np.array_equal(a, b) for a, b in zip(state(model), state(loaded), strict=True))
        facts["saved_class"] = type(hvd.DistributedOptimizer(loaded.optimizer)).__name__
        facts["jit_compile"] = model.jit_compile
        loaded.fit(batches, shuffle=False, verbose=0, callbacks=[hvd.BroadcastCallback()])
        return loaded, history

    def expected():
        model, history = reference(sgd())
        model.fit(X, Y, batch_size=JOINT_BATCH, shuffle=False, verbose=0)
        return model, history

    save_pair("xla", train, expected, facts)


def case_loss_scale():
    """One rank alone has an example whose gradient overflows in half precision: all must skip its step."""
    x, y = examples(109)  # in batches of 8, whose gradients do not overflow
    heavy = np.ones(len(y), np.float32)
    heavy[3 * 8 * WORLD.size - 1] = 1e5
    keras.config.set_dtype_policy("mixed_float16")
    try:
        models = [
            bridged(hvd.RankBatches(x, y, 8, weights=weights), keras.optimizers.SGD(0.01))[0]
            for weights in (None, heavy)
        ]
    finally:
        keras.config.set_dtype_policy("float32")
    updates = [int(model.optimizer.iterations) for model in models]
    scales = [float(model.optimizer.dynamic_scale) for model in models]
    optimizers = [type(model.optimizer).__name__ for model in models]
    save("loss_scale", weights=state(models[1]), updates=updates, scales=scales, optimizers=optimizers)


def case_compression():
    batches = hvd.RankBatches(X, Y, BATCH)
    save_pair("compression", lambda: bridged(batches, sgd(), compression="fp16"), sgd_reference)


def case_refusals():
    batches = hvd.RankBatches(X, Y, BATCH)

    def fit(model, data=batches, **more):
        return lambda: model.fit(data, verbose=0, **{"shuffle": False, "callbacks": [hvd.BroadcastCallback()], **more})

    def distributed(build=perceptron, **more):
        return compiled(build(0), hvd.DistributedOptimizer("sgd"), **more)

    def other(seed):
        return perceptron(seed) if WORLD.rank == 0 else embedder(seed)

    unbuilt = keras.Sequential([keras.layers.Dense(CLASSES, "softmax")])
    shorter = hvd.RankBatches(X, Y, BATCH if WORLD.rank == 0 else 2 * BATCH)
    idle = hvd.RankBatches(X[:EMPTY_EXAMPLES], Y[:EMPTY_EXAMPLES], BATCH)
    averaging = [hvd.BroadcastCallback(), hvd.MetricAverageCallback(idle)]
    found = {
        "no broadcast": refusal(fit(distributed(), callbacks=[])),
        "plain optimizer": refusal(fit(compiled(perceptron(0), "sgd"))),
        "not built": refusal(fit(compiled(unbuilt, hvd.DistributedOptimizer("sgd")))),
        "other model": refusal(fit(distributed(other))),
        "other steps": refusal(fit(distributed(), shorter)),
        "steps per execution": refusal(fit(distributed(steps_per_execution=2), idle, callbacks=averaging)),
        "compression": refusal(lambda: hvd.DistributedOptimizer("sgd", compression="zip")),
        "batch size": refusal(lambda: hvd.RankBatches(X, Y, 0)),
        "nothing to evaluate": refusal(lambda: hvd.RankBatches(X[:5], Y[:5], 5, training=False)),
    }
    random.seed(1)  # Keras shuffles by it; the first step asked for is not step 0
    found["shuffled"] = refusal(fit(distributed(), shuffle=True))
    save("refusals", found=found)


def case_stock():
    """Horovod's own wrapper on Keras 3, in the same script."""
    import horovod.tensorflow.keras as stock

    x, y = X[WORLD.rank :: WORLD.size], Y[WORLD.rank :: WORLD.size]
    model = compiled(perceptron(0), stock.DistributedOptimizer(keras.optimizers.SGD(0.1)))
    start = [v.numpy() for v in model.weights]
    model.fit(x, y, batch_size=BATCH, epochs=EPOCHS, shuffle=False, verbose=0)
    save("stock", weights=[v.numpy() for v in model.weights], expected=start)


for case in sys.argv[3:]:
    try:
        globals()[f"case_{case}"]()
    except DistrainError as error:
        sys.exit(f"{case}: {error}")
