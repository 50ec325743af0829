"""Shuffled examples of storage that unpacks groups come in the order of arrays, and each group is unpacked once."""

from __future__ import annotations

import hashlib
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from distrain.data import shuffle
from distrain.data.batches import epoch_batches
from distrain.data.by_position import unpacked_source
from distrain.data.by_position.unpacked_source import UnpackedSource, for_shuffled_spans
from distrain.data.labels.labels import labels_between
from distrain.data.plan import EpochPlan
from distrain.data.positional import positional_examples
from distrain.data.sources import array_examples
from distrain.errors import ConfigurationError, DataError
from distrain.remote.cache import find_cache

NUM, GROUP, WINDOW = 1000, 90, 256
RNG = np.random.default_rng(3)
X, Y = RNG.normal(size=(NUM, 3)).astype("float32"), RNG.integers(9, size=NUM)
TEXTS = np.array([f"é{number}" * (number % 5) for number in range(NUM)], object)
OCTETS = np.array([bytes([number % 256]) * (number % 7) for number in range(NUM)], object)
UNPACKED = Counter()  # group -> how often it was unpacked, in this process


class Packed:
    """Groups of examples, of which one is unpacked to read one of its examples."""

    span_size = GROUP
    holds_group = True

    def __init__(self, version="1"):
        self.version, self.held = version, None

    def __len__(self):
        return NUM

    def __getitem__(self, number):
        return tuple(part[0] for part in self.read(number, number + 1))

    def read(self, start, stop):
        for group in range(start // GROUP, (stop - 1) // GROUP + 1):
            if group != self.held:
                UNPACKED[group] += 1
                self.held = group
        return X[start:stop], Y[start:stop]

    def groups(self):
        return np.append(np.arange(0, NUM, GROUP), NUM)

    def identity(self):
        return hashlib.sha256(self.version.encode()).hexdigest()


class Chunked(Packed):
    """Groups that are unpacked anew for each range, as chunks of Zarr."""

    holds_group = False

    def read(self, start, stop):
        self.held = None
        return super().read(start, stop)


class Encoded(Packed):
    """Texts and bytes, which map= turns into numbers."""

    def read(self, start, stop):
        super().read(start, stop)
        return {"text": TEXTS[start:stop], "bytes": OCTETS[start:stop]}, Y[start:stop]


class WithoutGroups:
    """A source that says how many neighbours its storage holds, and no more."""

    span_size = GROUP

    def __init__(self):
        self.packed = Packed()

    def __len__(self):
        return NUM

    def __getitem__(self, number):
        return self.packed[number]

    def read(self, start, stop):
        return self.packed.read(start, stop)


@pytest.fixture(autouse=True)
def small_windows(monkeypatch, cache_folder):
    """Windows of 256 examples in spans of 8, and files of 200 examples."""
    monkeypatch.setattr(shuffle, "SHUFFLE_WINDOW", WINDOW)
    monkeypatch.setattr(shuffle, "SHUFFLE_SPAN", 8)
    monkeypatch.setattr(unpacked_source, "FILE_BYTES", 200 * 20)
    UNPACKED.clear()
    return cache_folder


def batches(examples, *, num_replicas=1, replica=0, epoch=0, shuffled=True):
    plan, order = EpochPlan(NUM, num_replicas, 29), examples.order(seed=5, epoch=epoch, shuffle=shuffled)
    found = epoch_batches(examples, plan, order, replicas=range(replica, replica + 1), epoch=epoch)
    return [(batch.features.tobytes(), batch.labels.tobytes()) for (batch,) in found]


@pytest.mark.parametrize("source", [Packed, Chunked])
@pytest.mark.parametrize("num_replicas", [1, 2, 3])
def test_the_order_is_that_of_arrays_and_each_group_is_unpacked_once(num_replicas, source):
    arrays = array_examples(X, Y)
    examples = positional_examples(source())
    UNPACKED.clear()
    for epoch in (0, 1):
        for replica in range(num_replicas):
            wanted = batches(arrays, num_replicas=num_replicas, replica=replica, epoch=epoch)
            assert batches(examples, num_replicas=num_replicas, replica=replica, epoch=epoch) == wanted
    assert set(UNPACKED) == set(range(-(-NUM // GROUP)))
    assert UNPACKED.total() <= len(UNPACKED) + 2 * (num_replicas - 1)  # an idle replica reads an example by itself


def test_another_process_finds_the_files_and_changed_data_has_others():
    first = batches(positional_examples(Packed()))
    again = positional_examples(Packed())
    UNPACKED.clear()
    assert batches(again) == first
    assert not UNPACKED
    other = positional_examples(Packed("2"))
    UNPACKED.clear()
    batches(other)
    assert UNPACKED


def test_a_source_that_travels_reads_the_same_files():
    examples, _ = for_shuffled_spans(Packed(), "x", num_examples=NUM, window=WINDOW, span=8)
    assert isinstance(examples, UnpackedSource)
    copy = pickle.loads(pickle.dumps(examples))
    for start, stop in ((0, 1), (85, 95), (170, 700), (NUM - 1, NUM)):
        for found in (examples.read(start, stop), copy.read(start, stop)):
            np.testing.assert_array_equal(found[0], X[start:stop])
            np.testing.assert_array_equal(found[1], Y[start:stop])
    assert copy[17][1] == Y[17]


def test_texts_and_bytes_come_back_as_they_were():
    source, _ = for_shuffled_spans(Encoded(), "x", num_examples=NUM, window=WINDOW, span=8)
    assert isinstance(source, UnpackedSource)
    for start, stop in ((0, 9), (85, 400), (NUM - 1, NUM)):
        features, labels = source.read(start, stop)
        assert features["text"].tolist() == TEXTS[start:stop].tolist()
        assert features["bytes"].tolist() == OCTETS[start:stop].tolist()
        np.testing.assert_array_equal(labels, Y[start:stop])


def test_a_large_group_is_written_a_few_rows_at_a_time(monkeypatch):
    monkeypatch.setattr(unpacked_source, "FILE_BYTES", 20 * 7)
    ranges = []
    monkeypatch.setattr(Packed, "read", lambda self, start, stop: ranges.append((start, stop)) or (X[start:stop],))
    source, _ = for_shuffled_spans(Packed(), "x", num_examples=NUM, window=WINDOW, span=8)
    np.testing.assert_array_equal(source.read(100, 110)[0], X[100:110])
    assert [stop - start for start, stop in ranges[2:]] == [11] * 8 + [2]  # 12 bytes each, without labels


def test_data_in_its_own_order_is_read_without_a_copy(cache_folder):
    examples = positional_examples(Packed())
    UNPACKED.clear()
    assert batches(examples, shuffled=False) == batches(array_examples(X, Y), shuffled=False)
    labels_between(examples, 0, NUM)
    assert max(UNPACKED.values()) <= 2
    assert not list(cache_folder.glob("remote-1/*/*-*"))


def test_a_damaged_file_is_written_anew(cache_folder):
    wanted = batches(positional_examples(Packed()))
    files = sorted(path for path in cache_folder.glob("remote-1/*/*-*") if path.name[0] != ".")
    assert len(files) == 5  # two or three groups in each
    files[0].write_bytes(files[0].read_bytes()[:-1])
    raw = bytearray(files[1].read_bytes())
    raw[100] ^= 4
    files[1].write_bytes(raw)
    files[2].write_bytes(b"\xff" * 200)
    again = positional_examples(Packed())
    UNPACKED.clear()
    assert batches(again) == wanted
    assert 3 <= len(UNPACKED) <= 9


@pytest.mark.parametrize("source", [Packed, WithoutGroups])
def test_without_room_each_window_unpacks_its_groups_and_one_warning_tells_the_cost(source, monkeypatch, caplog):
    monkeypatch.setenv("DISTRAIN_CACHE_GIB", "0.00001")
    find_cache.cache_clear()
    examples = positional_examples(source(), name="train")
    UNPACKED.clear()
    batches(examples, shuffled=False)
    assert not caplog.messages, "data in its own order costs nothing more"
    UNPACKED.clear()
    assert batches(examples) == batches(array_examples(X, Y))
    batches(examples, epoch=1)
    (message,) = caplog.messages
    assert "train: groups of 90 examples are unpacked about 4 times in a shuffled epoch" in message
    assert 2 * 3 <= np.mean(list(UNPACKED.values())) <= 2 * 4


@pytest.mark.parametrize("span_size", [None, 0, -1, 2.5, "90"])
def test_a_span_size_that_is_no_number_is_refused(span_size):
    source = WithoutGroups()
    source.span_size = span_size
    with pytest.raises(ConfigurationError, match=f"train has {span_size!r} as span_size; give a whole number"):
        positional_examples(source, name="train")


def test_a_large_copy_is_told_once(monkeypatch, caplog):
    monkeypatch.setattr(unpacked_source, "TOLD_BYTES", 1000)
    examples = positional_examples(Packed(), name="train")
    batches(examples)
    batches(examples, epoch=1)
    (message,) = caplog.messages
    assert "train: groups of 90 examples are unpacked once into the cache" in message


def test_a_cache_that_cannot_be_written_is_a_sentence(cache_folder, monkeypatch):
    examples = positional_examples(Packed())
    monkeypatch.setattr(unpacked_source, "write_rows", lambda *_: Path("/none/such").stat())
    with pytest.raises(DataError, match=r"the cache .* cannot be written: No such file .* DISTRAIN_CACHE"):
        batches(examples)


def test_a_cache_that_cannot_be_made_leaves_the_source_as_it_is(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("DISTRAIN_CACHE", str(tmp_path / "file"))
    find_cache.cache_clear()
    assert batches(positional_examples(Packed())) == batches(array_examples(X, Y))
    assert "about 4 times in a shuffled epoch, because the cache cannot be written" in caplog.messages[0]
