"""The frames of TFRecord files: where each record lies, and its content with the checksum compared.

Decides: which bytes are a record. Never: what a record holds.

    index = find_records(Path("part-0.tfrecord"), file)
    content = record_between(path, 17, frame)           # the bytes of record 17, from its frame in the file

A frame is a length, the checksum of the length, the content, and the checksum of the content. Checksums are CRC-32C.
"""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np

from distrain.errors import DataError
from distrain.extras import require_extra
from distrain.formats.records.record_index import RecordIndex

_HEAD = struct.Struct("<QI")  # length, and its checksum
_TAIL = struct.Struct("<I")  # checksum of the content
FRAME_BYTES = _HEAD.size + _TAIL.size  # of a frame beside its content
_GZIP = b"\x1f\x8b"


def find_records(path: Path, file: BinaryIO) -> RecordIndex:
    """Return where the frames of a file begin, int64 `[n + 1, 1]`, with the end of the last one.

    Raises:
        DataError: the file is compressed, cut short, or no TFRecord file.
    """
    checksum = _masked_crc32c()
    size = os.fstat(file.fileno()).st_size
    starts, place = array("q", [0]), 0
    while place < size:
        head = file.read(_HEAD.size)
        if place == 0 and head.startswith(_GZIP):
            raise DataError(
                f"{path} is compressed by gzip, so no record can be read alone. Unpack it with gunzip, or write it "
                "without compression."
            )
        if len(head) == _HEAD.size and checksum(head[:8]) != _HEAD.unpack(head)[1]:
            what = f"is damaged in record {len(starts) - 1:,}" if place else "is no TFRecord file"
            raise DataError(f"{path} {what}: the checksum of its length differs at byte {place:,}.")
        if len(head) < _HEAD.size or (stop := place + _HEAD.unpack(head)[0] + FRAME_BYTES) > size:
            raise DataError(f"{path} ends within record {len(starts) - 1:,}. Copy or write the file again.")
        file.seek(stop)
        starts.append(stop)
        place = stop
    return RecordIndex(np.frombuffer(starts, np.int64)[:, None])


def record_between(path: Path, number: int, frame: memoryview) -> bytes:
    """Return the content of a frame.

    Raises:
        DataError: the frame is not what it was, or its content is damaged.
    """
    content = bytes(frame[_HEAD.size : -_TAIL.size])
    if len(frame) < FRAME_BYTES or _HEAD.unpack_from(frame)[0] != len(content):
        raise DataError(f"{path} has changed since its records were found. Start again.")
    if _masked_crc32c()(content) != _TAIL.unpack(frame[-_TAIL.size :])[0]:
        raise DataError(f"{path} is damaged in record {number:,}: its checksum differs. Copy or write the file again.")
    return content


@cache
def _masked_crc32c() -> Callable[[bytes], int]:
    """Return the checksum of TFRecord: CRC-32C, turned by 15 bits, plus a constant."""
    require_extra("google_crc32c", package="google-crc32c", extra="tfrecord", what="Reading TFRecord files")
    import google_crc32c

    def checksum(content: bytes) -> int:
        found = google_crc32c.value(content)
        return (((found >> 15) | (found << 17)) + 0xA282EAD8) & 0xFFFFFFFF

    return checksum
