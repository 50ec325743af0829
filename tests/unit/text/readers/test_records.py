"""JSON Lines and Parquet."""

from __future__ import annotations

import json

import pytest
from reading import read, refused, write

from distrain.errors import ConfigurationError
from distrain.text.readers.columns import Layout


def test_json_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    records = [
        {"label": "x", "text": "héllo\nworld"},
        {"text": None, "label": 3},
        {"label": True, "text": 2.0, "more": [1]},
    ]
    write(path, "\n\n".join(json.dumps(record) for record in records))
    assert read(path)[0] == [("x", "héllo\nworld"), ("3", ""), ("true", "2")]
    assert read(path, Layout(label="text", texts=("label",)))[0][0] == ("héllo\nworld", "x")


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ('{"label": 1', "not JSON"),
        ("[1]", "list"),
        ('{"label": 1}', "'text'"),
        ('{"label": 1, "text": {}}', "dict"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_json_lines_that_are_wrong_name_the_row(tmp_path, line, word):
    message = refused(write(tmp_path / "a.jsonl", '{"label": 1, "text": "a"}\n' + line + "\n"))
    assert "row 2" in message
    assert word in message


def test_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    texts = ["héllo", None, "c"] * 3000
    labels = pyarrow.array(["x", "y", "z"] * 3000).dictionary_encode()
    parquet.write_table(pyarrow.table({"label": labels, "text": texts, "n": range(9000)}), path)
    rows, tally = read(path)
    assert rows == [("x", "héllo"), ("y", ""), ("z", "c")] * 3000
    assert tally.empty == 3000
    assert 0.9 * path.stat().st_size < tally.num_bytes <= path.stat().st_size
    assert read(path, Layout(label="n", texts=("label", "text")))[0][:2] == [("0", "x héllo"), ("1", "y ")]
    assert "'label', 'text', 'n'" in refused(path, Layout(label="no"), ConfigurationError)
    assert "Parquet" in refused(write(tmp_path / "cut.parquet", path.read_bytes()[:-100]))


def test_parquet_that_is_not_utf8_is_mended(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"label": ["1"], "text": pyarrow.array([b"a\xffb"]).view("string")}), path)
    rows, tally = read(path)
    assert rows == [("1", "a\ufffdb")]
    assert tally.invalid == 1
