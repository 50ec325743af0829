"""One data set trains the same weights in each form: at 1, 2 and 3 replicas, ragged, shuffled, resumed, augmented."""

from __future__ import annotations

import functools

import keras
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

import distrain
from distrain import formats

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras, as it saves

NUM_EXAMPLES = 53  # 7 steps an epoch; the last step has 5 examples, so that of 3 replicas one is idle
RNG = np.random.default_rng(7)
X = RNG.normal(size=(NUM_EXAMPLES, 6)).astype("float32")
Y = np.tanh(X @ RNG.normal(size=(6, 1)))[:, 0].astype("float32")
STARTS = (0, 20, 40)  # files of 20 examples, the last of 13
SETTINGS = {"loss": "mse", "epochs": 2, "global_batch_size": 8, "learning_rate": 0.05, "verbose": 0, "seed": 4}


def build():
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)])


class HuggingFaceRows:
    """Rows as `datasets.Dataset` gives them: dicts of Python lists, several at once as a dict of lists."""

    def __len__(self):
        return NUM_EXAMPLES

    def __getitem__(self, key):
        if isinstance(key, int):
            return {"pixels": X[key].tolist(), "label": float(Y[key])}
        return {"pixels": X[key].tolist(), "label": Y[key].tolist()}

    def __getitems__(self, keys):
        rows = self[keys]
        return [dict(zip(rows, row, strict=True)) for row in zip(*rows.values(), strict=True)]


class TorchRows:
    """Rows as a map-style `torch.utils.data.Dataset` gives them."""

    def __len__(self):
        return NUM_EXAMPLES

    def __getitem__(self, number):
        return X[number], Y[number]


def table(start):
    rows = slice(start, start + 20)
    return pa.table({"pixels": list(X[rows]), "label": Y[rows]})


def npy(folder):
    np.save(folder / "train.x.npy", X)
    np.save(folder / "train.y.npy", Y)
    return tuple(np.load(folder / f"train.{part}.npy", mmap_mode="r") for part in "xy")


def npy_columns(folder):
    np.save(folder / "pixels.npy", X)
    np.save(folder / "label.npy", Y)
    return formats.npy(folder)


def parquet(folder):
    for start in STARTS:
        pq.write_table(table(start), folder / f"{start:02}.parquet", row_group_size=7)
    return formats.parquet(f"{folder}/*.parquet")


def arrow(folder):
    for start in STARTS:
        pa.feather.write_feather(table(start), folder / f"{start:02}.feather", chunksize=7)
    return formats.arrow(folder)


def tfrecord(folder):
    for start in STARTS:
        with tf.io.TFRecordWriter(str(folder / f"{start:02}.tfrecord")) as writer:
            for x, y in zip(X[start : start + 20], Y[start : start + 20], strict=True):
                lists = {"pixels": x, "label": [y]}
                feature = {k: tf.train.Feature(float_list=tf.train.FloatList(value=v)) for k, v in lists.items()}
                writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())
    return formats.tfrecord(folder, shapes={"label": ()})


FORMS = {
    "npy": npy,
    "npy columns": npy_columns,
    "list": lambda folder: list(zip(X, Y, strict=True)),
    "Hugging Face": lambda folder: HuggingFaceRows(),
    "PyTorch": lambda folder: TorchRows(),
    "Parquet": parquet,
    "Arrow": arrow,
    "TFRecord": tfrecord,
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """`sources(form)` returns the data set in one form."""
    return functools.cache(lambda form: FORMS[form](tmp_path_factory.mktemp("form")))


@functools.cache
def wanted(num_replicas):
    return digest((X, Y), num_replicas)


def digest(train, num_replicas=1, **settings):
    several = {"strategy": "mirrored", "devices": f"cpu:{num_replicas}"} if num_replicas > 1 else {}
    return distrain.fit(build, train, **{**SETTINGS, **several, **settings}).summary["weights_sha256"]


@pytest.mark.parametrize("form", FORMS)
def test_a_form_trains_the_weights_of_arrays_after_a_resume_within_an_epoch(form, sources, tmp_path):
    distrain.fit(build, sources(form), **SETTINGS, run=tmp_path / "run", max_steps=10)
    assert digest(sources(form), run=tmp_path / "run") == wanted(1)


@pytest.mark.parametrize("num_replicas", [2, 3])
@pytest.mark.parametrize("form", FORMS)
def test_a_form_trains_the_weights_of_arrays_on_several_replicas(form, num_replicas, sources):
    assert digest(sources(form), num_replicas) == wanted(num_replicas)


def noisy(example, rng):
    pixels, label = (example["pixels"], example["label"]) if isinstance(example, dict) else example
    return np.asarray(pixels, np.float32) + rng.normal(scale=0.1, size=6).astype("float32"), np.float32(label)


def test_augmented_examples_are_the_same_in_each_form_and_at_each_number_of_replicas(sources):
    """The global batch of 9 divides by 1 and 3, so that rounding alone may differ."""
    settings = {**SETTINGS, "global_batch_size": 9, "map": noisy}
    alone = distrain.fit(build, (X, Y), **settings)
    for form in FORMS:
        several = {} if form in ("Hugging Face", "Parquet") else {"strategy": "mirrored", "devices": "cpu:3"}
        found = distrain.fit(build, sources(form), **several, **settings)
        if not several:
            assert found.summary["weights_sha256"] == alone.summary["weights_sha256"]
        for own, other in zip(alone.model.get_weights(), found.model.get_weights(), strict=True):
            np.testing.assert_allclose(own, other, rtol=1e-5, atol=1e-6)
