"""A source by position trains the model that its arrays train: at each N, augmented, and after a resume."""

from __future__ import annotations

import keras
import numpy as np
import pytest

import distrain
from distrain.errors import ConfigurationError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

NUM_EXAMPLES, NUM_VALIDATION = 53, 20  # 7 steps an epoch, the last of five examples
RNG = np.random.default_rng(7)
X = RNG.normal(size=(NUM_EXAMPLES + NUM_VALIDATION, 6)).astype("float32")
Y = np.tanh(X @ RNG.normal(size=(6, 1)))[:, 0].astype("float32")
TRAIN, VALIDATION = (X[:NUM_EXAMPLES], Y[:NUM_EXAMPLES]), (X[NUM_EXAMPLES:], Y[NUM_EXAMPLES:])
SETTINGS = {"loss": "mse", "epochs": 2, "global_batch_size": 8, "verbose": 0, "seed": 4}
SETTINGS |= {"optimizer": lambda: keras.optimizers.SGD(0.1)}  # so fast that the last weights are the best
SETTINGS |= {"jit_compile": False}  # compiling takes longer than the run


def build():
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(1, "tanh")])


def digest(train, validation=None, **settings):
    return distrain.fit(build, train, validation, **{**SETTINGS, **settings}).summary["weights_sha256"]


class Rows:
    """Rows of arrays by number."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, number):
        return self.x[number], self.y[number]


class Spans(Rows):
    """Rows of arrays by ranges."""

    def read(self, start, stop):
        return self.x[start:stop], self.y[start:stop]


class Batches(keras.utils.PyDataset):
    """Batches of ten examples."""

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return -(-len(self.x) // 10)

    def __getitem__(self, number):
        return self.x[10 * number : 10 * number + 10], self.y[10 * number : 10 * number + 10]


def listed(x, y):
    return [{"pixels": row.tolist(), "label": float(label)} for row, label in zip(x, y, strict=True)]


def noisy(example, rng):
    return example[0] + rng.normal(scale=0.1, size=6).astype("float32"), example[1]


@pytest.fixture(scope="module")
def wanted():
    return digest(TRAIN, VALIDATION)


@pytest.mark.parametrize("form", [Rows, Spans, Batches, listed])
def test_each_form_of_the_data_trains_the_same_weights(form, wanted):
    assert digest(form(*TRAIN), form(*VALIDATION)) == wanted


@pytest.mark.parametrize("num_replicas", [2, 3])
def test_each_form_trains_the_same_weights_on_several_replicas(num_replicas):
    several = {"strategy": "mirrored", "devices": f"cpu:{num_replicas}"}
    assert digest(Spans(*TRAIN), **several) == digest(listed(*TRAIN), **several) == digest(TRAIN, **several)


def test_an_augmented_example_does_not_depend_on_the_number_of_replicas():
    settings = {**SETTINGS, "global_batch_size": 9}
    alone = distrain.fit(build, Rows(*TRAIN), map=noisy, **settings).model.get_weights()
    together = distrain.fit(build, Spans(*TRAIN), map=noisy, strategy="mirrored", devices="cpu:3", **settings)
    for own, other in zip(alone, together.model.get_weights(), strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-5, atol=1e-6)
    plain = distrain.fit(build, TRAIN, **settings).model.get_weights()
    assert max(np.abs(own - other).max() for own, other in zip(alone, plain, strict=True)) > 1e-4


@pytest.fixture(scope="module")
def augmented():
    """The weights that augmented examples train, and the label and the first number of each example as it was seen."""
    seen = []

    def noted(example, rng):
        changed = noisy(example, rng)
        seen.append((float(example[1]), float(changed[0][0])))
        return changed

    return digest(Rows(*TRAIN), map=noted), seen


def test_each_epoch_is_augmented_by_its_own_random_numbers(augmented):
    _, seen = augmented
    of_first = {drawn for label, drawn in seen if label == float(TRAIN[1][0])}
    assert len(of_first) == 2, "one number in each epoch; the first epoch's is also drawn to look at the data"


@pytest.mark.parametrize("form", [Rows, Spans])
def test_a_resume_within_an_epoch_goes_on_at_the_position(form, augmented, tmp_path):
    run = tmp_path / "run"
    digest(form(*TRAIN), map=noisy, run=run, max_steps=10)
    assert digest(form(*TRAIN), map=noisy, run=run) == augmented[0]


def test_a_function_of_an_example_changes_arrays_and_validation_data_too():
    doubled = (2 * TRAIN[0], TRAIN[1]), (2 * VALIDATION[0], VALIDATION[1])
    twice = {"map": lambda example: (2 * example[0], example[1])}
    changed, given = (
        distrain.fit(build, *data, **more, **SETTINGS) for data, more in (((TRAIN, VALIDATION), twice), (doubled, {}))
    )
    assert changed.summary["weights_sha256"] == given.summary["weights_sha256"]
    assert changed.history == given.history
    halved = {"validation_map": lambda example: (example[0] / 2, example[1])}
    found = distrain.fit(build, TRAIN, (2 * VALIDATION[0], VALIDATION[1]), map=noisy, **halved, **SETTINGS)
    fixed = distrain.fit(build, TRAIN, VALIDATION, map=noisy, validation_map=lambda example: example, **SETTINGS)
    assert [e["val_loss"] for e in found.history] == [e["val_loss"] for e in fixed.history]


def test_streams_are_written_once_and_train_the_weights_of_their_arrays(wanted, tmp_path):
    import tensorflow as tf

    def generated():
        yield from zip(*TRAIN, strict=True)

    batched = tf.data.Dataset.from_tensor_slices(VALIDATION).batch(6)
    for _ in range(2):
        assert digest(generated, batched, cache=tmp_path / "cache") == wanted
    with pytest.raises(ConfigurationError, match=r"train has no end: leave out \.repeat"):
        digest(tf.data.Dataset.from_tensor_slices(TRAIN).repeat(), cache=tmp_path / "endless")


class Reshuffled(Batches):
    """Batches that change after each epoch."""

    def on_epoch_end(self):
        pass


@pytest.mark.parametrize(
    ("train", "settings", "words"),
    [
        (TRAIN, {"map": noisy, "validation": VALIDATION}, "map draws random numbers, .* give validation_map"),
        (TRAIN, {"map": noisy, "validation_split": 0.5}, "map draws random numbers, .* give validation data"),
        (TRAIN, {"map": 3}, "map is 3; give a function"),
        (Rows(*TRAIN), {"sample_weight": np.ones(NUM_EXAMPLES)}, "give the weight as third value of each example"),
        (Reshuffled(*TRAIN), {}, "train changes in Reshuffled.on_epoch_end"),
        (
            iter([(X[0], Y[0])]),
            {},
            r"type list_iterator: .* by number. Write it .* prepare --source .* or by distrain.fit\(..., cache=DIR\)",
        ),
        (list(TRAIN), {}, r"type list and has no labels of its own: give a tuple \(x, y\)"),
        (X, {}, r"type ndarray and has no labels of its own: give a tuple \(x, y\)"),
        ("data", {}, r"type str: give a tuple \(x, y\)"),
        ((X,), {}, r"has length 1: give a tuple \(x, y\)"),
    ],
)
def test_other_data_is_refused_in_a_sentence(train, settings, words):
    with pytest.raises(ConfigurationError, match=words):
        distrain.fit(build, train, **{**SETTINGS, **settings})
