"""Examples that are read from the first to the last, in blocks: of a generator, a `tf.data.Dataset`, or any source.

Decides: which objects are read so, and where their examples end. Never: what becomes of an example.

    >>> stream = element_stream((([float(n)], n) for n in range(3)), "train")
    >>> [(count, rows[1].tolist()) for count, rows in stream.blocks()]
    [(3, [0, 1, 2])]

A data set of TensorFlow whose arrays all have an unknown first dimension is batched: its batches are cut into examples.
TensorFlow itself is not imported: whoever made such a data set has imported it.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from distrain.data.by_position.array_source import ArraySource
from distrain.data.by_position.batch_source import is_py_dataset, py_dataset_source
from distrain.data.by_position.elements import PARTS, Layout
from distrain.data.by_position.source_reader import (
    SAMPLED_EXAMPLES,
    SourceReader,
    bytes_of,
    is_positional,
    sampled_numbers,
)
from distrain.data.by_position.tf_datasets import is_cut, unbatched
from distrain.data.examples import RowNests
from distrain.data.nests import leaves
from distrain.errors import ConfigurationError, DataError, DistrainError, cause

_LOG = logging.getLogger(__name__)

BLOCK_BYTES = 2**22  # of examples that are checked and written at a time
MAX_BLOCK = 4096  # examples

_TEXT_CURE = "give numbers, as map= changes examples after they are written"
_INFINITE = -1  # tf.data.INFINITE_CARDINALITY


def is_stream(data: Any) -> bool:
    """Whether data has an order and no example by number: a generator, a function, a `tf.data.Dataset`."""
    return not is_positional(data) and (hasattr(data, "__iter__") or callable(data)) and not isinstance(data, dict)


@dataclass(frozen=True)
class ElementStream:
    """Examples in order.

    Attributes:
        reader: turns examples into arrays, and names the example of an error.
        found: starts to read: yields examples, or arrays with a row for each.
        may_repeat: whether `found` may be called more than once.
        length: number of examples if it is known, else None.
        is_endless: whether the data is known to have no end.
    """

    reader: SourceReader
    found: Callable[[], Iterator[Any]]
    may_repeat: bool
    length: int | None
    is_endless: bool

    @cached_property
    def _first(self) -> tuple[list[Any], Iterator[Any]]:
        """Some first examples, and an iterator over all others."""
        rest = self._elements()
        return list(itertools.islice(rest, SAMPLED_EXAMPLES)), rest

    @cached_property
    def layout(self) -> Layout:
        """Layout of each example.

        Raises:
            DataError: there is no example, or the first one holds something that is no number.
        """
        if not self._first[0]:
            raise DataError(f"{self.reader.name} is empty; training needs at least one example.")
        return self.reader.layout_of(self._first[0][0], _TEXT_CURE)

    def identity(self) -> tuple[str, bool]:
        """Return a digest of the form, the length and a few examples, and whether the examples repeat.

        Examples that differ when they are read again have a digest of their form and length alone.
        """
        digest = hashlib.sha256(f"{self.length}; {self.layout}".encode())
        first = self._bytes_of(self._first[0])
        again = first
        if self.may_repeat:
            again = self._bytes_of(list(itertools.islice(self._elements(), SAMPLED_EXAMPLES)))
        if first == again:
            digest.update(first + self._spread())
        return digest.hexdigest(), first == again

    def _spread(self) -> bytes:
        """Return examples from all of the data as bytes, where examples have numbers."""
        if self.length is None or not is_positional(self.reader.source):
            return b""
        numbers = sampled_numbers(self.length)
        return b"".join(bytes_of(self.reader.read(self.layout, np.array([one]), epoch=0)) for one in numbers)

    def tell_batches(self) -> None:
        """Warn if elements look like batches, as Keras takes them from a generator; each counts as one example."""
        features, labels, _ = ([leaf.shape for _, leaf in leaves(part)] for part in self.layout.parts)
        sizes = {shape[0] if shape else 1 for shape in (*features, *labels)}
        if (
            len(sizes) == 1
            and sizes != {1}
            and min(map(len, features)) > 1
            and any(len(shape) == 1 for shape in labels)
        ):
            size = sizes.pop()
            _LOG.warning(
                f"{self.reader.name}: each element counts as one example, and its arrays all have {size} rows. If an "
                f"element is a batch of {size} examples, yield them one by one."
            )

    def blocks(self, max_rows: int | None = None) -> Iterator[tuple[int, RowNests]]:
        """Yield all examples, or the first `max_rows`, once: the number of examples in a block, and their arrays.

        Raises:
            DataError: an example cannot be read, or differs from the first one.
        """
        size = max(1, min(MAX_BLOCK, BLOCK_BYTES // max(1, self.layout.row_bytes)))
        first, rest = self._first
        elements = itertools.islice(itertools.chain(first, rest), max_rows)
        done = 0
        while block := list(itertools.islice(elements, size)):
            yield len(block), self.reader.rows(self.layout, block, np.arange(done, done + len(block)), 0)
            done += len(block)

    def _bytes_of(self, elements: list[Any]) -> bytes:
        return bytes_of(self.reader.rows(self.layout, elements, np.arange(len(elements)), 0))

    def _elements(self) -> Iterator[Any]:
        number = 0
        try:
            for element in self.found():
                yield element
                number += 1
        except (DistrainError, GeneratorExit):
            raise
        except Exception as error:
            raise DataError(f"{self.reader.name} fails at example {number}: {cause(error)}.") from error


def element_stream(data: Any, name: str) -> ElementStream:
    """Return the examples of data in order.

    Args:
        data: a stream, see `is_stream`, a tuple of arrays, or a source by position.
        name: name of the data in messages.

    Raises:
        ConfigurationError: `data` is none of these.
    """
    if isinstance(data, tuple):
        if not 1 <= len(data) <= len(PARTS):
            raise ConfigurationError(
                f"{name} is a tuple of length {len(data)}: give (x, y) or (x, y, weights) of arrays."
            )
        data = ArraySource(*data)
    elif is_py_dataset(data):
        data = py_dataset_source(data, name)
    reader = SourceReader(data, name, None)
    if is_positional(data):
        count = reader.length()
        return ElementStream(reader, lambda: _by_number(reader, count), True, count, False)
    if hasattr(data, "as_numpy_iterator"):
        cardinality = int(data.cardinality())
        is_batched = is_cut(data, name)
        found = (lambda: unbatched(data.as_numpy_iterator())) if is_batched else data.as_numpy_iterator
        length = cardinality if cardinality >= 0 and not is_batched else None
        return ElementStream(reader, found, True, length, cardinality == _INFINITE)
    if not is_stream(data):
        raise ConfigurationError(
            f"{name} is of type {type(data).__name__}; give a source, arrays, a tf.data.Dataset, a generator, or a "
            "function that returns a generator."
        )
    if callable(data) and not hasattr(data, "__iter__"):
        return ElementStream(reader, lambda: iter(_iterable(data(), name)), True, None, False)
    return ElementStream(reader, lambda: iter(data), iter(data) is not data, None, False)


def _by_number(reader: SourceReader, count: int) -> Iterator[Any]:
    for start in range(0, count, SAMPLED_EXAMPLES):
        numbers = np.arange(start, min(start + SAMPLED_EXAMPLES, count))
        yield from reader.elements(numbers)


def _iterable(found: Any, name: str) -> Iterable[Any]:
    if not hasattr(found, "__iter__"):
        raise ConfigurationError(
            f"{name} is a function that returns {type(found).__name__}; let it return a generator."
        )
    return found
