"""CSV and TSV: fields, columns, quotes and the location of a row."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import read, refused, write

from distrain.errors import ConfigurationError
from distrain.text.readers.columns import ColumnLayout
from distrain.text.readers.sources import read_rows
from distrain.text.readers.tally import Tally


def test_csv_without_header_is_label_then_texts(tmp_path):
    path = write(tmp_path / "a.csv", '"3","Title","say ""hi"", twice"\n1,x,"two\nlines"\r\n\n2,,\n')
    rows, tally = read(path)
    assert rows == [("3", 'Title say "hi", twice'), ("1", "x two\nlines"), ("2", " ")]
    assert (tally.rows, tally.empty, tally.num_bytes) == (3, 1, path.stat().st_size)


def test_locations_count_rows_as_people_do(tmp_path):
    path = write(tmp_path / "a.csv", 'label,text\n1,"a\nb"\n\n2,c\n')
    rows = list(read_rows(path, ColumnLayout(label="label"), Tally()))
    assert [(row.row, row.line) for row in rows] == [(2, 2), (3, 5)]
    assert rows[0].location == f"{path}, row 2"
    assert rows[1].location == f"{path}, row 3 (line 5)"


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
        (ColumnLayout(label="kind"), ("A", "7 t b")),
        (ColumnLayout(label="kind", texts=("body",)), ("A", "b")),
        (ColumnLayout(texts=("body", "title")), ("7", "b t")),
        (ColumnLayout(label="2", texts=("title", "3")), ("A", "t b")),
    ],
)
def test_columns_by_name_and_number(tmp_path, layout, expected):
    assert read(write(tmp_path / "a.csv", "id,title,kind,body\n7,t,A,b\n"), layout)[0] == [expected]


def test_columns_by_number_read_no_header(tmp_path):
    path = write(tmp_path / "a.csv", "a,b,c\nd,e,f\n")
    assert read(path, ColumnLayout(label="2", texts=("0",)))[0] == [("c", "a"), ("f", "d")]


def test_column_named_label_is_the_default_with_a_header(tmp_path):
    assert read(write(tmp_path / "a.csv", "text,label\nt,x\n"), ColumnLayout(texts=("text",)))[0] == [("x", "t")]


@pytest.mark.parametrize(
    ("layout", "word"),
    [
        (ColumnLayout(label="nix"), "'title'"),
        (ColumnLayout(label="9"), "2 columns"),
        (ColumnLayout(label="title", texts=("title", "id")), "label and text"),
    ],
)
def test_columns_that_do_not_exist(tmp_path, layout, word):
    assert word in refused(write(tmp_path / "a.csv", "id,title\n1,t\n"), layout, ConfigurationError)


def test_two_columns_of_one_name(tmp_path):
    assert "Rename" in refused(write(tmp_path / "a.csv", "x,x,y\n1,2,3\n"), ColumnLayout(label="x"), ConfigurationError)


def test_tsv_has_no_quotes(tmp_path):
    assert read(write(tmp_path / "a.tsv", '1\t"open\n2\tb "c"\n'))[0] == [("1", '"open'), ("2", 'b "c"')]


def test_escaped_newlines_only_where_asked_for(tmp_path):
    path = write(tmp_path / "a.csv", '1,"good\\nbad"\n')
    assert read(path, ColumnLayout(escaped_newlines=True))[0] == [("1", "good\nbad")]
    assert read(path)[0] == [("1", "good\\nbad")]


def test_fields_over_the_csv_modules_limit_work(tmp_path):
    long = "word " * 100_000
    assert read(write(tmp_path / "a.csv", f'1,"{long}"\n2,b\n'))[0] == [("1", long), ("2", "b")]


def test_an_open_quote_at_the_end_names_its_row(tmp_path):
    message = refused(write(tmp_path / "a.csv", '1,"a\nb"\n2,c\n3,"d\n4,e\n'))
    assert "row 3 (line 4)" in message
    assert "never closed" in message


def test_an_open_quote_in_the_middle_names_its_row(tmp_path):
    assert "row 2" in refused(write(tmp_path / "a.csv", '"1","a"\n"2","b\n"3","c"\n"4","d"\n'))
