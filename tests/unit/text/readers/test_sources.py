"""Every format and every kind of damage, against texts written by other means than ours."""

import csv
import gzip
import io
import json
import tempfile
import tracemalloc
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from distrain.errors import ConfigurationError, DataError
from distrain.text.readers import lines
from distrain.text.readers.columns import Layout
from distrain.text.readers.lines import Tally
from distrain.text.readers.sources import read_blocks, read_rows
from distrain.text.readers.texts import Texts
from distrain.text.vectorizers.tokenizer import WordTable

PLAIN = Layout()


def read(path, layout=PLAIN, **limits):
    tally = Tally()
    return [(row.label, row.text) for row in read_rows(path, layout, tally, **limits)], tally


def refused(path, layout=PLAIN, error=DataError, **limits):
    with pytest.raises(error) as caught:
        read(path, layout, **limits)
    assert str(path) in str(caught.value)
    return str(caught.value)


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_csv_without_header_is_label_then_texts(tmp_path):
    path = write(tmp_path / "a.csv", '"3","Title","say ""hi"", twice"\n1,x,"two\nlines"\r\n\n2,,\n')
    rows, tally = read(path)
    assert rows == [("3", 'Title say "hi", twice'), ("1", "x two\nlines"), ("2", " ")]
    assert (tally.rows, tally.empty, tally.num_bytes) == (3, 1, path.stat().st_size)


def test_places_count_rows_as_people_do(tmp_path):
    path = write(tmp_path / "a.csv", 'label,text\n1,"a\nb"\n\n2,c\n')
    rows = list(read_rows(path, Layout(label="label"), Tally()))
    assert [(row.row, row.line) for row in rows] == [(2, 2), (3, 5)]
    assert rows[0].place == f"{path}, row 2"
    assert rows[1].place == f"{path}, row 3 (line 5)"


# The csv module writes; no NUL (we mend it), no lone surrogates (not UTF-8).
fields = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(fields, fields, fields), min_size=1, max_size=6))
def test_csv_reads_what_the_csv_module_wrote(tmp_path_factory, table):
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL, lineterminator="\r\n").writerows(table)
    path = write(tmp_path_factory.getbasetemp() / "hypothesis.csv", text.getvalue())
    assert read(path)[0] == [(label.strip(), f"{one} {two}") for label, one, two in table]


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        (Layout(label="kind"), ("A", "7 t b")),
        (Layout(label="kind", texts=("body",)), ("A", "b")),
        (Layout(texts=("body", "title")), ("7", "b t")),
        (Layout(label="2", texts=("title", "3")), ("A", "t b")),
    ],
)
def test_columns_by_name_and_number(tmp_path, layout, expected):
    assert read(write(tmp_path / "a.csv", "id,title,kind,body\n7,t,A,b\n"), layout)[0] == [expected]


def test_columns_by_number_read_no_header(tmp_path):
    path = write(tmp_path / "a.csv", "a,b,c\nd,e,f\n")
    assert read(path, Layout(label="2", texts=("0",)))[0] == [("c", "a"), ("f", "d")]


def test_column_named_label_is_the_default_with_a_header(tmp_path):
    assert read(write(tmp_path / "a.csv", "text,label\nt,x\n"), Layout(texts=("text",)))[0] == [("x", "t")]


@pytest.mark.parametrize(
    ("layout", "word"),
    [
        (Layout(label="nix"), "'title'"),
        (Layout(label="9"), "2 columns"),
        (Layout(label="title", texts=("title", "id")), "label and text"),
    ],
)
def test_columns_that_do_not_exist(tmp_path, layout, word):
    assert word in refused(write(tmp_path / "a.csv", "id,title\n1,t\n"), layout, ConfigurationError)


def test_two_columns_of_one_name(tmp_path):
    assert "Rename" in refused(write(tmp_path / "a.csv", "x,x,y\n1,2,3\n"), Layout(label="x"), ConfigurationError)


def test_tsv_has_no_quotes(tmp_path):
    assert read(write(tmp_path / "a.tsv", '1\t"open\n2\tb "c"\n'))[0] == [("1", '"open'), ("2", 'b "c"')]


def test_escaped_newlines_only_where_asked_for(tmp_path):
    path = write(tmp_path / "a.csv", '1,"good\\nbad"\n')
    assert read(path, Layout(escaped_newlines=True))[0] == [("1", "good\nbad")]
    assert read(path)[0] == [("1", "good\\nbad")]


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


