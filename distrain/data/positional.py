"""Sources by position: anything with a length that returns an example for a number.

Decides: how a source is read: one example, several, or a range of neighbours. Never: which examples, or in which order;
knows no library of sources.

    >>> examples = positional_examples([([0.0, 1.0], 0), ([2.0, 3.0], 1)])
    >>> features, labels, weights = examples.load(np.array([[0, 2]]), np.array([1, 0]))(0, 2)
    >>> features.tolist(), labels.tolist()
    ([[2.0, 3.0], [0.0, 1.0]], [1, 0])

A list is such a source, and so are a `datasets.Dataset`, a map-style data set of PyTorch and a data source of Grain.
Two optional methods make a source faster. Each may also return a tuple or a dict of arrays that have a row per example.

    take(indices) -> list of examples      int64 `[k]`, in any order; PyTorch's name for it is `__getitems__`
    read(start, stop) -> list of examples  neighbours; without `take`, a shuffle window is read by ranges at once

`span_size`, an optional attribute, is the number of neighbours that the storage holds together. Data larger than a
shuffle window is then shuffled in spans of this size.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from distrain.batch import Memory
from distrain.data.elements import Layout, Misfit, layout_of, stacked, stacked_columns
from distrain.data.examples import Examples, RowNests, RowReader
from distrain.data.nests import leaves, map_nest
from distrain.data.shuffle import SHUFFLE_SPAN, shuffle_sizes
from distrain.data.transforms import Transform
from distrain.errors import ConfigurationError, DataError, DistrainError, cause

_LOG = logging.getLogger(__name__)

SAMPLED_EXAMPLES = 8  # examples that identify a source on a resume: reading all would delay every start

# Example numbers, int64 `[k]` -> a list of examples, or a tuple or a dict of arrays with a row for each.
Fetch = Callable[[np.ndarray], Any]


def is_positional(source: Any) -> bool:
    """Whether `source` has a length and returns an example for a number."""
    return callable(getattr(source, "__len__", None)) and callable(getattr(source, "__getitem__", None))


def positional_examples(source: Any, *, transform: Transform | None = None, name: str = "") -> Examples:
    """Use a source by position as examples.

    Args:
        source: has `__len__` and `__getitem__(int)`, and perhaps `take` and `read`.
        transform: changes each example.
        name: the source's name in messages; default: its type.

    Raises:
        ConfigurationError: the source is empty.
        DataError: the first example cannot be read, or holds something that is no number.
    """
    reader = _Reader(source, name or f"the {type(source).__name__}", transform)
    num_examples, layout = reader.length(), reader.layout()

    def load(spans: np.ndarray, indices: np.ndarray, memory: Memory = np.empty, epoch: int = 0) -> RowReader:
        numbers = np.concatenate([np.arange(start, stop) for start, stop in spans.tolist()])[indices]
        held = reader.read_spans(spans, indices) if reader.reads_ranges_alone else None

        def read(start: int, stop: int) -> RowNests:
            own = numbers[start:stop]
            found = reader.fetch(own) if held is None else _part(held, np.arange(start, stop))
            return reader.rows(layout, found, own, epoch)

        return read

    span_size = getattr(source, "span_size", SHUFFLE_SPAN)
    window, span = shuffle_sizes(num_examples, layout.row_bytes, span_size)
    digest = reader.digest(layout, num_examples)
    return Examples(num_examples, load, {}, digest, window_size=window, span_size=span)


@dataclass(frozen=True)
class _Reader:
    """Reads a source, and says which example is at fault.

    Attributes:
        source: the source.
        name: its name in messages.
        transform: changes each example; None changes nothing.
    """

    source: Any
    name: str
    transform: Transform | None

    @property
    def reads_ranges_alone(self) -> bool:
        """Whether the source is fast by ranges, and not by numbers in any order."""
        return self._has("read") and not (self._has("__getitems__") or self._has("take"))

    def length(self) -> int:
        """Return the number of examples."""
        try:
            count = len(self.source)
        except TypeError as error:
            raise ConfigurationError(f"{self.name} has no length: {error}.") from None
        if count < 1:
            raise ConfigurationError(f"{self.name} is empty; training needs at least one example.")
        return count

    def layout(self) -> Layout:
        """Return the layout of the first example."""
        number = np.zeros(1, np.int64)
        (first,) = _elements(self._transformed(self.fetch(number), number, 0), 1)
        try:
            return layout_of(first)
        except Misfit as misfit:
            raise DataError(f"{self.name}: example 0 {misfit}.") from None

    def fetch(self, numbers: np.ndarray) -> Any:
        """Read examples: a list, or a tuple or a dict of arrays with a row for each."""
        start, stop = int(numbers[0]), int(numbers[-1]) + 1
        if self._has("read") and stop - start == len(numbers) and np.all(np.diff(numbers) == 1):
            return self._checked(lambda: self.source.read(start, stop), numbers)
        if self._has("__getitems__"):
            return self._checked(lambda: self.source.__getitems__(numbers.tolist()), numbers)
        if self._has("take"):
            return self._checked(lambda: self.source.take(numbers), numbers)
        return [self._checked(partial(self._one, number), [number])[0] for number in numbers.tolist()]

    def read_spans(self, spans: np.ndarray, indices: np.ndarray) -> Any:
        """Read some examples of a shuffle window by ranges of neighbours.

        Args:
            spans: int64 `[s, 2]`: (start, stop) of each span.
            indices: int64 `[k]`: indices into the concatenated spans.

        Returns:
            The examples in the order of `indices`: a list, or a tuple or a dict of arrays.
        """
        order = np.argsort(indices)
        ends = np.cumsum(spans[:, 1] - spans[:, 0])
        shares = np.split(indices[order], np.searchsorted(indices[order], ends[:-1]))
        pieces = []
        for (_, stop), end, own in zip(spans.tolist(), ends.tolist(), shares, strict=True):
            if len(own):
                neighbours = np.arange(stop - end + own[0], stop - end + own[-1] + 1)
                pieces.append(_part(self.fetch(neighbours), own - own[0]))
        return _part(_joined(pieces), np.argsort(order))

    def rows(self, layout: Layout, found: Any, numbers: np.ndarray, epoch: int) -> RowNests:
        """Return examples, as `fetch` returns them, transformed and as arrays.

        Raises:
            DataError: an example cannot be transformed, or differs from the layout.
        """
        found = self._transformed(found, numbers, epoch)
        try:
            if isinstance(found, list):
                return stacked(layout, found)
            return stacked_columns(layout, found, len(numbers))
        except Misfit:
            elements = _elements(found, len(numbers))
            for element, number in zip(elements, numbers.tolist(), strict=True):
                try:
                    stacked(layout, [element])
                except Misfit as misfit:
                    raise DataError(f"{self.name}: example {number} {misfit}.") from None
            return stacked(layout, elements)  # each fits, and only the arrays that hold them have another form

    def digest(self, layout: Layout, num_examples: int) -> str:
        """Return a digest of the length, the layout and a few examples, hex.

        A source whose examples change from one read to the next has a digest without examples, and a warning says so.
        """
        numbers = np.unique(np.linspace(0, num_examples - 1, SAMPLED_EXAMPLES).astype(np.int64))
        digest = hashlib.sha256(f"{num_examples}; {layout}".encode())
        first, second = (self._sample(layout, numbers) for _ in range(2))
        if first == second:
            digest.update(first)
        else:
            _LOG.warning(
                f"{self.name} gives other values each time it is read, so the model depends on the number of replicas. "
                "Draw random numbers in map=, from its second argument."
            )
        return digest.hexdigest()

    def _sample(self, layout: Layout, numbers: np.ndarray) -> bytes:
        rows = [
            self.rows(layout, self.fetch(numbers[index : index + 1]), numbers[index : index + 1], 0)
            for index in range(len(numbers))
        ]
        return b"".join(value.tobytes() for nests in rows for nest in nests for _, value in leaves(nest))

    def _transformed(self, found: Any, numbers: np.ndarray, epoch: int) -> Any:
        if self.transform is None:
            return found
        found = _elements(found, len(numbers))
        return self.transform.apply(found, numbers=numbers.tolist(), epoch=epoch, name=self.name)

    def _one(self, number: int) -> list[Any]:
        return [self.source[number]]

    def _has(self, method: str) -> bool:
        return callable(getattr(self.source, method, None))

    def _checked(self, read: Callable[[], Any], numbers: Sequence[int] | np.ndarray) -> Any:
        try:
            found = read()
        except DistrainError:
            raise
        except Exception as error:
            which = f"example {numbers[0]}" if len(numbers) == 1 else f"examples {numbers[0]} to {numbers[-1]}"
            raise DataError(f"{self.name} cannot read {which}: {cause(error)}.") from error
        found = _as_elements(found)
        for count in [len(found)] if isinstance(found, list) else [len(value) for _, value in leaves(found)]:
            if count != len(numbers):
                raise DataError(f"{self.name} returned {count} examples where {len(numbers)} were asked for.")
        return found


def _as_elements(found: Any) -> Any:
    """Return a list of examples in place of a tuple or a dict that holds lists of values."""
    if isinstance(found, Mapping) and any(isinstance(values, list) for values in found.values()):
        return [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]
    if isinstance(found, tuple) and any(isinstance(values, list) for values in found):
        return list(zip(*found, strict=True))
    return found


def _elements(found: Any, count: int) -> list[Any]:
    """Return a list of examples, from a list or from a tuple or a dict of arrays with `count` rows."""
    return found if isinstance(found, list) else [_part(found, row) for row in range(count)]


def _part(found: Any, rows: Any) -> Any:
    """Return the examples at `rows`; of arrays their rows."""
    if isinstance(found, list):
        return [found[row] for row in rows.tolist()]
    return map_nest(lambda values, name: values[rows], found)


def _joined(pieces: list[Any]) -> Any:
    if isinstance(pieces[0], list):
        return [element for piece in pieces for element in piece]
    columns = iter(
        [np.concatenate(values) for values in zip(*([v for _, v in leaves(p)] for p in pieces), strict=True)]
    )
    return map_nest(lambda values, name: next(columns), pieces[0])
