"""Data without examples by number is written once as arrays, checked, known again, and never half-written."""

from __future__ import annotations

import itertools
import json
import threading

import numpy as np
import pytest

from distrain.data.array_folders.cache import cached_arrays, prepare_arrays
from distrain.data.array_folders.folder import open_array_folder
from distrain.data.array_folders.manifest import MANIFEST_NAME
from distrain.data.verification import verify_arrays
from distrain.errors import ConfigurationError, DataError
from distrain.files import json_bytes
from distrain.fingerprints import digest_of

COUNT = 5000


def generated(count=COUNT, shift=0.0):
    for number in range(count):
        yield np.full((3, 2), number + shift, np.float32), number


class Shape(tuple):
    """A shape as TensorFlow has it."""

    rank = property(len)


class Spec:
    """Form of an array of an element."""

    def __init__(self, *shape):
        self.shape = Shape(shape)


class TensorFlowLike:
    """The methods of a `tf.data.Dataset` that are used."""

    def __init__(self, elements, spec, cardinality):
        self.elements, self.element_spec, self._cardinality = elements, spec, cardinality

    def as_numpy_iterator(self):
        return iter(self.elements)

    def cardinality(self):
        return np.int64(self._cardinality)

    def __iter__(self):
        raise AssertionError("gives tensors")


@pytest.mark.parametrize("data", [generated, generated()])
def test_a_generator_becomes_the_arrays_of_a_folder(tmp_path, data):
    features, labels, weights = cached_arrays(tmp_path / "a" / "cache", {"train": data})["train"]
    assert isinstance(features, np.memmap)
    np.testing.assert_array_equal(features, np.stack([x for x, _ in generated()]))
    np.testing.assert_array_equal(labels, np.arange(COUNT))
    assert weights is None
    assert (features.dtype, labels.dtype) == (np.float32, np.int64)
    assert open_array_folder(tmp_path / "a" / "cache")["train"].num_examples == COUNT


@pytest.mark.parametrize(
    ("element", "names"),
    [
        ({"image": np.ones((2, 2), np.uint8), "label": 3, "weight": 0.5}, {"x", "y", "weights"}),
        ({"a": 1.0, "b": [1, 2], "label": 3}, {"x.a", "x.b", "y"}),
        (((np.ones(2), np.ones(3)), {"left": 1, "right": 2}), {"x.0", "x.1", "y.left", "y.right"}),
        (np.float16(2), {"x"}),
        ((np.ones((0, 3)), True), {"x", "y"}),
    ],
)
def test_every_form_of_an_example_has_its_files(tmp_path, element, names):
    cached_arrays(tmp_path / "cache", {"validation": lambda: iter([element] * 3)})
    found = {path.name for path in (tmp_path / "cache").glob("*.npy")}
    assert found == {f"validation.{name}.npy" for name in names}
    part = open_array_folder(tmp_path / "cache")["validation"]
    assert part.num_examples == 3


def test_batches_of_tensorflow_are_cut_into_examples(tmp_path):
    batches = [(np.arange(12.0).reshape(4, 3), np.arange(4)), (np.arange(6.0).reshape(2, 3), np.arange(4, 6))]
    batched = TensorFlowLike(batches, (Spec(None, 3), Spec(None)), 2)
    single = TensorFlowLike([(np.ones(3), np.int64(1))] * 7, (Spec(3), Spec()), 7)
    found = cached_arrays(tmp_path / "cache", {"train": batched, "validation": single})
    assert found["train"][1].tolist() == [0, 1, 2, 3, 4, 5]
    assert found["train"][0][4].tolist() == [0, 1, 2]
    assert len(found["validation"][1]) == 7


