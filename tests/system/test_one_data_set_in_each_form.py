"""One data set trains the same weights in each form: at 1, 2 and 3 replicas, ragged, shuffled, resumed, augmented."""

from __future__ import annotations

import functools
import hashlib
import io
import tarfile
from itertools import cycle

import h5py
import keras
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import zarr

import distrain
from distrain import formats
from distrain.data import shuffle
from distrain.data.batches import epoch_batches
from distrain.data.by_position.transforms import Transform
from distrain.data.plan import EpochPlan
from distrain.remote.cache import find_cache
from distrain.training.jobs.given_data import given_examples

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras, as it saves

NUM_EXAMPLES = 53  # 7 steps an epoch; the last step has 5 examples, so that of 3 replicas one is idle
RNG = np.random.default_rng(7)
X = RNG.normal(size=(NUM_EXAMPLES, 6)).astype("float32")
Y = np.tanh(X @ RNG.normal(size=(6, 1)))[:, 0].astype("float32")
STARTS = (0, 20, 40)  # files of 20 examples, the last of 13
SETTINGS = {"loss": "mse", "epochs": 2, "global_batch_size": 8, "verbose": 0, "seed": 4}
SETTINGS |= {"optimizer": lambda: keras.optimizers.SGD(0.1)}  # so fast that the last weights are the best
SETTINGS |= {"jit_compile": False}  # compiling takes longer than the run


def build():
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(1, "tanh")])


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


def hdf5(folder):
    for start in STARTS:
        with h5py.File(folder / f"{start:02}.h5", "w") as file:
            for name, values in (("pixels", X[start : start + 20]), ("label", Y[start : start + 20])):
                file.create_dataset(name, data=values, chunks=(7, *values.shape[1:]), compression="gzip")
    return formats.hdf5(folder)


def zarr_store(folder):
    group = zarr.open_group(folder / "rows.zarr", mode="w")
    for name, values in (("pixels", X), ("label", Y)):
        group.create_array(name, data=values, chunks=(7, *values.shape[1:]))
    return formats.zarr(folder / "rows.zarr")


def tar_shards(folder):
    for start in STARTS:
        with tarfile.open(folder / f"{start:02}.tar", "w") as tar:
            for number in range(start, min(start + 20, NUM_EXAMPLES)):
                for ending, value in (("pixels.npy", X[number]), ("label.npy", Y[number])):
                    file = io.BytesIO()
                    np.save(file, value)
                    member = tarfile.TarInfo(f"{number:04}.{ending}")
                    member.size = file.tell()
                    file.seek(0)
                    tar.addfile(member, file)
    return formats.webdataset(folder, features="pixels.npy", label="label.npy")


FORMS = {
    "npy": npy,
    "npy columns": npy_columns,
    "list": lambda folder: list(zip(X, Y, strict=True)),
    "Hugging Face": lambda folder: HuggingFaceRows(),
    "PyTorch": lambda folder: TorchRows(),
    "Parquet": parquet,
    "Arrow": arrow,
    "TFRecord": tfrecord,
    "HDF5": hdf5,
    "Zarr": zarr_store,
    "tar shards": tar_shards,
}
RESUMED = ("Hugging Face", "Parquet", "TFRecord")


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


@pytest.mark.parametrize("form", [form for form in FORMS if form not in RESUMED])
def test_a_form_trains_the_weights_of_arrays(form, sources):
    assert digest(sources(form)) == wanted(1)


@pytest.mark.parametrize("form", RESUMED)
def test_a_form_trains_the_weights_of_arrays_also_after_a_resume_within_an_epoch(form, sources, tmp_path):
    digest(sources(form), run=tmp_path / "run", max_steps=10)
    assert digest(sources(form), run=tmp_path / "run") == wanted(1)


@pytest.mark.parametrize(("form", "num_replicas"), list(zip(FORMS, cycle([2, 3]))))
def test_a_form_trains_the_weights_of_arrays_on_several_replicas(form, num_replicas, sources):
    assert digest(sources(form), num_replicas) == wanted(num_replicas)


def fed(examples, num_replicas):
    """Bits of all batches of two epochs, by replica."""
    bits = hashlib.sha256()
    for epoch in (0, 1):
        plan, order = EpochPlan(NUM_EXAMPLES, num_replicas, 3), examples.order(seed=4, epoch=epoch)
        for batches in epoch_batches(examples, plan, order, replicas=range(num_replicas), epoch=epoch):
            for batch in batches:
                bits.update(batch.features.astype(np.float32).tobytes() + batch.labels.astype(np.float32).tobytes())
    return bits.hexdigest()


@pytest.mark.parametrize("num_replicas", [1, 2, 3])
def test_each_form_feeds_each_replica_the_batches_of_arrays(num_replicas, sources):
    found = {form: fed(given_examples(sources(form), "train"), num_replicas) for form in FORMS}
    assert set(found.values()) == {fed(given_examples((X, Y), "train"), num_replicas)}


def noisy(example, rng):
    pixels, label = (example["pixels"], example["label"]) if isinstance(example, dict) else example
    return np.asarray(pixels, np.float32) + rng.normal(scale=0.1, size=6).astype("float32"), np.float32(label)


@pytest.fixture
def small_windows(monkeypatch, tmp_path):
    """Windows of 16 examples, so that an epoch has four; row groups and chunks hold 7 examples, and spans one."""
    monkeypatch.setattr(shuffle, "SHUFFLE_WINDOW", 16)
    monkeypatch.setenv("DISTRAIN_CACHE", str(tmp_path / "cache"))
    find_cache.cache_clear()
    yield tmp_path / "cache"
    find_cache.cache_clear()


@pytest.mark.parametrize("num_replicas", [1, 2, 3])
def test_several_windows_are_those_of_arrays_in_each_form(num_replicas, sources, small_windows):
    found = {form: fed(given_examples(sources(form), "train"), num_replicas) for form in FORMS}
    assert set(found.values()) == {fed(given_examples((X, Y), "train"), num_replicas)}
    assert list(small_windows.glob("remote-1/*/0-*")), "some form has a copy of unpacked examples"


def test_several_windows_train_the_weights_of_arrays_also_after_a_resume(sources, small_windows, tmp_path):
    own, several = digest((X, Y)), digest((X, Y), 2)
    assert len({own, several, wanted(1)}) == 3, "other windows have another order"
    for form in ("Parquet", "Zarr", "tar shards"):
        run = tmp_path / form
        digest(sources(form), run=run, max_steps=10)  # 3 of 7 steps of the second epoch, within a window
        assert digest(sources(form), run=run) == own, form
    assert digest(sources("Parquet"), 2) == several


def test_augmented_examples_are_the_same_in_each_form_and_at_each_number_of_replicas(sources):
    noise = Transform(noisy, seed=4)
    plain = fed(given_examples((X, Y), "train"), 2)
    drawn = {form: fed(given_examples(sources(form), "train", noise), 2) for form in FORMS}
    assert len({*drawn.values(), plain}) == 2
    settings = {**SETTINGS, "global_batch_size": 9, "map": noisy}  # 9 divides by 3, so rounding alone may differ
    alone = distrain.fit(build, sources("list"), **settings).model.get_weights()
    together = distrain.fit(build, sources("Parquet"), **settings, strategy="mirrored", devices="cpu:3")
    for own, other in zip(alone, together.model.get_weights(), strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-5, atol=1e-6)
