"""Headers of .npy files for which NumPy raises an error other than ValueError."""

from __future__ import annotations

import struct

import pytest


def _file(header: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode() + bytes(64)


def _of_shape(shape: str) -> bytes:
    return _file(f"{{'descr': '<i4', 'fortran_order': False, 'shape': {shape}, }}\n")


DAMAGED_HEADERS = [
    pytest.param(_file("{[]: 1}\n"), id="TypeError"),
    pytest.param(_file("'''\n"), id="TokenError"),
    pytest.param(_file("{'descr': '<,4', 'fortran_order': False, 'shape': (3,), }\n"), id="SyntaxError"),
    pytest.param(_of_shape(f"({10**20},)"), id="OverflowError"),
    pytest.param(_of_shape("(True,)"), id="TypeError of a shape"),
    pytest.param(_file("-" * 9000), id="MemoryError"),
    pytest.param(b"PK\x05\x06" + bytes(18), id="an archive, which NumPy opens as well"),
]
