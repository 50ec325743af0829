"""Text in several files gives the bytes of the joined file, or is refused by the name of a file."""

from __future__ import annotations

import csv
import gzip
import json

import pytest
import zstandard
from prepared_data import Result, fails, rows, tree, write_csv
from rich.console import Console
from threads_as_processes import on_all

from distrain.cluster.error_relay import ErrorRelay
from distrain.config import PrepareConfig
from distrain.errors import ConfigurationError, DataError
from distrain.prepare.pipeline import prepare


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """By vectorizer the files of the data set of `rows(100)` in one file."""
    kinds = ("ngram", "sequence")
    return {kind: joined(tmp_path_factory.mktemp(kind), rows(100), vectorizer=kind) for kind in kinds}


def joined(folder, table, **settings):
    """The files of the data set of one file that holds all rows."""
    Result(train=write_csv(folder / "joined.csv", table), out=folder / "joined", **settings)
    return tree(folder / "joined")


def with_header(path, table, *, swapped=False):
    header, table = ("label", "text"), list(table)
    if swapped:
        header, table = ("text", "label"), [row[::-1] for row in table]
    return write_csv(path, [header, *table])


def write_json(path, table):
    path.write_text("".join(json.dumps({"label": label, "text": text}) + "\n" for label, text in table))
    return path


