"""Parquet: types of columns; and files of any kind whose rows take many times their size."""

from __future__ import annotations

import datetime
import decimal

import pytest
from reading import read, refused, write

from distrain.errors import ConfigurationError
from distrain.text.readers import tally
from distrain.text.readers.columns import ColumnLayout
from distrain.text.readers.tally import Bounds

pyarrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


def test_parquet(tmp_path):
    path = tmp_path / "a.parquet"
    texts = ["héllo", None, "c"] * 3000
    labels = pyarrow.array(["x", "y", "z"] * 3000).dictionary_encode()
    parquet.write_table(pyarrow.table({"label": labels, "text": texts, "n": range(9000)}), path)
    rows, counted = read(path)
    assert rows == [("x", "héllo"), ("y", ""), ("z", "c")] * 3000
    assert counted.empty == 3000
    assert 0.9 * path.stat().st_size < counted.num_bytes <= path.stat().st_size
    assert read(path, ColumnLayout(label="n", texts=("label", "text")))[0][:2] == [("0", "x héllo"), ("1", "y ")]
    assert "'label', 'text', 'n'" in refused(path, ColumnLayout(label="no"), ConfigurationError)
    assert "Parquet" in refused(write(tmp_path / "cut.parquet", path.read_bytes()[:-100]))


def test_parquet_that_is_not_utf8_is_mended(tmp_path):
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"label": ["1"], "text": pyarrow.array([b"a\xffb"]).view("string")}), path)
    rows, counted = read(path)
    assert rows == [("1", "a\ufffdb")]
    assert counted.invalid == 1


READ = {
    "null": (pyarrow.nulls(2), ["", ""]),
    "bool": (pyarrow.array([True, None]), ["true", ""]),
    "uint64": (pyarrow.array([2**64 - 1, 1], pyarrow.uint64()), ["18446744073709551615", "1"]),
    "half": (pyarrow.array([1.5, 2], pyarrow.float16()), ["1.5", "2"]),
    "double": (pyarrow.array([float("nan"), 0.25]), ["", "0.25"]),
    "decimal": (pyarrow.array([decimal.Decimal("1.50"), decimal.Decimal("2")]), ["1.50", "2"]),
    "wide decimal": (pyarrow.array([decimal.Decimal(10**40)] * 2, pyarrow.decimal256(45, 1)), [f"{10**40}.0"] * 2),
    "string view": (pyarrow.array(["a", None], pyarrow.string_view()), ["a", ""]),
    "large string": (pyarrow.array(["a", "b"], pyarrow.large_string()), ["a", "b"]),
    "binary": (pyarrow.array([b"a", b"b\xff"]), ["a", "b\ufffd"]),
    "binary view": (pyarrow.array([b"a", b"b"], pyarrow.binary_view()), ["a", "b"]),
    "fixed binary": (pyarrow.array([b"ab", b"c\0"], pyarrow.binary(2)), ["ab", "c "]),
    "dictionary": (pyarrow.array(["a", None]).dictionary_encode(), ["a", ""]),
    "dictionary of numbers": (pyarrow.array([7, 8]).dictionary_encode(), ["7", "8"]),
}
REFUSED = {
    "date": pyarrow.array([datetime.date(2020, 1, 1)] * 2),
    "time": pyarrow.array([1, 2], pyarrow.time64("ns")),
    "timestamp": pyarrow.array([1, 2], pyarrow.timestamp("ns")),
    "zone": pyarrow.array([1, 2], pyarrow.timestamp("ns", "No/Where")),
    "duration": pyarrow.array([1, 2], pyarrow.duration("ns")),
    "dictionary of timestamps": pyarrow.array([1, 2], pyarrow.timestamp("ns")).dictionary_encode(),
    "list": pyarrow.array([[1], [2]]),
    "struct": pyarrow.array([{"a": 1}, {"a": 2}]),
    "map": pyarrow.array([[("a", 1)], []], pyarrow.map_(pyarrow.string(), pyarrow.int32())),
    "uuid": pyarrow.array([b"0" * 16] * 2, pyarrow.uuid()),
}


@pytest.mark.parametrize("name", READ)
def test_types_that_are_read(tmp_path, name):
    values, expected = READ[name]
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"label": ["x", "y"], "text": values}), path)
    assert [text for _, text in read(path)[0]] == expected
    parquet.write_table(pyarrow.table({"text": ["x", "y"], "label": values}), path)
    assert [label for label, _ in read(path)[0]] == [text.strip() for text in expected]


@pytest.mark.parametrize(
    ("name", "column"),
    [(name, column) for name in REFUSED for column in ("label", "text") if (name, column) != ("list", "label")],
)
def test_types_that_are_refused(tmp_path, name, column):
    path, other = tmp_path / "a.parquet", {"label": "text", "text": "label"}[column]
    parquet.write_table(pyarrow.table({column: REFUSED[name], other: ["x", "y"]}), path)
    assert f"the column {column!r} is of type" in refused(path)


def test_a_doubled_column_is_refused_if_it_is_read(tmp_path):
    path = tmp_path / "a.parquet"
    columns = [pyarrow.array(["x"]), pyarrow.array(["y"]), pyarrow.array(["z"])]
    parquet.write_table(pyarrow.Table.from_arrays(columns, ["label", "text", "text"]), path)
    assert "2 columns named 'text'" in refused(path, error=ConfigurationError)
    parquet.write_table(pyarrow.Table.from_arrays(columns, ["text", "label", "a.b"]), path)
    assert read(path, ColumnLayout(texts=("text", "a.b")))[0] == [("y", "x z")]


def repeated(text, rows):
    texts = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * rows, pyarrow.int32()), pyarrow.array([text]))
    labels = pyarrow.array(["a", "b"] * (rows // 2)).dictionary_encode()
    return pyarrow.table({"label": labels, "text": texts})


@pytest.fixture
def little_is_free(monkeypatch):
    """Any file may expand to 4 MiB, in place of 64."""
    monkeypatch.setattr(tally, "FREE_BYTES", tally.FREE_BYTES // 16)


@pytest.mark.usefixtures("little_is_free")
def test_declared_rows_that_the_file_is_too_small_for_are_refused_before_they_are_read(tmp_path):
    path = tmp_path / "a.parquet"
    with parquet.ParquetWriter(path, repeated("a", 2).schema, compression="zstd") as writer:
        for _ in range(4):
            writer.write_table(repeated("some words", 30_000))
    message = refused(path)
    assert "--max-expansion" in message
    assert f"to over {120_000 * 64:,}," in message  # 64 bytes for each declared row
    message = refused(path, bounds=Bounds(max_expansion=10_000, max_rows=9_999))
    assert "over 9,999 rows" in message
    assert "--max-rows" in message


@pytest.mark.usefixtures("little_is_free")
def test_decoded_bytes_are_bounded(tmp_path):
    path = tmp_path / "a.parquet"
    parquet.write_table(repeated("word " * 2000, 2000), path, compression="zstd")
    assert path.stat().st_size < 5000
    assert "--max-expansion" in refused(path)
    assert "--max-text-gib" in refused(path, bounds=Bounds(max_expansion=2**30, max_text_gib=1 / 128))


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "a.parquet"
    parquet.write_table(repeated("a", 2), path)
    whole = path.read_bytes()
    for end in (0, 4, 8, len(whole) // 2, len(whole) - 1):
        assert "Parquet" in refused(write(path, whole[:end]))
