"""JSON Lines."""

from __future__ import annotations

import json

import pytest
from reading import read, refused, write

from distrain.text.readers.columns import ColumnLayout


def test_json_lines(tmp_path):
    path = tmp_path / "a.jsonl"
    records = [
        {"label": "x", "text": "héllo\nworld"},
        {"text": None, "label": 3},
        {"label": True, "text": 2.0, "more": [1]},
    ]
    write(path, "\n\n".join(json.dumps(record) for record in records))
    assert read(path)[0] == [("x", "héllo\nworld"), ("3", ""), ("true", "2")]
    assert read(path, ColumnLayout(label="text", texts=("label",)))[0][0] == ("héllo\nworld", "x")


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


def test_values_of_json_are_read_exactly_or_refused(tmp_path):
    def line(label, text='"a"'):
        return write(tmp_path / "a.jsonl", f'{{"label": {label}, "text": {text}}}\n')

    for label, expected in [
        ("9007199254740993", "9007199254740993"),
        (str(10**40), str(10**40)),
        ("2.0", "2"),
        ("0.1", "0.1"),
        ('"a\\u0000b"', "a b"),
        ('"\\ud83d\\ude00"', "\U0001f600"),
    ]:
        assert read(line(label))[0] == [(expected, "a")]
    for label in ("9007199254740993.0", "1e30", "Infinity", "-Infinity", "1e999"):
        assert "below 2^53" in refused(line(label))
    for text, expected in [("NaN", ""), ("null", ""), ("1e30", "1e+30"), ("Infinity", "inf")]:
        assert read(line(1, text))[0] == [("1", expected)]
    assert "4300 digits" in refused(line("1" * 5000))
    assert "one name twice: 'label'" in refused(line('1, "label": 2'))
    assert "one name twice" in refused(line(1, '"a", "more": {"a": 1, "a": 2}'))


def test_nul_is_no_part_of_a_class_whatever_the_format(tmp_path):
    for path, content in [
        (tmp_path / "a.jsonl", '{"label": "a\\u0000", "text": "b\\u0000c"}\n'),
        (tmp_path / "a.csv", "a\0,b\0c\n"),
    ]:
        rows, tally = read(write(path, content))
        assert rows == [("a", "b c")]
        assert tally.nul
