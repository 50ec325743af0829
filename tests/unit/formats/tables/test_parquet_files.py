"""Parquet becomes arrays, and what no array can hold becomes one sentence with file, row and column."""

from __future__ import annotations

import decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distrain import formats
from distrain.errors import ConfigurationError, DataError
from distrain.formats import columns
from distrain.formats.tables import parquet_files

ROWS = 10
TENSORS = pa.FixedSizeListArray.from_arrays(pa.array(np.arange(60, dtype="int8")), 6)
COLUMNS = {
    "boolean": ([True, False] * 5, [True, False]),
    "decimal": ([decimal.Decimal("1.5")] * ROWS, [1.5, 1.5]),
    "half": (np.ones(ROWS, "float16"), [1.0, 1.0]),
    "list": ([[1.0, 2.0]] * ROWS, [[1.0, 2.0]] * 2),
    "nested": ([[[1], [2]]] * ROWS, [[[1], [2]]] * 2),
    "fixed": (pa.FixedSizeListArray.from_arrays(pa.array(np.arange(20)), 2), [[0, 1], [2, 3]]),
    "tensor": (
        pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.int8(), (2, 3)), TENSORS),
        np.arange(12).reshape(2, 2, 3).tolist(),
    ),
    "turned tensor": (
        pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.int8(), (2, 3), permutation=[1, 0]), TENSORS),
        np.arange(12).reshape(2, 2, 3).swapaxes(1, 2).tolist(),
    ),
    "codes": (pa.array([7, 9] * 5).dictionary_encode(), [7, 9]),
    "text": (["a", "b"] * 5, ["a", "b"]),
    "categories": (pa.array(["a", "b"] * 5).dictionary_encode(), ["a", "b"]),
    "jpeg": ([b"\xff", b"\xfe"] * 5, [b"\xff", b"\xfe"]),
    "image.bytes": ([b"\xff", b"\xfe"] * 5, [b"\xff", b"\xfe"]),
}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    columns = {name: values for name, (values, _) in COLUMNS.items() if "." not in name}
    images = [{"bytes": value, "path": {"name": "a"}} for value in COLUMNS["image.bytes"][0]]
    path = tmp_path_factory.mktemp("parquet") / "a.parquet"
    pq.write_table(pa.table({**columns, "image": images}), path, row_group_size=4)
    return path


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_becomes_an_array(name, table):
    source = formats.parquet(table, features=name)
    (values,) = source.read(0, 2)
    assert values.tolist() == COLUMNS[name][1]
    assert len(source.read(2, 10)[0]) == 8  # over three row groups


REFUSED = {
    "null": ([1, None, 3], r"a\.parquet, row 2: the column 'x' is null\. Fill it"),
    "ragged": ([[1], [2], [3, 4]], r"a\.parquet, row 3: the column 'x' holds a list of length 2, .* of length 1"),
    "null in a list": ([[1, 2], [3, None], [4, 5]], r"row 2: the column 'x' holds a list in which a value is null"),
    "time": (pa.array([1, 2, 3], pa.timestamp("ms")), r"'x' is of type timestamp\[ms\], which is no number"),
    "map": (pa.array([[(1, 2)]] * 3, pa.map_(pa.int8(), pa.int8())), r"'x' is of type map<int8, int8"),
    "texts in a list": ([["a"]] * 3, "'x' holds lists of texts"),
    "nulls alone": ([None] * 3, "'x' is of type null"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_array_can_hold_is_named(case, tmp_path):
    values, message = REFUSED[case]
    pq.write_table(pa.table({"x": values}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=message):
        formats.parquet(tmp_path / "a.parquet", features="x").read(0, 3)


def test_lists_of_another_length_in_a_later_row_group_or_file_are_named(tmp_path):
    pq.write_table(pa.table({"x": [[1, 2]] * 4 + [[3]] * 4}), tmp_path / "a.parquet", row_group_size=4)
    with pytest.raises(DataError, match=r"a\.parquet, row 5: the column 'x' has the shape \(1,\), and earlier"):
        formats.parquet(tmp_path / "a.parquet").read(0, 8)
    source = formats.parquet(tmp_path / "a.parquet")
    source.read(0, 2)
    with pytest.raises(DataError, match=r"a\.parquet, row 5: the column 'x' has the shape \(1,\)"):
        source.read(4, 6)


def test_files_of_other_columns_are_refused(tmp_path):
    pq.write_table(pa.table({"x": [1.0], "y": [0]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"y": [0], "x": [1]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet has the column 'x' as int64, and .*a\.parquet as float64"):
        formats.parquet(tmp_path)
    assert formats.parquet(tmp_path, features="y", label=()).read(0, 2)[0].tolist() == [0, 0]
    with pytest.raises(ConfigurationError, match=r"a\.parquet: features= names the column 'z', but the columns are"):
        formats.parquet(tmp_path, features=["x", "z"])


@pytest.mark.parametrize("more", ["z", "weight"])
def test_a_column_of_later_files_alone_is_not_lost(tmp_path, more):
    pq.write_table(pa.table({"x": [1.0], "y": [0]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({more: [2.0], "y": [1], "x": [3.0]}), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=rf"a\.parquet has no column '{more}', unlike .*b\.parquet\. Choose columns"):
        formats.parquet(tmp_path)
    features, labels = formats.parquet(tmp_path, features="x", label="y", weight=()).read(0, 2)
    assert (features.tolist(), labels.tolist()) == ([1.0, 3.0], [0, 1])


def test_a_file_with_two_labels_is_named(tmp_path):
    pq.write_table(pa.table({"x": [1.0], "y": [0]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"x": [1.0], "y": [0], "label": [1]}), tmp_path / "b.parquet")
    with pytest.raises(ConfigurationError, match=r"b\.parquet: The columns 'y' and 'label' both look like the label"):
        formats.parquet(tmp_path)


def test_a_row_group_over_the_bound_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    pq.write_table(pa.table({"x": np.zeros(2**20), "y": np.zeros(2**20)}), tmp_path / "a.parquet")
    monkeypatch.setattr(parquet_files, "MAX_GROUP_BYTES", 2**23)
    source = formats.parquet(tmp_path / "a.parquet", features="x", label=())
    assert len(source.read(0, 1)[0]) == 1
    with pytest.raises(DataError, match=r"row group of 1,048,576 rows, which takes 16 MiB unpacked; at most 8 MiB"):
        formats.parquet(tmp_path / "a.parquet")[0]


def test_many_rows_of_few_bytes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(columns, "MAX_ROWS_PER_BYTE", 64)
    pq.write_table(pa.table({"x": np.zeros(2**21, np.int8)}), tmp_path / "a.parquet", compression="zstd")
    with pytest.raises(DataError, match=r"a\.parquet declares 2,097,152 rows in .* bytes"):
        formats.parquet(tmp_path / "a.parquet")


def test_equal_texts_share_their_memory(tmp_path):
    """A dictionary of one long text stands for any number of rows, which must not be unpacked."""
    texts = pa.DictionaryArray.from_arrays(np.zeros(1000, np.int32), ["x" * 2**20])
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", store_schema=False)
    (texts,) = formats.parquet(tmp_path / "a.parquet").read(0, 1000)
    assert len({id(text) for text in texts}) == 1
