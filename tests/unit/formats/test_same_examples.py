"""One data set gives the same examples in every format, and a damaged file of any format one sentence."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest
from written_formats import NUM, WRITERS, arrays, write_parquet, write_zarr

from distrain import formats
from distrain.data.batches import epoch_batches
from distrain.data.plan import EpochPlan
from distrain.data.positional import positional_examples
from distrain.data.sources import array_examples
from distrain.errors import DistrainError

X, Y = arrays()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """By format a source of undamaged files."""
    written = {name: write(tmp_path_factory.mktemp("whole")) for name, (_, write) in WRITERS.items()}
    return {name: getattr(formats, function)(written[name]) for name, (function, _) in WRITERS.items()}


@pytest.mark.parametrize("name", WRITERS)
def test_the_batches_are_those_of_the_arrays(name, whole):
    source = pickle.loads(pickle.dumps(whole[name]))
    wanted, found = array_examples(X, Y), positional_examples(source)
    plan = EpochPlan(NUM, 3, 32)
    for examples in (wanted, found):
        assert (examples.num_examples, examples.window_size, examples.span_size) == (NUM, 65_536, 256)
    for replica in range(3):
        both = [
            epoch_batches(one, plan, one.order(seed=3, epoch=1), replicas=range(replica, replica + 1), epoch=1)
            for one in (wanted, found)
        ]
        for (first,), (second,) in zip(*both, strict=True):
            assert first.features.dtype == second.features.dtype
            np.testing.assert_array_equal(first.features, second.features)
            np.testing.assert_array_equal(first.labels, second.labels)


@pytest.mark.parametrize("name", WRITERS)
def test_any_range_is_read(name, whole):
    source = whole[name]
    for start, stop in ((0, NUM), (299, 301), (340, 720), (999, 1000), (600, 900)):
        features, labels = source.read(start, stop)
        np.testing.assert_array_equal(features, X[start:stop])
        np.testing.assert_array_equal(labels, Y[start:stop])
    features, label = source[-1]
    assert (features.tolist(), label) == (X[-1].tolist(), Y[-1])
    with pytest.raises(IndexError):
        source[NUM]


@pytest.mark.parametrize("name", WRITERS)
def test_damaged_bytes_are_one_sentence_or_other_numbers(name, tmp_path):
    function, write = WRITERS[name]
    path = write(tmp_path)
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    file = files[0]
    rng = np.random.default_rng(1)
    for trial in range(40):
        if trial % 4 == 0:  # one file after the other is damaged
            file = files[trial // 4 % len(files)]
            whole = file.read_bytes()
        raw = bytearray(whole)
        if trial % 4 == 0:
            raw = raw[: rng.integers(len(raw) or 1)]
        else:
            edge = 400 if trial % 2 else len(raw)  # headers stand at both ends
            for position in rng.integers(-edge, edge, size=3):
                raw[position % len(raw)] = rng.integers(256)
        file.write_bytes(raw)
        try:
            source = getattr(formats, function)(path)
            for start in range(0, len(source), NUM):
                source.read(start, min(start + NUM, len(source)))
        except DistrainError as error:
            assert "\n" not in str(error)  # noqa: PT017 - damage may also change numbers alone
            assert str(tmp_path) in str(error)  # noqa: PT017
        file.write_bytes(whole)


def test_groups_are_those_of_each_file_and_the_identity_changes_with_data_and_columns(tmp_path):
    path = write_parquet(tmp_path)
    source = formats.parquet(path)
    assert source.groups().tolist() == [0, 300, 350, 650, 950, NUM]
    first = source.identity()
    assert pickle.loads(pickle.dumps(source)).identity() == formats.parquet(path).identity() == first
    assert formats.parquet(path, features=["a", "b"]).identity() != first
    assert formats.parquet(path / "part-0.parquet").identity() != first
    status = (path / "part-0.parquet").stat()
    os.utime(path / "part-0.parquet", ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert formats.parquet(path).identity() != first
    store = write_zarr(tmp_path)
    before = formats.zarr(store).identity()
    chunk = store / "x" / "c" / "1" / "0"
    chunk.write_bytes(chunk.read_bytes())
    assert formats.zarr(store).identity() != before
