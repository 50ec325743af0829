"""Text of a server: rows as of local files, and only the bytes that are needed."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from object_store import ObjectStore
from web_server import web_server

from distrain.errors import ConfigurationError, DataError
from distrain.remote import ranged_file
from distrain.remote.path import to_path
from distrain.text.readers.columns import ColumnLayout
from distrain.text.readers.input_files import find_files
from distrain.text.readers.sources import read_rows
from distrain.text.readers.tally import Tally

pytestmark = pytest.mark.usefixtures("cache_folder")

CSV = b'label,text\na,"one, two"\nb,three\n'
ROWS = [("a", "one, two"), ("b", "three")]
NAMED = ColumnLayout(label="label", texts=("text",))


def _rows(path: Path, layout: ColumnLayout = NAMED) -> list[tuple[str, str]]:
    return [(row.label, row.text) for row in read_rows(path, layout, Tally())]


def test_formats_are_told_by_name_and_compression_by_content(store: ObjectStore):
    json_lines = b'{"label": "a", "text": "one, two"}\n{"label": "b", "text": "three"}\n'
    for name, content in {"a.csv": CSV, "a.csv.gz": gzip.compress(CSV), "a.jsonl": json_lines}.items():
        assert _rows(to_path(store.put(name, content))) == ROWS


def test_folders_patterns_and_lists_mean_files_in_order(store: ObjectStore):
    urls = [store.put(f"parts/part-{number}.csv", CSV) for number in (1, 0)][::-1]
    store.put("parts/_SUCCESS", b"")
    for given in ("s3://bucket/parts", "s3://bucket/parts/part-?.csv", ",".join(urls)):
        found = find_files([to_path(given)], "--train")
        assert [str(path) for path in found.paths] == urls
        assert found.size == 2 * len(CSV)
    with pytest.raises(DataError, match="fits no file"):
        find_files([to_path("s3://bucket/none-*.csv")], "--train")
    with pytest.raises(ConfigurationError, match=f"names {urls[0]} twice"):
        find_files([to_path("s3://bucket/parts"), to_path(urls[0])], "--train")


def test_a_folder_of_classes(store: ObjectStore):
    for name in ("neg/1.txt", "pos/2.txt"):
        store.put(f"classes/{name}", name.encode())
    (path,) = find_files([to_path("s3://bucket/classes")], "--train").paths
    assert _rows(path, ColumnLayout()) == [("neg", "neg/1.txt"), ("pos", "pos/2.txt")]


def test_damaged_text_is_named_with_its_url_and_row(store: ObjectStore):
    with pytest.raises(DataError, match=r"^s3://bucket/odd.csv, row 2.* has 3 columns"):
        _rows(to_path(store.put("odd.csv", b"label,text\na,b,c\n")))
    with pytest.raises(DataError, match=r"^s3://bucket/cut.csv.gz is compressed and ends too early"):
        _rows(to_path(store.put("cut.csv.gz", gzip.compress(CSV)[:-9])))


def test_only_the_columns_of_a_parquet_file_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import pyarrow
    import pyarrow.parquet

    noise = np.random.default_rng(0).bytes(5 * 2**20)
    table = pyarrow.table(
        {
            "before": [noise[: 5 * 2**19]],
            "label": ["a"],
            "text": ["one two"],
            "after": [noise[5 * 2**19 :]],
        }
    )
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", compression="none")
    content = (tmp_path / "a.parquet").read_bytes()
    monkeypatch.setattr(ranged_file, "BLOCK_BYTES", 2**18)
    with web_server() as server:
        server.files["/a.parquet"] = content
        assert _rows(to_path(server.url("/a.parquet"))) == [("a", "one two")]
        assert server.sent < len(content) / 5


def test_a_parquet_file_that_changes_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import pyarrow
    import pyarrow.parquet

    numbers = np.random.default_rng(0).bytes(4 * 2**20).hex()
    texts = [numbers[start : start + 2**19] for start in range(0, len(numbers), 2**19)]
    table = pyarrow.table({"label": ["a"] * len(texts), "text": texts})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=1, use_dictionary=False)
    monkeypatch.setattr(ranged_file, "MAX_BLOCKS", 1)  # no range reaches far ahead
    with web_server() as server:
        server.files["/a.parquet"] = (tmp_path / "a.parquet").read_bytes()
        rows = read_rows(to_path(server.url("/a.parquet")), NAMED, Tally())
        next(rows)
        server.files["/a.parquet"] += b"x"
        with pytest.raises(DataError, match="changed while it was read"):
            list(rows)
