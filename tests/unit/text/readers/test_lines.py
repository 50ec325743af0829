"""Compression, damaged bytes, and bounded memory."""

from __future__ import annotations

import gzip
import tracemalloc

import pytest
import zstandard
from reading import read, refused, write

from distrain.text.readers import tally
from distrain.text.readers.tally import Bounds


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


def peak_while(function):
    tracemalloc.start()
    try:
        result = function()
        return result, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_an_open_quote_does_not_read_the_whole_file(tmp_path):
    more = gzip.compress(b"3,more text\n" * 90_000, 1)
    path = write(tmp_path / "a.csv.gz", gzip.compress(b'1,a\n2,"open\n') + more * 16)  # 17 MB of text
    message, peak = peak_while(lambda: refused(path, max_row_bytes=2**20))
    assert "row 2" in message
    assert "1 MiB" in message
    assert peak < 14 * 2**20


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_a_line_without_end_does_not_fill_memory(tmp_path, name):
    path = write(tmp_path / name, gzip.compress(b"1," + b"x" * 2**24))
    message, peak = peak_while(lambda: refused(path, max_row_bytes=2**20))
    assert "line 1" in message
    assert peak < 12 * 2**20


def test_a_zstd_bomb_does_not_fill_memory(tmp_path):
    path = write(tmp_path / "a.csv", zstandard.ZstdCompressor().compress(b"1," + b"x" * 2**26))
    message, peak = peak_while(lambda: refused(path, max_row_bytes=2**20))
    assert "line 1" in message
    assert peak < 48 * 2**20  # a chunk alone expands to 32 MiB


def test_the_limit_is_one_rows_not_the_files(tmp_path):
    path = write(tmp_path / "a.csv", "1,some text\n" * 1000)
    assert len(read(path, max_row_bytes=100)[0]) == 1000


def test_skippable_frames_of_zstd_are_skipped_wherever_they_stand(tmp_path):
    frame = zstandard.ZstdCompressor().compress(b"1,text\n")
    for kind in (0x50, 0x5F):
        for size in (0, 5, 4000):
            skipped = bytes([kind]) + b"\x2a\x4d\x18" + size.to_bytes(4, "little") + b"\n" * size
            for content in (skipped + frame, skipped * 2 + frame + skipped, frame + skipped):
                assert read(write(tmp_path / "a.csv.zst", content))[0] == [("1", "text")]
            assert "ends too early" in refused(write(tmp_path / "a.csv.zst", frame + skipped[: 5 + size // 2]))
            assert "no rows" in refused(write(tmp_path / "a.csv.zst", skipped))


@pytest.mark.parametrize("name", ["gz", "zst"])
def test_text_that_is_compressed_twice_is_refused(tmp_path, name):
    twice = compressed(name, compressed(name, b"1,text\n"))
    assert "compressed twice" in refused(write(tmp_path / f"a.csv.{name}", twice))


def test_a_window_of_zstd_beyond_the_bound_is_named(tmp_path):
    long = zstandard.ZstdCompressionParameters.from_level(1, window_log=28)
    content = zstandard.ZstdCompressor(compression_params=long).compressobj().compress(b"1,a\n" * 2**18)
    assert "--long=27" in refused(write(tmp_path / "a.csv.zst", content))


@pytest.mark.parametrize("name", ["a.csv.gz", "a.csv.zst", "a.jsonl.gz"])
def test_text_that_expands_too_far_is_refused(tmp_path, monkeypatch, name):
    monkeypatch.setattr(tally, "FREE_BYTES", tally.FREE_BYTES // 256)
    text = b"word " * 1000
    line = b'{"label": 1, "text": "%b"}\n' % text if "jsonl" in name else b"1,%b\n" % text
    path = write(tmp_path / name, compressed(name[-3:].strip("."), line * (2**16 // len(line))))
    assert read(path)[1].text_bytes > 2**15  # the first 256 KiB are free
    piece = path.read_bytes()
    path.write_bytes(piece * 12)
    assert "--max-expansion" in refused(path)
    assert read(path, bounds=Bounds(max_expansion=10_000))[1].text_bytes > tally.FREE_BYTES
    assert "--max-rows" in refused(path, bounds=Bounds(max_expansion=10_000, max_rows=100))
