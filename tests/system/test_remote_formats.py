"""Files of all formats behind URLs give their examples: Parquet by range, others through copies in the cache."""

from __future__ import annotations

import pickle
import shutil

import numpy as np
import pytest
from fuzzed_formats import format_subjects
from web_server import web_server
from written_formats import NUM, WRITERS, arrays, write_hdf5, write_parquet

from distrain import formats
from distrain.errors import ConfigurationError, DataError
from distrain.remote import local_copy as copies
from distrain.remote import storage
from distrain.remote.cache import find_cache
from distrain.remote.local_copy import local_copy
from distrain.remote.path import to_path

X, Y = arrays()
SINGLE_FILES = ("a.npz", "packed.npz", "zarr.zip", "x.tfrecord", "a.tar")


@pytest.fixture(autouse=True)
def no_copies(cache_folder):
    """A cache of its own for each test, as after the start of a process."""
    copies._COPIES.clear()
    yield cache_folder
    copies._COPIES.clear()


@pytest.fixture(scope="module")
def subjects(tmp_path_factory):
    """By name valid files of some formats, which no test changes."""
    written = format_subjects(tmp_path_factory.mktemp("formats"), (*SINGLE_FILES, "1.png", "labels.csv"))
    return {subject.name: subject for subject in written}


def put(store, path, name):
    if path.is_dir():
        return store.put_folder(path, f"{name}/{path.name}")
    return store.put(f"{name}/{path.name}", path.read_bytes())


def test_a_table_in_an_object_store_is_read(store, tmp_path):
    url = store.put_folder(write_parquet(tmp_path), "flights")
    for paths in (url, f"{url}/*.parquet", [f"{url}/part-0.parquet", f"{url}/part-1.parquet"]):
        source = pickle.loads(pickle.dumps(formats.parquet(paths)))
        features, labels = source.read(0, NUM)
        np.testing.assert_array_equal(features, X)
        np.testing.assert_array_equal(labels, Y)
    with pytest.raises(DataError, match=r"s3://bucket/flights/\*\.csv fits no file"):
        formats.parquet(f"{url}/*.csv")


@pytest.mark.parametrize("name", WRITERS)
def test_each_format_is_read(name, store, tmp_path):
    function, write = WRITERS[name]
    source = getattr(formats, function)(put(store, write(tmp_path), name.replace(" ", "-")))
    for one in (source, pickle.loads(pickle.dumps(source))):
        features, labels = one.read(0, NUM)
        np.testing.assert_array_equal(features, X)
        np.testing.assert_array_equal(labels, Y)
    assert len(source.identity()) == 64


def test_records_shards_pictures_and_archives_are_read(store, subjects):
    for name in SINGLE_FILES:
        function = subjects[name].read.args[0]
        url = store.put(f"others/{name}", subjects[name].path.read_bytes())
        near, far = function(subjects[name].path), function(url)
        for own, other in zip(all_arrays(near), all_arrays(far), strict=True):
            assert [*map(str, own)] == [*map(str, other)]
    url = store.put_folder(subjects["1.png"].path.parent.parent, "photos")
    pixels, label = formats.images(url, size=(8, 8))[0]
    assert (pixels.shape, label) == ((8, 8, 3), 0)
    assert np.array_equal(formats.images(f"{url}/*/*.png", size=(8, 8), labels=[7])[0][0], pixels)
    url = store.put_folder(subjects["labels.csv"].path.parent, "labelled")
    assert formats.images(url, labels=f"{url}/labels.csv", size=(8, 8))[1][1] == 1


def all_arrays(source):
    """Arrays of all examples; texts and bytes are left out."""
    found = source.take(np.arange(len(source))) if hasattr(source, "take") else source.read(0, len(source))
    return [value for part in found for value in (part.values() if isinstance(part, dict) else [part])]


def test_a_folder_of_several_files_and_records_with_numbers_are_found(store, subjects):
    subject = subjects["x.tfrecord"]
    for part in range(2):
        store.put(f"records/x.tfrecord-0000{part}-of-00002", subject.content)
    assert len(formats.tfrecord("s3://bucket/records")) == 2 * len(formats.tfrecord(subject.path))


def test_a_copy_is_fetched_once_and_again_where_it_is_damaged_or_changed(store, tmp_path, monkeypatch):
    url = store.put("one/a.npz", b"first")
    read = type(to_path(url).described()).read
    asked = []
    monkeypatch.setattr(
        type(to_path(url).described()), "read", lambda self, *bounds: asked.append(bounds) or read(self, *bounds)
    )
    path = local_copy(to_path(url))
    assert (path.read_bytes(), path.name, len(asked)) == (b"first", "a.npz", 1)
    copies._COPIES.clear()
    assert local_copy(to_path(url)) == path
    assert len(asked) == 1
    path.write_bytes(b"f1rst")
    copies._COPIES.clear()
    assert local_copy(to_path(url)).read_bytes() == b"first"
    store.put("one/a.npz", b"other")
    copies._COPIES.clear()
    assert local_copy(to_path(url)).read_bytes() == b"other"
    assert local_copy(tmp_path) == tmp_path


def test_what_cannot_be_fetched_is_a_sentence(store, monkeypatch, no_copies):
    url = store.put("two/a.h5", b"x" * 100_000)
    with pytest.raises(DataError, match=r"s3://bucket/none.h5 does not exist"):
        formats.hdf5("s3://bucket/none.h5")
    with pytest.raises(DataError, match=r"s3://bucket/none does not exist"):
        formats.images("s3://bucket/none")
    with pytest.raises(DataError, match=r"s3://bucket/two/a.h5 cannot be read as HDF5"):
        formats.hdf5(url)
    copies._COPIES.clear()
    shutil.rmtree(no_copies)
    monkeypatch.setenv("DISTRAIN_CACHE_GIB", "0.00001")
    find_cache.cache_clear()
    with pytest.raises(ConfigurationError, match=r"a.h5 has 0.00 GiB, and the cache .* Set DISTRAIN_CACHE_GIB"):
        formats.hdf5(url)
    with pytest.raises(ConfigurationError, match="ftp:// is not read"):
        formats.hdf5("ftp://host/a.h5")


def test_a_web_server_serves_single_files(tmp_path):
    content = write_hdf5(tmp_path).read_bytes()
    with web_server() as server:
        server.files["/a.h5"] = content
        for has_ranges, has_identity in ((True, True), (False, True), (True, False)):
            server.has_ranges, server.has_identity = has_ranges, has_identity
            copies._COPIES.clear()
            storage._FILESYSTEMS.clear()
            np.testing.assert_array_equal(formats.hdf5(server.url("/a.h5?key=secret")).read(0, NUM)[0], X)
        with pytest.raises(DataError, match=r"/photos does not exist, or is a folder, which no web server lists"):
            formats.images(server.url("/photos"))


def test_names_that_leave_the_folder_are_refused(monkeypatch, store):
    url = store.put("three/x/a.png", b"x").rpartition("/x/")[0]
    path = to_path(url)
    odd = to_path(f"{url}/x/a.png")
    monkeypatch.setattr(type(odd), "name", property(lambda self: ".."))
    with pytest.raises(DataError, match="which is no name of a file"):
        local_copy(path)
