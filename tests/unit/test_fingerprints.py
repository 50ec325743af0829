"""A fingerprint notices every change of a file, and counts the whole file."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import zlib

import pytest

from distrain.fingerprints import PIECE_BYTES, Fingerprint, GrowingFile, fault_of, faults_in, fingerprint_of


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, 2 * PIECE_BYTES + 1])
def test_a_record_covers_the_whole_file(tmp_path, size):
    path, content = tmp_path / "a", os.urandom(size)
    path.write_bytes(content)
    record = fingerprint_of(path, with_crc32=True)
    assert record == Fingerprint(size, hashlib.sha256(content).hexdigest(), zlib.crc32(content))
    assert fingerprint_of(path).crc32 is None
    assert fault_of(path, record) is fault_of(path, record, fast=True) is None


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("place", [0, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 99])
def test_every_flipped_bit_is_a_fault(tmp_path, fast, place):
    path, content = tmp_path / "a", bytearray(os.urandom(PIECE_BYTES + 100))
    path.write_bytes(content)
    record = fingerprint_of(path, with_crc32=True)
    content[place] ^= 4
    path.write_bytes(content)
    assert fault_of(path, record, fast=fast) == f"was changed: its {'CRC-32' if fast else 'SHA-256'} does not fit"


def test_a_file_that_grows_keeps_its_first_bytes(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"one\n")
    log, record = GrowingFile(path), fingerprint_of(path)
    growing = log.fingerprint()
    assert growing == dataclasses.replace(record, grows=True)
    path.write_bytes(b"one\ntwo\n")
    assert log.fingerprint() == dataclasses.replace(fingerprint_of(path), grows=True)
    assert fault_of(path, growing) is None
    assert fault_of(path, record) == "has 8 bytes instead of 4: it was cut or changed"
    path.write_bytes(b"onE\ntwo\n")
    assert "SHA-256" in fault_of(path, growing)
    path.write_bytes(b"one")
    assert "3 bytes instead of 4" in fault_of(path, growing)
    assert log.fingerprint() == dataclasses.replace(fingerprint_of(path), grows=True)


def test_each_damaged_file_is_named_in_order(tmp_path):
    names = [f"file {number}" for number in range(30)]
    for name in names:
        (tmp_path / name).write_text(name)
    records = {name: fingerprint_of(tmp_path / name) for name in names}
    assert list(faults_in(tmp_path, records)) == []
    (tmp_path / names[20]).unlink()
    (tmp_path / names[21]).unlink()
    (tmp_path / names[21]).mkdir()
    (tmp_path / names[3]).write_text("FILE 3")
    assert list(faults_in(tmp_path, records)) == [
        (names[3], "was changed: its SHA-256 does not fit"),
        (names[20], "is missing"),
        (names[21], "is no file"),
    ]


@pytest.mark.parametrize("values", [(-1, "0" * 64), (True, "0" * 64), (1, "0"), (1, None), (1, "0" * 64, -1)])
def test_a_record_that_cannot_be_is_refused(values):
    with pytest.raises(ValueError, match="a file of"):
        Fingerprint(*values)