def test_folder_per_class_is_sorted(tmp_path):
    for name, text in {
        "pos/2.txt": "two",
        "pos/10.txt": "ten",
        "neg/1.txt": "one\n",
        "unsup/3.txt": "u",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, text)
    write(tmp_path / "README", "not a class")
    (tmp_path / "pos" / ".hidden").write_text("no")
    rows, tally = read(tmp_path)
    assert rows == [("neg", "one\n"), ("pos", "ten"), ("pos", "two")]
    assert "unsup" in tally.sentences(tmp_path)[0]
    (tmp_path / "neg" / "deeper").mkdir()
    assert "aclImdb/train" in refused(tmp_path)


def compressed(name, content):
    return gzip.compress(content) if name == "gz" else zstandard.ZstdCompressor().compress(content)


@pytest.mark.parametrize("name", ["gz", "zst"])
def test_compression_is_known_by_the_first_bytes(tmp_path, name):
    content = "".join(f"{n % 3},text {n}\n" for n in range(5000)).encode()
    expected = read(write(tmp_path / "plain.csv", content))[0]
    half = content.index(b"\n", len(content) // 2) + 1
    parts = compressed(name, content[:half]) + compressed(name, content[half:])
    assert read(write(tmp_path / f"a.csv.{name}", parts))[0] == expected
    assert read(write(tmp_path / "misnamed.csv", compressed(name, content)))[0] == expected
    assert read(write(tmp_path / f"plain.csv.{name}", content))[0] == expected


@pytest.mark.parametrize("name", ["gz", "zst"])
def test_compressed_files_that_are_cut_or_changed(tmp_path, name):
    content = "".join(f"1,text {n * 7919 % 10007}\n" for n in range(5000)).encode()
    whole = compressed(name, content)
    for cut in (len(whole) // 2, len(whole) - 1, 20):
        assert "ends too early" in refused(write(tmp_path / f"cut.csv.{name}", whole[:cut]))
    changed = bytearray(whole)
    changed[len(whole) // 2 : len(whole) // 2 + 40] = b"\xff" * 40
    refused(write(tmp_path / f"changed.csv.{name}", bytes(changed)))


def test_bom_nul_and_bytes_that_are_not_utf8(tmp_path):
    path = write(tmp_path / "a.csv", b"\xef\xbb\xbf1,a\xff\n2,b\0c\n3,\xc3\xa4\n4,\xe2\x82\n")
    rows, tally = read(path)
    assert rows == [("1", "a\ufffd"), ("2", "b c"), ("3", "ä"), ("4", "\ufffd")]
    invalid, nul = tally.sentences(path)
    assert "2 lines" in invalid
    assert "line 1" in invalid
    assert "1 line " in nul
    assert "line 2" in nul


def test_fields_over_the_csv_modules_limit_work(tmp_path):
    long = "word " * 100_000
    assert read(write(tmp_path / "a.csv", f'1,"{long}"\n2,b\n'))[0] == [("1", long), ("2", "b")]


def test_an_open_quote_at_the_end_names_its_row(tmp_path):
    message = refused(write(tmp_path / "a.csv", '1,"a\nb"\n2,c\n3,"d\n4,e\n'))
    assert "row 3 (line 4)" in message
    assert "never closed" in message


def test_an_open_quote_in_the_middle_names_its_row(tmp_path):
    assert "row 2" in refused(write(tmp_path / "a.csv", '"1","a"\n"2","b\n"3","c"\n"4","d"\n'))


def peak_while(function):
    tracemalloc.start()
    try:
        result = function()
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_an_open_quote_does_not_read_the_whole_file(tmp_path):
    path = tmp_path / "a.csv.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b'1,a\n2,"open\n')
        for _ in range(64):
            file.write(b"3,more text\n" * 90_000)  # 65 MB in all
    message, peak = peak_while(lambda: refused(path, max_row_bytes=2**20))
    assert "row 2" in message
    assert "1 MiB" in message
    assert peak < 20 * 2**20


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_line_without_end_does_not_fill_memory(tmp_path, name):
    path = write(tmp_path / name, gzip.compress(b"1," + b"x" * 2**26))
    message, peak = peak_while(lambda: refused(path, max_row_bytes=2**20))
    assert "line 1" in message
    assert peak < 20 * 2**20


def test_a_zstd_bomb_does_not_fill_memory(tmp_path):
    path = write(tmp_path / "a.csv", zstandard.ZstdCompressor().compress(b"1," + b"x" * 2**28))
    message, peak = peak_while(lambda: refused(path, max_row_bytes=2**20))
    assert "line 1" in message
    assert peak < 100 * 2**20


def test_the_limit_is_one_rows_not_the_files(tmp_path):
    path = write(tmp_path / "a.csv", "1,some text\n" * 1000)
    assert len(read(path, max_row_bytes=100)[0]) == 1000


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("1,a\n2,b,c\n", ["row 2", "3 columns", "has 2"]),
        ("1,a\n2\n", ["row 2", "1 column,", "has 2"]),
        ("1\n2\n", ["only one column"]),
        ("1,a\r2,b\r", ["row 1", "carriage return"]),
        ('1,"a"b\n', ["row 1", "doubled"]),
        ("", ["no rows"]),
        ("\n\n", ["no rows"]),
        (b"PK\x03\x04rest", ["zip"]),
        ("1,a\n".encode("utf-16"), ["UTF-16"]),
        (gzip.compress(b""), ["no rows"]),
    ],
)
def test_files_that_are_wrong(tmp_path, content, words):
    message = refused(write(tmp_path / "a.csv", content))
    assert all(word in message for word in words), message


def test_a_header_alone(tmp_path):
    assert "header but no rows" in refused(write(tmp_path / "a.csv", "label,text\n"), Layout(label="label"))


def test_paths_that_are_wrong(tmp_path):
    assert "does not exist" in refused(tmp_path / "missing.csv")
    (tmp_path / "folder.csv").mkdir()
    assert "folder without folders" in refused(tmp_path / "folder.csv")
    assert "neither a file nor a folder" in refused(Path("/dev/null"))


def seen_by_row(path, layout, limit):
    """What the csv module's rows hold, and the error that ends them."""
    tally, seen, table = Tally(), [], WordTable()
    try:
        for row in read_rows(path, layout, tally, max_row_bytes=limit):
            _, ids = table.rows(Texts.of([row.text]), add=True)
            seen.append((row.label, ids.tolist(), row.place, row.text == "" or row.text.isspace()))
    except (DataError, ConfigurationError) as error:
        return seen, str(error), tally
    return seen, None, tally


def seen_by_block(path, layout, limit):
    """The same of blocks."""
    tally, seen, table = Tally(), [], WordTable()
    try:
        for block in read_blocks(path, layout, tally, max_row_bytes=limit):
            splits, ids = table.rows(block.texts, add=True)
            for row in range(block.texts.num_rows):
                words = ids[splits[row] : splits[row + 1]].tolist()
                seen.append((block.labels[block.label_of[row]], words, block.place(row), row in block.empty))
    except (DataError, ConfigurationError) as error:
        return seen, str(error), tally
    return seen, None, tally


plain_pieces = ["1", "2", " 3 ", "label", "text", "a longer label", "some words", "the Café", "ΟΔΟΣ", "x\\nab", "中文"]
hard_pieces = [",", ",", '"', '""', '","', "\t", "\n", "\n", "\r\n", "\r", "\0", " ", "\u00a0", "\udcff"]
whole_rows = ["1,some words\n", '"2","Title","Text, ""of"" it"\n', "1\ttext\n"]
pieces = st.sampled_from([*plain_pieces, *hard_pieces, *whole_rows])


@settings(max_examples=400, deadline=None)
@given(
    st.lists(pieces, min_size=1, max_size=25).map("".join),
    st.sampled_from(
        [PLAIN, Layout(label="label"), Layout(label="1", texts=("0",), escaped_newlines=True), Layout("2")]
    ),
    st.sampled_from(["a.csv", "a.tsv"]),
    st.sampled_from([4, 30, 2**20]),
    st.sampled_from([60, 2**26]),
)
def test_blocks_hold_what_rows_hold(text, layout, name, piece, limit):
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = write(Path(folder) / name, text.encode(errors="surrogateescape"))
        rows, error, tally = seen_by_row(path, layout, limit)
        patch.setattr(lines, "PIECE_BYTES", piece)
        block_rows, block_error, block_tally = seen_by_block(path, layout, limit)
    # A block is handed on only when it is whole, so that an error may come before the rows in front of it.
    assert block_rows == rows if error is None else block_rows == rows[: len(block_rows)]
    assert block_error == error
    if error is None:
        assert block_tally.sentences(path) == tally.sentences(path)
        assert (block_tally.rows, block_tally.num_bytes) == (tally.rows, tally.num_bytes)