def test_what_is_written_is_read_again_and_other_data_is_refused(tmp_path):
    cached_arrays(tmp_path / "cache", {"train": generated})
    manifest = (tmp_path / "cache" / MANIFEST_NAME).read_bytes()

    def read_a_few(limit=20):
        for number, element in enumerate(generated()):
            assert number < limit, "only the first examples are read again"
            yield element

    cached_arrays(tmp_path / "cache", {"train": read_a_few})
    assert (tmp_path / "cache" / MANIFEST_NAME).read_bytes() == manifest
    for other in ({"train": lambda: generated(shift=1.0)}, {"validation": generated}, {"train": [(1.0, 2)]}):
        with pytest.raises(ConfigurationError, match=r"cache .* holds other data \(train.*\): delete the folder"):
            cached_arrays(tmp_path / "cache", other)


def test_examples_that_change_are_kept_as_they_came_first(tmp_path, caplog):
    rng = np.random.default_rng(1)

    def drawn():
        return ((rng.normal(size=2), 1) for _ in range(20))

    first = np.array(cached_arrays(tmp_path / "cache", {"train": drawn})["train"][0])
    assert "other examples each time it is read" in caplog.text
    np.testing.assert_array_equal(first, cached_arrays(tmp_path / "cache", {"train": drawn})["train"][0])


def failing():
    yield from generated(700)
    raise KeyError("lost")


@pytest.mark.parametrize(
    ("data", "error", "words"),
    [
        (
            itertools.chain(generated(600), [(np.ones((4, 2), "f4"), 1)]),
            DataError,
            r"train: example 600 has float32 of",
        ),
        (failing, DataError, r"train fails at example 700: KeyError: 'lost' \(.*test_array_cache.py, line \d+\)"),
        (iter(()), DataError, "train is empty"),
        (iter([("text", 1)]), DataError, "train: example 0 has text.*give numbers, as map= changes examples after"),
        (lambda: 3, ConfigurationError, "train is a function that returns int; let it return a generator"),
        ((), ConfigurationError, "train is a tuple of length 0: give"),
        (([1], [2], [3], [4]), ConfigurationError, "train is a tuple of length 4: give"),
        (7, ConfigurationError, "train is of type int; give a source, arrays, a tf.data.Dataset, a generator"),
        (
            TensorFlowLike([(np.ones(3),)] * 9, (Spec(3),), -1),
            ConfigurationError,
            r"train has no end: leave out \.repeat\(\)",
        ),
        (iter([({"a": {"b": 1.0}, "c": 2.0}, 1)]), ConfigurationError, "an array is named 'a/b', which is no name"),
        (iter([({"../x": 1.0, "c": 2.0}, 1)]), ConfigurationError, "named '../x', which is no name of a file"),
    ],
)
def test_other_data_is_refused_in_a_sentence_and_leaves_nothing(tmp_path, data, error, words):
    with pytest.raises(error, match=words):
        cached_arrays(tmp_path / "cache", {"train": data})
    assert not (tmp_path / "cache").exists()
    assert not list(tmp_path.glob(".cache.tmp"))


def test_foreign_files_and_damage_are_refused(tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / "thesis.txt").touch()
    for write in (cached_arrays, lambda *given: prepare_arrays(*given, None, lambda *told: None)):
        with pytest.raises(ConfigurationError, match=r"holds 'thesis\.txt', which distrain did not write"):
            write(folder, {"train": generated})
    (folder / "thesis.txt").unlink()
    cached_arrays(folder, {"train": generated})
    with (folder / "train.x.npy").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(DataError, match=r"train.x.npy has 1,000 bytes instead of 120,128: .* Delete the folder"):
        cached_arrays(folder, {"train": generated})
    manifest = json.loads((folder / MANIFEST_NAME).read_text())
    (folder / MANIFEST_NAME).write_text(json.dumps({**manifest, "parts": {"train": 4}}))
    with pytest.raises(DataError, match=r"arrays.json is damaged .*digest"):
        cached_arrays(folder, {"train": generated})


