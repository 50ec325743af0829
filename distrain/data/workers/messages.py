"""What travels between a process and its data workers: readers, errors, and rows as bare bytes.

Decides: the form of a message. Never: when one is sent.

    connection.send_bytes(packed_readers([(reader, layout)], {}))      # once, to each worker
    send_rows(connection, rows)                                        # a worker's answer ...
    rows = receive_rows(connection, layout, count)                     # ... into arrays that TensorFlow takes over

Readers travel by pickle, from a process to those that it started. Answers hold no pickle.
"""

from __future__ import annotations

import copyreg
import io
import json
import mmap
import os
import pickle
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from distrain.aligned_memory import address_of, aligned_empty
from distrain.data.by_position.elements import Layout
from distrain.data.by_position.source_reader import SourceReader
from distrain.data.examples import RowNests
from distrain.data.nests import leaves, map_nest
from distrain.errors import ERROR_BY_EXIT_CODE, ConfigurationError, DataError, DistrainError, cause

_ROWS, _ERROR = b"r", b"e"


def packed_readers(readers: Sequence[tuple[SourceReader, Layout]]) -> bytes:
    """Return readers and their layouts as bytes; a memory-mapped array travels as the name of its file.

    Raises:
        ConfigurationError: a source or a function cannot be sent.
    """
    for reader, _ in readers:
        for value, name in ((reader.source, reader.name), (reader.transform, f"map= of {reader.name}")):
            try:
                _pickled(value)
            except Exception as error:  # a class of the user's own may raise anything
                raise ConfigurationError(
                    f"{name} cannot be sent to data workers: {type(error).__name__}: {error}. Define functions and "
                    "classes at the top level of a module, and open files when the first example is read; or leave "
                    "out --data-workers."
                ) from None
    return _pickled(list(readers))


def _pickled(value: Any) -> bytes:
    buffer = io.BytesIO()
    pickler = pickle.Pickler(buffer, pickle.HIGHEST_PROTOCOL)
    pickler.dispatch_table = {**copyreg.dispatch_table, np.memmap: _reduce_memmap}
    pickler.dump(value)
    return buffer.getvalue()


def _reduce_memmap(array: np.memmap) -> Any:
    """Return how another process maps the same part of a file; arrays that are no such part travel by value."""
    mapped = getattr(array, "_mmap", None)
    if mapped is None or array.filename is None or array.mode == "c" or not array.flags.c_contiguous:
        return np.asarray(array).__reduce_ex__(pickle.HIGHEST_PROTOCOL)
    start = array.offset - array.offset % mmap.ALLOCATIONGRANULARITY  # a slice of a map has the offset of the map
    offset = start + address_of(array) - address_of(np.frombuffer(mapped, np.uint8))
    return np.memmap, (array.filename, array.dtype, "r", offset, array.shape)


def send_rows(connection: Connection, rows: RowNests) -> None:
    """Answer with arrays of the layout's shapes and dtypes."""
    connection.send_bytes(_ROWS)
    for _, value in _arrays(rows):
        left = _bytes_of(np.ascontiguousarray(value))
        while left:
            left = left[os.write(connection.fileno(), left) :]


def send_error(connection: Connection, error: BaseException) -> None:
    """Answer with an error; one that distrain has no words for becomes a `DataError`."""
    known = isinstance(error, DistrainError)
    code = error.exit_code if isinstance(error, DistrainError) else DataError.exit_code
    connection.send_bytes(_ERROR + json.dumps([code, str(error) if known else cause(error)]).encode())


def receive_answer(connection: Connection) -> None:
    """Receive an answer without rows, or the beginning of one with rows.

    Raises:
        EOFError: the worker has ended.
        DistrainError: the worker answered with an error.
    """
    answer = connection.recv_bytes()
    if answer[:1] == _ERROR:
        code, message = json.loads(answer[1:])
        raise ERROR_BY_EXIT_CODE.get(code, DataError)(message)


def receive_rows(connection: Connection, layout: Layout, count: int) -> RowNests:
    """Receive the rows of `count` examples; see `receive_answer`."""
    receive_answer(connection)
    rows = empty_rows(layout, count)
    for _, value in _arrays(rows):
        left = _bytes_of(value)
        while left:
            received = os.readv(connection.fileno(), [left])
            if not received:
                raise EOFError
            left = left[received:]
    return rows


def empty_rows(layout: Layout, count: int) -> RowNests:
    """Return aligned arrays for the rows of `count` examples."""
    features, labels, weights = (
        map_nest(lambda leaf, name: aligned_empty((count, *leaf.shape), leaf.dtype), part) for part in layout.parts
    )
    return features, labels, weights


def _arrays(rows: RowNests) -> list[tuple[str, np.ndarray]]:
    return [named for nest in rows for named in leaves(nest)]


def _bytes_of(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data
