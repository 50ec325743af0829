"""Files that lie below a folder of files are not read, which a warning says."""

from __future__ import annotations

import pytest

from distrain.formats.file_list import listed


@pytest.fixture
def folder(tmp_path):
    for name in ("a.csv", "2023/b.csv", "2023/notes.txt", "notes/c.txt", ".trash/d.csv", "_old/e.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_a_folder_below_with_such_files_is_named(folder, caplog):
    assert listed(folder, suffixes=(".csv",), kind="CSV files") == [folder / "a.csv"]
    (message,) = caplog.messages
    assert message.startswith(f"{folder / '2023'} holds CSV files too, which are not read.")


def test_both_folders_in_a_list_are_read(folder, caplog):
    found = listed([folder, folder / "2023"], suffixes=(".csv",), kind="CSV files")
    assert [file.name for file in found] == ["a.csv", "b.csv"]
    assert not caplog.messages
