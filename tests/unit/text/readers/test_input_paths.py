"""Folders of classes, and files and paths that are refused."""

from __future__ import annotations

import gzip
import os
from pathlib import Path

import pytest
from reading import read, refused, write

from distrain.text.readers.columns import ColumnLayout


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


def test_no_text_of_a_folder_is_lost_or_counted_twice(tmp_path):
    for name in ("pos", "neg", "none"):
        (tmp_path / name).mkdir()
    write(tmp_path / "pos/1.txt", "one")
    write(tmp_path / "neg/1.txt", "two")
    rows, tally = read(tmp_path)
    assert rows == [("neg", "two"), ("pos", "one")]
    assert tally.sentences(tmp_path) == [f"{tmp_path / 'none'} holds no texts, so 'none' is no class."]
    (tmp_path / "good").symlink_to(tmp_path / "pos")
    assert f"{tmp_path / 'pos'} is a link to {tmp_path / 'good'}" in refused(tmp_path)
    (tmp_path / "good").unlink()
    (tmp_path / "pos/2.txt").symlink_to("gone.txt")
    assert "2.txt is a link to nothing. Restore" in refused(tmp_path)
    (tmp_path / "pos/2.txt").unlink()
    os.mkfifo(tmp_path / "pos/3.txt")
    assert "3.txt is neither a file nor a folder. Restore" in refused(tmp_path)


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
        (gzip.compress(b"", mtime=0), ["no rows"]),
    ],
)
def test_files_that_are_wrong(tmp_path, content, words):
    message = refused(write(tmp_path / "a.csv", content))
    assert all(word in message for word in words), message


def test_a_header_alone(tmp_path):
    assert "header but no rows" in refused(write(tmp_path / "a.csv", "label,text\n"), ColumnLayout(label="label"))


def test_paths_that_are_wrong(tmp_path):
    assert "does not exist" in refused(tmp_path / "missing.csv")
    (tmp_path / "folder.csv").mkdir()
    assert "folder without folders" in refused(tmp_path / "folder.csv")
    assert "neither a file nor a folder" in refused(Path("/dev/null"))