def shards_of(folder, table, write=write_csv, count=3, suffix="csv"):
    folder.mkdir()
    size = -(-len(table) // count)
    return [
        write(folder / f"part-{number:05}.{suffix}", table[number * size : (number + 1) * size])
        for number in range(count)
    ]


@pytest.mark.parametrize("vectorizer", ["ngram", "sequence"])
@pytest.mark.parametrize("size", [1, 2, 3])
def test_any_number_of_processes_gives_the_bytes_of_the_joined_file(tmp_path, whole, vectorizer, size):
    shards_of(tmp_path / "shards", rows(100), count=7)
    config = PrepareConfig(train=tmp_path / "shards", out=tmp_path / "out", vectorizer=vectorizer)
    results = on_all(size, lambda process: prepare(config, console=Console(quiet=True), group=ErrorRelay(process)))
    assert results == [None] * size, results
    assert tree(tmp_path / "out") == whole[vectorizer]


def test_repeated_options_a_pattern_and_a_test_part(tmp_path):
    table, test = rows(60), rows(40)[10:]
    joined_test = write_csv(tmp_path / "joined-test.csv", test)
    expected = joined(tmp_path, table, test=joined_test)
    parts, tests = shards_of(tmp_path / "a", table), shards_of(tmp_path / "b", test)
    Result(train=parts, test=tests, out=tmp_path / "one")
    Result(train=tmp_path / "a/part-*.csv", test=[tmp_path / "b"], out=tmp_path / "two")
    assert tree(tmp_path / "one") == tree(tmp_path / "two") == expected
    Result(train=parts[::-1], test=tests, out=tmp_path / "three")
    assert tree(tmp_path / "three") != expected


def test_formats_mix_and_each_file_has_its_header(tmp_path):
    table = rows(60)
    expected = joined(tmp_path, table)
    files = [
        with_header(tmp_path / "a.csv", table[:20]),
        with_header(tmp_path / "b.csv", table[20:40], swapped=True),
        write_json(tmp_path / "c.jsonl", table[40:50]),
        tmp_path / "d.tsv.gz",
        tmp_path / "e.jsonl.zst",
    ]
    lines = ["label\ttext", *("\t".join(row) for row in table[50:55])]
    files[3].write_bytes(gzip.compress("\n".join(lines).encode()))
    files[4].write_bytes(zstandard.compress(write_json(tmp_path / "e.jsonl", table[55:]).read_bytes()))
    Result(train=files, out=tmp_path / "out", label_column="label", text_columns=("text",))
    assert tree(tmp_path / "out") == expected


def test_parquet_shards(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    def write(path, table):
        labels, texts = zip(*table, strict=True)
        parquet.write_table(pyarrow.table({"label": labels, "text": texts}), path)
        return path

    table = rows(60)
    expected = joined(tmp_path, table)
    folder = tmp_path / "hub"
    folder.mkdir()
    for number in range(3):
        write(folder / f"train-{number:05}-of-00003.parquet", table[number * 20 : number * 20 + 20])
    Result(train=folder, out=tmp_path / "out")
    assert tree(tmp_path / "out") == expected
    folder.joinpath("train-00001-of-00003.parquet").rename(folder / "part.csv")
    fails(DataError, "is a Parquet file", train=folder / "part.csv", out=tmp_path / "out")


def test_empty_files_among_others(tmp_path, caplog):
    table = rows(40)
    expected = joined(tmp_path, table)
    parts = shards_of(tmp_path / "shards", table, count=2)
    (tmp_path / "shards" / "part-00000a.csv").write_text("")
    Result(train=tmp_path / "shards", out=tmp_path / "out")
    assert tree(tmp_path / "out") == expected
    assert "1 of 3 files hold no rows" in caplog.text
    for path in parts:
        path.write_text("")
    fails(DataError, "holds no rows", train=tmp_path / "shards", out=tmp_path / "out2")
    for path in parts:
        with_header(path, [])
    fails(DataError, "header but no rows", train=parts, label_column="label", out=tmp_path / "out2")


def test_a_wrong_row_is_named_by_its_file_and_row(tmp_path, caplog):
    parts = shards_of(tmp_path / "shards", rows(40), count=2)
    with parts[1].open("ab") as file:
        file.write(b"art,\xff\n")
    Result(train=parts, out=tmp_path / "out")
    assert f"1 line with bytes that are not UTF-8, replaced by U+FFFD; the first: {parts[1]}, line 21" in caplog.text
    with parts[1].open("a", newline="") as file:
        csv.writer(file).writerow(("", "no label"))
    fails(DataError, f"{parts[1]}, row 22: the label is missing", train=parts, out=tmp_path / "other")


@pytest.mark.parametrize(
    ("second", "settings", "words"),
    [
        ("sport,a,b\n", {}, ["b.csv has 3 columns", "a.csv has 2"]),
        ("sport\n", {}, ["b.csv, row 1 has only one column"]),
        ("label,title\nsport,a b\n", {"label_column": "label"}, ["'title'", "'text'", "--text-columns"]),
        ("label,text,more\nsport,a,b\n", {"label_column": "label"}, ["2 columns of text"]),
        ("kind,text\nsport,a\n", {"label_column": "label"}, ["b.csv has no column 'label'"]),
    ],
)
def test_files_with_other_columns_are_refused_before_reading(tmp_path, second, settings, words):
    first = with_header(tmp_path / "a.csv", rows(30)) if settings else write_csv(tmp_path / "a.csv", rows(30))
    (tmp_path / "b.csv").write_text(second)
    error = ConfigurationError if "no column" in words[0] else DataError
    fails(error, *words, train=[first, tmp_path / "b.csv"], out=tmp_path / "out", **settings)


def test_csv_and_json_lines_need_equally_many_texts(tmp_path):
    first = write_csv(tmp_path / "a.csv", [(label, "title", text) for label, text in rows(30)])
    second = write_json(tmp_path / "b.jsonl", rows(10))
    fails(DataError, "b.jsonl has 1 columns of text", train=[first, second], out=tmp_path / "out")


def test_headers_that_nobody_announced(tmp_path, caplog):
    files = [with_header(tmp_path / name, rows(30)) for name in ("a.csv", "b.csv")]
    Result(train=files, out=tmp_path / "out")
    assert "Each of 2 files begins with the row 'label', 'text'. If this row is a header" in caplog.text


def test_text_of_both_parts_is_told(tmp_path, caplog):
    parts = shards_of(tmp_path / "shards", rows(60))
    Result(train=parts, test=parts[2], out=tmp_path / "out")
    assert f"{parts[2]} is training text and test text" in caplog.text


def test_a_file_given_twice(tmp_path):
    part = write_csv(tmp_path / "a.csv", rows(30))
    fails(ConfigurationError, "would count twice", train=[part, part], out=tmp_path / "out")


def test_out_inside_a_folder_of_files(tmp_path):
    shards_of(tmp_path / "shards", rows(30))
    fails(ConfigurationError, "lies inside the input", train=tmp_path / "shards", out=tmp_path / "shards" / "out")
