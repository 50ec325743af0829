"""TFRecord files give the examples that TensorFlow wrote into them, by position; damaged files are named."""

from __future__ import annotations

import os
import pickle
import random
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distrain.data.by_position.transforms import Transform
from distrain.data.positional import positional_examples
from distrain.errors import ConfigurationError, DataError
from distrain.formats import tfrecord
from distrain.formats.records.example_proto import NoExampleError, parse_example

NUM = 50
X = np.random.default_rng(0).normal(size=(NUM, 6)).astype("float32")
Y = np.arange(NUM) % 4
TOKENS = [list(range(-1, row % 3)) for row in range(NUM)]


def example(**features):
    """A tf.train.Example, serialized by TensorFlow."""
    import tensorflow as tf

    lists = {"f": lambda v: {"float_list": tf.train.FloatList(value=v)}}
    lists |= {"i": lambda v: {"int64_list": tf.train.Int64List(value=v)}}
    lists |= {"S": lambda v: {"bytes_list": tf.train.BytesList(value=v)}, "n": lambda v: {}}
    made = {}
    for name, value in features.items():
        values = [] if value is None else np.ravel(np.array(value, object)).tolist()
        kind = "n" if value is None else "S" if isinstance(values[0], bytes) else np.array(values).dtype.kind
        made[name] = tf.train.Feature(**lists[kind](values))
    return tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString()


def write(path, records, **options):
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path), **options) as writer:
        for record in records:
            writer.write(record)


@pytest.fixture(scope="module")
def records():
    return [
        example(x=X[row].tolist(), y=int(Y[row]), raw=b"%d\0" % row, tokens=TOKENS[row])
        if TOKENS[row]
        else example(x=X[row].tolist(), y=int(Y[row]), raw=b"%d\0" % row, tokens=None)
        for row in range(NUM)
    ]


@pytest.fixture
def folder(tmp_path, records):
    write(tmp_path / "a.tfrecord-00000-of-00003", records[:20])
    write(tmp_path / "a.tfrecord-00001-of-00003", [])
    write(tmp_path / "a.tfrecord-00002-of-00003", records[20:])
    return tmp_path


def test_the_examples_are_what_was_written(folder):
    source = pickle.loads(pickle.dumps(tfrecord(folder, features="x", label="y", shapes={"x": (2, 3)})))
    assert len(source) == NUM
    features, labels = source.read(10, 30)
    np.testing.assert_array_equal(features, X[10:30].reshape(-1, 2, 3))
    np.testing.assert_array_equal(labels, Y[10:30])
    assert (features.dtype, labels.dtype) == (np.float32, np.int64)
    chosen = np.array([49, 0, 21, 19, 20, 3])
    for given_back, wanted in zip(source.take(chosen), (X.reshape(-1, 2, 3), Y), strict=True):
        np.testing.assert_array_equal(given_back, wanted[chosen])


def test_bytes_and_lists_of_any_length_go_through_map(folder):
    source = tfrecord(folder, features={"raw": "raw", "tokens": "tokens"}, label="y", shapes={"tokens": (-1,)})

    def padded(element):
        features, label = element
        return {"number": int(features["raw"].rstrip(b"\0")), "tokens": np.resize(features["tokens"], 3)}, label

    examples = positional_examples(source, transform=Transform(padded, seed=0))
    features, _, _ = examples.load(np.array([[0, NUM]]), np.arange(NUM))(0, NUM)
    assert features["number"].tolist() == list(range(NUM))
    assert [row.tolist() for row in features["tokens"]] == [np.resize(row, 3).tolist() for row in TOKENS]
    assert source[7][0]["raw"] == b"7\0"
    with pytest.raises(DataError, match="has text, or something else that is no number"):
        positional_examples(tfrecord(folder, features="raw", label="y"))
    with pytest.raises(DataError, match="example 7 has int64 of shape"):
        positional_examples(tfrecord(folder, features="tokens", label="y", shapes={"tokens": (-1,)}))


def test_one_length_needs_no_map(tmp_path):
    write(tmp_path / "a.tfrecord", [example(x=[1, 2]), example(x=[3, 4])])
    examples = positional_examples(tfrecord(tmp_path, shapes={"x": (-1,)}))
    assert examples.load(np.array([[0, 2]]), np.arange(2))(0, 2)[0].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"x": [1.5], "y": 1}, r"record 50 has 1 values, not the shape \(6,\), as the feature 'x'"),
        ({"x": [1.5] * 6}, "record 50 has nothing as the feature 'y'"),
        ({"x": [1] * 6, "y": 1}, "whole numbers in place of floats as the feature 'x'"),
        ({"x": [1.5] * 6, "y": b"1"}, "texts or bytes in place of whole numbers as the feature 'y'"),
        (None, r"record 50 is no tf\.train\.Example"),
    ],
)
def test_a_record_that_differs_is_named(tmp_path, records, record, message):
    write(tmp_path / "a.tfrecord", [*records, b"\x0a\xff" if record is None else example(**record)])
    source = tfrecord(tmp_path, features="x", label="y")
    assert source[49][1] == Y[49]
    for read in (lambda: source[50], lambda: source.take(np.array([3, 50])), lambda: source.read(40, 51)):
        with pytest.raises(DataError, match=message):
            read()


def test_a_feature_of_later_records_alone_is_not_lost(tmp_path):
    write(tmp_path / "a.tfrecord", [example(x=1.5, y=0), example(x=2.5, y=1, weight=3.0)])
    with pytest.raises(DataError, match=r"record 1 has the feature 'weight', unlike the first record\. Name the"):
        tfrecord(tmp_path).read(0, 2)
    features, labels = tfrecord(tmp_path, features="x", label="y").read(0, 2)
    assert (features.tolist(), labels.tolist()) == ([1.5, 2.5], [0, 1])