@pytest.mark.parametrize("read", [lambda folder: cached_arrays(folder, {"train": generated}), open_array_folder])
def test_a_changed_byte_is_told_and_never_trained(tmp_path, read):
    cached_arrays(tmp_path / "cache", {"train": generated})
    with (tmp_path / "cache" / "train.x.npy").open("r+b") as file:
        file.seek(-1000, 2)
        file.write(b"?")
    with pytest.raises(DataError, match=r"train\.x\.npy was changed: .* If you changed it on purpose, delete arrays"):
        read(tmp_path / "cache")
    assert open_array_folder(tmp_path / "cache", verify=False).keys() == {"train"}
    (tmp_path / "cache" / MANIFEST_NAME).unlink()
    assert open_array_folder(tmp_path / "cache").keys() == {"train"}


@pytest.mark.parametrize(
    "change",
    [
        {"files": {"../secret": {"bytes": 1, "sha256": "0" * 64}}},
        {"files": {"..": {"bytes": 1, "sha256": "0" * 64}}},
        {"files": {"": {"bytes": 1, "sha256": "0" * 64}}},
        {"files": {"train.x.npy": {"bytes": "1", "sha256": "0" * 64}}},
        {"files": {"train.x.npy": 3}},
        {"files": [1]},
        {"source": "train"},
        {"version": 2},
    ],
)
def test_a_hostile_manifest_is_refused_in_a_sentence(tmp_path, change):
    cached_arrays(tmp_path, {"train": generated})
    manifest = {**json.loads((tmp_path / MANIFEST_NAME).read_text()), **change}
    (tmp_path / MANIFEST_NAME).write_bytes(json_bytes({**manifest, "digest": digest_of(manifest)}))
    with pytest.raises(DataError, match=r"arrays\.json is damaged|is no file"):
        open_array_folder(tmp_path)
    assert verify_arrays(tmp_path).faults


@pytest.mark.parametrize("number", [(COUNT - 1) // 7, COUNT - 1])
def test_a_source_is_known_again_by_examples_from_all_of_it(tmp_path, number):
    changed = [(0.0, 1)] * COUNT
    cached_arrays(tmp_path / "cache", {"train": list(changed)})
    changed[number] = (0.0, 2)
    with pytest.raises(ConfigurationError, match="holds other data"):
        cached_arrays(tmp_path / "cache", {"train": changed})


def test_a_cache_on_storage_without_write_access_is_read(tmp_path, monkeypatch):
    cached_arrays(tmp_path / "cache", {"train": generated})

    def refuse(folder):
        raise PermissionError(30, "Read-only file system", str(folder))

    monkeypatch.setattr("distrain.data.array_folders.cache._locked", refuse)
    assert len(cached_arrays(tmp_path / "cache", {"train": generated})["train"][1]) == COUNT
    with pytest.raises(ConfigurationError, match="cannot be written"):
        cached_arrays(tmp_path / "other", {"train": generated})


def test_a_folder_is_replaced_and_rows_are_bounded(tmp_path):
    told = []
    for shift in (0.0, 1.0):
        data = {"train": lambda shift=shift: (element for element in generated(shift=shift)), "test": itertools.count()}
        rows = prepare_arrays(tmp_path / "data", data, 1500, lambda *figures: told.append(figures))
        assert rows == {"train": 1500, "test": 1500}
    assert open_array_folder(tmp_path / "data")["train"].num_examples == 1500
    assert np.load(tmp_path / "data" / "train.x.npy")[0, 0, 0] == 1.0
    assert told[-1] == ("test", 1500, 1500)


def test_one_process_writes_and_all_others_wait(tmp_path, caplog):
    written = []

    def slow():
        for element in generated(60):
            if element[1] == 50:
                written.append(threading.get_ident())
                started.set()
                may_go_on.wait(30)
            yield element

    started, may_go_on = threading.Event(), threading.Event()
    found = []
    first, second = (
        threading.Thread(target=lambda: found.append(cached_arrays(tmp_path / "c", {"train": slow}))) for _ in range(2)
    )
    first.start()
    assert started.wait(30)
    second.start()
    while "waits for another process" not in caplog.text:
        assert second.is_alive()
    may_go_on.set()
    for thread in (first, second):
        thread.join(30)
    assert len(written) == 1
    assert [len(each["train"][1]) for each in found] == [60, 60]
