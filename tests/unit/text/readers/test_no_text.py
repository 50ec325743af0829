"""Pictures, sounds and other files that are no text never become rows of text; text of any script still does."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from distrain.errors import DataError
from distrain.text.readers.columns import ColumnLayout
from distrain.text.readers.input_files import find_files
from distrain.text.readers.sources import read_blocks, read_rows
from distrain.text.readers.tally import Tally


def picture(kind):
    file = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(file, kind)
    return file.getvalue()


def array():
    file = io.BytesIO()
    np.save(file, np.zeros(3))
    return file.getvalue()


KINDS = {
    "a picture": [picture(kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")],
    "a sound": [b"RIFF\0\0\0\0WAVEfmt ", b"ID3\x03\0\0\0", b"OggS\0\x02"],
    "a PDF document": [b"%PDF-1.7\n%..."],
    "a file of arrays": [array(), b"\x89HDF\r\n\x1a\n\0"],
}
CONTENTS = [(kind, content) for kind, contents in KINDS.items() for content in contents]


def rows_of(path):
    found = find_files([path], "--train")
    return [row for one in found.paths for row in read_rows(one, ColumnLayout(), Tally())]


@pytest.mark.parametrize(("kind", "content"), CONTENTS)
def test_the_first_bytes_tell_a_file_that_is_no_text(tmp_path, kind, content):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/1").write_bytes(content)
    for path in (tmp_path, tmp_path / "cat/1"):
        with pytest.raises(DataError, match=f"cat/1 is {kind}, no text"):
            rows_of(path)
        with pytest.raises(DataError, match=f"cat/1 is {kind}, no text"):
            list(read_blocks(path, ColumnLayout(), Tally()))


@pytest.mark.parametrize("name", ["1.jpg", "1.PNG", "1.wav", "1.mp4", "1.pdf", "1.docx", "1.npy", "1.parquet", "1.tar"])
def test_the_names_of_a_folder_tell_as_well(tmp_path, name):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / name).write_text("no such content")
    with pytest.raises(DataError, match="no text") as raised:
        rows_of(tmp_path)
    assert ("distrain.formats.images" in str(raised.value)) == name.lower().endswith(("jpg", "png"))
    if name != "1.parquet":
        with pytest.raises(DataError, match=f"{name} is .*, no text"):
            rows_of(tmp_path / "cat")


def test_nul_bytes_in_a_folder_are_no_text(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/1.dat").write_bytes(b"abc\0\1\2")
    with pytest.raises(DataError, match=r"cat/1\.dat is a file with NUL bytes, no text"):
        rows_of(tmp_path)


@pytest.mark.parametrize(
    "text", ["BMW is a car", "MMA and more", "ID3 tags", "GIF89 what?", "Rar! Fine.", "%PDF is a sign"]
)
def test_text_that_begins_alike_is_text(tmp_path, text):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat/1.txt").write_text(text)
    assert [row.text for row in rows_of(tmp_path)] == [text]
