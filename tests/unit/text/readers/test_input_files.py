"""Which files a path, a folder, a pattern or a list means, and the choices that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from distrain.errors import ConfigurationError, DataError
from distrain.text.readers.input_files import find_files


@pytest.fixture
def make(tmp_path, monkeypatch):
    """`make(*names)` writes small files into the working folder."""
    monkeypatch.chdir(tmp_path)

    def write(*names):
        for name in names:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text("1,a b\n")

    return write


def found(*given, option="--train"):
    return [str(path) for path in find_files([Path(path) for path in given], option).paths]


def refused(*given, error=DataError, option="--train"):
    with pytest.raises(error) as caught:
        found(*given, option=option)
    return str(caught.value)


def test_given_files_keep_their_order(make):
    make("b.csv", "a.csv")
    assert found("b.csv", "a.csv") == ["b.csv", "a.csv"]
    assert found("missing.csv") == ["missing.csv"]  # its reader says that the file is missing


@pytest.mark.parametrize("given", ["shards", "shards/part-*.csv", "shards/*", "sh?rds/*.csv"])
def test_a_folder_and_a_pattern_come_sorted_by_name(make, given):
    make("shards/part-10.csv", "shards/part-02.csv", "shards/_SUCCESS", "shards/.part-02.csv.crc")
    assert found(given) == ["shards/part-02.csv", "shards/part-10.csv"]


def test_an_absolute_pattern(make, tmp_path):
    make("shards/b.csv", "shards/a.csv")
    assert found(f"{tmp_path}/shards/*.csv") == [f"{tmp_path}/shards/a.csv", f"{tmp_path}/shards/b.csv"]


def test_folders_that_a_pattern_names_are_read_whole(make):
    make("2024/b.csv", "2024/a.csv", "2023/c.csv")
    assert found("20*") == ["2023/c.csv", "2024/a.csv", "2024/b.csv"]


def test_commas_separate_files_unless_a_file_has_the_name(make):
    make("a.csv", "b.csv", "shards/c.csv")
    assert found("b.csv,a.csv,shards/*.csv") == ["b.csv", "a.csv", "shards/c.csv"]
    make("b.csv,a.csv")
    assert found("b.csv,a.csv") == ["b.csv,a.csv"]
    message = refused("a.csv,missing.csv")
    assert "it names missing.csv, which does not exist" in message
    assert "--train once for each file" in message


def test_compressed_files_are_of_their_kind(make):
    make("shards/a.csv.gz", "shards/b.csv.zst", "shards/c.CSV")
    assert found("shards") == ["shards/a.csv.gz", "shards/b.csv.zst", "shards/c.CSV"]


def test_a_name_that_holds_the_characters_of_a_pattern(make):
    make("a[1].csv", "a1.csv")
    assert found("a[1].csv") == ["a[1].csv"]


def test_a_folder_of_classes_is_one_input(make):
    make("reviews/pos/1.txt", "reviews/neg/1.txt", "reviews/README")
    assert found("reviews") == ["reviews"]
    assert find_files([Path("reviews")], "--train").notes == ()
    make("reviews/all.csv")
    assert "all.csv beside them is left out" in find_files([Path("reviews")], "--train").notes[0]


def test_a_folder_of_metadata_is_no_class(make):
    make("table/part-0.parquet", "table/_log/0.json")
    assert found("table") == ["table/part-0.parquet"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["shards/a.csv", "shards/README.md"], ["a.csv and README.md", "different kinds", "'shards/*.csv'"]),
        (["shards/a.csv", "shards/b.tsv"], ["a.csv and b.tsv", "different kinds"]),
        (["shards/a.txt"], ["without folders in it", ".parquet", "'shards/*'"]),
        (["shards/train-00000-of-00002.parquet", "shards/test-00000-of-00001.parquet"], ["'shards/train*'"]),
        (["shards/train.csv", "shards/validation.csv"], ["train.csv and validation.csv", "must not be tested on"]),
    ],
)
def test_folders_that_are_refused(make, names, words):
    make(*names)
    message = refused("shards")
    assert all(word in message for word in words), message


def test_the_test_part_of_a_folder_of_both(make):
    make("shards/train-0.csv", "shards/test-0.csv", "shards/trainers.csv")
    assert "--test 'shards/test*'" in refused("shards", option="--test")


def test_a_pattern_without_files(make):
    assert "--train nothing-*.csv fits no file" in refused("nothing-*.csv")
    assert "fits no file" in refused("**nothing")


def test_a_file_counts_once(make):
    make("shards/a.csv", "shards/b.csv")
    message = refused("shards", "shards/../shards/b.csv", error=ConfigurationError)
    assert "would count twice" in message