def test_what_is_asked_for_must_exist(folder):
    with pytest.raises(ConfigurationError, match="names the column 'z'"):
        tfrecord(folder, features="z")
    with pytest.raises(ConfigurationError, match="shapes= names 'z'"):
        tfrecord(folder, shapes={"z": (1,)})
    with pytest.raises(ConfigurationError, match="at most one of them -1"):
        tfrecord(folder, shapes={"x": (-1, -1)})
    with pytest.raises(DataError, match="has no records"):
        tfrecord(folder / "a.tfrecord-00001-of-00003")
    with pytest.raises(DataError, match="fits no file"):
        tfrecord(folder / "b*")


def _flip(raw, place):
    return raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda raw: raw[:-1], r"ends within record 49\. Copy"),
        (lambda raw: raw + b"\0" * 5, r"ends within record 50\. Copy"),
        (lambda raw: b"hello, this is text", "is no TFRecord file"),
        (lambda raw: _flip(raw, 3), "is no TFRecord file"),
        (lambda raw: raw + b"\xff" * 50, "is damaged in record 50"),
        (lambda raw: _flip(raw, 40), "is damaged in record 0: its checksum differs"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, records, damage, message):
    path = tmp_path / "a.tfrecord"
    write(path, records)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=f"a.tfrecord {message}"):
        tfrecord(path, features="x", label="y").read(0, 1)


def test_a_compressed_file_is_refused_with_its_cure(tmp_path, records):
    write(tmp_path / "a.tfrecord.gz", records, options="GZIP")
    with pytest.raises(DataError, match=r"compressed by gzip.*gunzip"):
        tfrecord(tmp_path)


def test_the_index_is_made_once_and_again_when_the_file_changes(tmp_path, records, monkeypatch):
    made = []
    find = tfrecord.__globals__["find_records"]
    monkeypatch.setitem(tfrecord.__globals__, "find_records", lambda *given: made.append(given) or find(*given))
    path = tmp_path / "a.tfrecord"
    write(path, records)
    assert [len(tfrecord(path)) for _ in range(3)] == [50, 50, 50]
    assert len(made) == 1
    status = path.stat()
    write(path, records[::-1])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    assert tfrecord(path, features="x", label="y")[0][1] == Y[49]
    assert len(made) == 2


@pytest.mark.parametrize("damage", [lambda raw: raw[:-8], lambda raw: b"{}" + raw, lambda raw: b"", None])
def test_a_damaged_index_is_made_again(tmp_path, records, damage):
    path = tmp_path / "a.tfrecord"
    write(path, records)
    tfrecord(path)
    (index,) = tmp_path.glob(".*index")
    raw = index.read_bytes()
    table = np.frombuffer(raw[2**16 :], "<i8").copy()
    table[7] = 2**40
    index.write_bytes(raw[: 2**16] + table.tobytes() if damage is None else damage(raw))
    np.testing.assert_array_equal(tfrecord(path, features="x", label="y").read(0, 50)[0], X)
    assert index.read_bytes() == raw


def test_a_read_only_folder_has_its_index_in_the_cache(folder, monkeypatch, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr("distrain.formats.records.record_index.atomic_write", _refusing(folder))
    assert len(tfrecord(folder)) == NUM
    assert len(list(cache.glob("distrain/indexes/*/*"))) == 3
    assert not list(folder.glob(".*index"))


def test_a_user_without_a_home_folder_has_the_index_in_memory(folder, monkeypatch):
    monkeypatch.setattr("distrain.formats.records.record_index.user_cache", lambda: None)
    monkeypatch.setattr("distrain.formats.records.record_index.atomic_write", _refusing(folder))
    assert len(tfrecord(folder)) == NUM
    assert not list(folder.glob(".*index"))


def _refusing(folder):
    from distrain.files import atomic_write

    def write_elsewhere(path, **options):
        if path.parent == folder:
            raise PermissionError(13, "Permission denied")
        return atomic_write(path, **options)

    return write_elsewhere


def test_threads_may_make_one_index_at_once(tmp_path, records):
    write(tmp_path / "a.tfrecord", records)
    found = []
    threads = [threading.Thread(target=lambda: found.append(len(tfrecord(tmp_path)))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [NUM] * 8
    assert len(list(tmp_path.glob(".*"))) == 1


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=200, deadline=None)
def test_the_parser_accepts_and_refuses_what_tensorflow_does(seed):
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    bases = [example(x=[1.0, 2.5], y=3, s=[b"ab", b""]), example(image=b"\xff" * 20, l=[-1, 2**62, 300], n=None)]
    draw = random.Random(seed)
    content = bytearray(draw.choice(bases))
    for _ in range(draw.randrange(4)):
        content[draw.randrange(len(content))] = draw.randrange(256)
    try:
        wanted = tf.train.Example.FromString(bytes(content)).features.feature
    except DecodeError:
        with pytest.raises(NoExampleError):
            parse_example(bytes(content))
        return
    found = parse_example(bytes(content))
    assert found.keys() == wanted.keys()
    for name, feature in found.items():
        kind = wanted[name].WhichOneof("kind")
        values = [] if kind is None else list(getattr(wanted[name], kind).value)
        assert np.array(feature).tobytes() == np.array(values, np.asarray(feature).dtype).tobytes()
