"""The folder of a data set: never half written, and nothing else in it is lost."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from prepared_data import Result, fails, rows, tree, write_csv

from distrain.errors import ConfigurationError, DataError
from distrain.files import swap_folder
from distrain.prepare import staging


def test_who_may_read_one_file_may_read_all(tmp_path):
    """Another user may train on the data set, such as the user of a container."""
    Result(train=write_csv(tmp_path / "a.csv", rows(30)), out=tmp_path / "out")
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len({path.stat().st_mode for path in [tmp_path / "a.csv", *files]}) == 1


def test_an_error_late_in_the_test_rows_leaves_nothing(tmp_path):
    train = write_csv(tmp_path / "a.csv", rows(30))
    test = write_csv(tmp_path / "b.csv", [*rows(30), ("art", "too", "many")])
    fails(DataError, "row 31", "3 columns", train=train, test=test, out=tmp_path / "out")


@pytest.mark.parametrize("vectorizer", ["ngram", "sequence"])
def test_no_temporary_file_is_open_when_its_folder_is_removed(vectorizer, tmp_path, monkeypatch):
    """NFS and FUSE keep a removed file until it is closed, so its folder would stay beside the data set."""
    open_files = []

    def watched_swap(new, out, **names):
        mapped = [
            line.split(maxsplit=5)[5].strip()
            for line in Path("/proc/self/maps").read_text().splitlines()
            if line.count("/")
        ]
        held = [str(entry.resolve()) for entry in Path("/proc/self/fd").iterdir() if entry.exists()]
        open_files.extend(path for path in {*mapped, *held} if path.startswith(f"{new.parent}/"))
        swap_folder(new, out, **names)
        swapped.append(out)

    swapped = []
    monkeypatch.setattr(staging, "swap_folder", watched_swap)
    Result(train=write_csv(tmp_path / "a.csv", rows(30)), out=tmp_path / "out", vectorizer=vectorizer)
    assert swapped == [tmp_path / "out"]
    assert open_files == []


def test_what_out_holds_is_not_lost(tmp_path):
    train = write_csv(tmp_path / "a.csv", rows(40))
    out = tmp_path / "out"
    out.mkdir()
    Result(train=train, out=out)
    (out / "thesis.tex").write_text("precious")
    before = tree(out)
    fails(ConfigurationError, "'thesis.tex'", train=train, out=out)
    assert tree(out) == before
    (out / "thesis.tex").unlink()
    (out / "dataset.json").unlink()
    fails(ConfigurationError, "parts of a data set", train=train, out=out)
    fails(ConfigurationError, "is a file", train=train, out=train)


def test_a_failed_prepare_keeps_the_older_data(tmp_path):
    out = tmp_path / "out"
    Result(train=write_csv(tmp_path / "a.csv", rows(40)), out=out)
    before = tree(out)
    fails(DataError, "row 41", train=write_csv(tmp_path / "b.csv", [*rows(40), ("", "no label")]), out=out)
    assert tree(out) == before


@pytest.fixture
def nobody(tmp_path):
    """Go on as a user who may not write everywhere, where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    for folder in (tmp_path, *tmp_path.parents):
        if folder.is_relative_to(tempfile.gettempdir()) and folder != Path(tempfile.gettempdir()):
            folder.chmod(0o755)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def locked(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    write_csv(tmp_path / "a.csv", rows(40))
    return folder


def test_a_folder_that_cannot_be_written(locked, nobody):
    fails(ConfigurationError, "Permission denied", train=locked.parent / "a.csv", out=locked / "out")


def test_a_stop_between_the_renames_is_undone(tmp_path):
    train, out = write_csv(tmp_path / "a.csv", rows(40)), tmp_path / "out"
    Result(train=train, out=out)
    before = tree(out)
    (tmp_path / ".out.preparing").mkdir()
    shutil.move(out, tmp_path / ".out.preparing" / "old")
    bad = write_csv(tmp_path / "b.csv", [*rows(40), ("", "no label")])
    with pytest.raises(DataError):
        Result(train=bad, out=out)
    assert tree(out) == before
