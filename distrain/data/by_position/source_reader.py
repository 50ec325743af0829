"""Reads examples of a source by position, transformed and as arrays.

Decides: which method of a source reads some examples, and which example an error names. Never: which examples are read.

    >>> reader = SourceReader([([0.0, 1.0], 0), ([2.0, 3.0], 1)], "a list", None)
    >>> features, labels, weights = reader.read(reader.layout(), np.array([1, 0]), epoch=0)
    >>> features.tolist(), labels.tolist()
    ([[2.0, 3.0], [0.0, 1.0]], [1, 0])

A reader may be sent to another process, as `workers.pool` does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import length_hint
from typing import Any

import numpy as np

from distrain.data.by_position.elements import TEXT_CURE, Layout, Misfit, layout_of, stacked, stacked_columns
from distrain.data.by_position.transforms import Transform
from distrain.data.examples import RowNests
from distrain.data.nests import leaves, map_nest
from distrain.data.shuffle import SPANS_PER_WINDOW
from distrain.errors import ConfigurationError, DataError, DistrainError, cause

SAMPLED_EXAMPLES = 8  # examples that identify data: reading all would delay every start


def is_positional(source: Any) -> bool:
    """Whether `source` has a length and returns an example for a number."""
    return callable(getattr(source, "__len__", None)) and callable(getattr(source, "__getitem__", None))


@dataclass(frozen=True)
class SourceReader:
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

    @property
    def has_elements(self) -> bool:
        """Whether the examples lie in the memory of this process, so that another process needs a few at a time."""
        return isinstance(self.source, (list, tuple)) or getattr(self.source, "is_in_memory", False)

    def without_elements(self) -> SourceReader:
        """Return a reader for another process, which transforms examples that it receives."""
        return replace(self, source=None) if self.has_elements else self

    def length(self) -> int:
        """Return the number of examples."""
        try:
            count = len(self.source)
        except DistrainError:
            raise
        except Exception as error:
            raise ConfigurationError(f"{self.name} has no length: {cause(error)}.") from error
        if count < 1:
            raise ConfigurationError(f"{self.name} is empty; training needs at least one example.")
        return count

    def layout(self) -> Layout:
        """Return the layout of the first example."""
        number = np.zeros(1, np.int64)
        (first,) = _elements(self._transformed(self.fetch(number), number, 0), 1)
        return self.layout_of(first)

    def layout_of(self, first: Any, cure: str = TEXT_CURE) -> Layout:
        """Return the layout of a first example; `cure` says what a user can do about text."""
        try:
            return layout_of(first, cure)
        except Misfit as misfit:
            raise DataError(f"{self.name}: example 0 {misfit}.") from None

    def fetch(self, numbers: np.ndarray) -> Any:
        """Read examples: a list, or a tuple or a dict of arrays with a row for each.

        Args:
            numbers: int64 `[k]`, in any order; ascending for a source that is fast by ranges alone.
        """
        if self._has("read"):
            start, stop = int(numbers[0]), int(numbers[-1]) + 1
            is_range = stop - start == len(numbers) and bool(np.all(np.diff(numbers) == 1))
            if is_range or (self.reads_ranges_alone and stop - start >= len(numbers)):
                found = self._checked(lambda: self.source.read(start, stop), range(start, stop))
                return found if is_range else part_of(found, numbers - start)
        if self._has("__getitems__"):
            return self._checked(lambda: self.source.__getitems__(numbers.tolist()), numbers)
        if self._has("take"):
            return self._checked(lambda: self.source.take(numbers), numbers)
        return self._one_by_one(numbers.tolist())

    def elements(self, numbers: np.ndarray) -> list[Any]:
        """Read examples as a list; see `fetch`."""
        return _elements(self.fetch(numbers), len(numbers))

    def read_spans(self, spans: np.ndarray, indices: np.ndarray) -> Any:
        """Read some examples of a shuffle window by ranges of neighbours.

        Args:
            spans: int64 `[s, 2]`: (start, stop) of each span.
            indices: int64 `[k]`: indices into the concatenated spans.

        Returns:
            The examples in the order of `indices`: a list, or a tuple or a dict of arrays.
        """
        held: Any = None
        for numbers, rows in self.span_shares(spans, indices):
            found = self.fetch(numbers)
            held = _room_for(found, len(indices)) if held is None else held
            self._put(held, found, numbers, rows)
        return held

    def span_shares(self, spans: np.ndarray, indices: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return the wanted examples of a window in ranges that are read at once; see `span_shares`."""
        return span_shares(spans, indices, stored=getattr(self.source, "span_size", 1))

    def _put(self, held: Any, found: Any, numbers: np.ndarray, rows: np.ndarray) -> None:
        """Copy examples to their places in a window."""
        if isinstance(held, list) and isinstance(found, list):
            for row, element in zip(rows.tolist(), found, strict=True):
                held[row] = element
            return
        targets, sources = ({} if isinstance(one, list) else dict(leaves(one)) for one in (held, found))
        for name in targets.keys() | sources.keys():
            target, source = targets.get(name), sources.get(name)
            if target is None or source is None or (target.shape[1:], target.dtype) != (source.shape[1:], source.dtype):
                raise DataError(
                    f"{self.name}: examples {numbers[0]} to {numbers[-1]} are read as {_forms(sources)}, and others of "
                    f"the source as {_forms(targets)}. All must have the same form, shapes and dtypes."
                )
            target[rows] = source

    def read(self, layout: Layout, numbers: np.ndarray, *, epoch: int, found: Any = None) -> RowNests:
        """Return examples, transformed and as arrays; `found` are the examples where they are fetched already."""
        return self.rows(layout, self.fetch(numbers) if found is None else found, numbers, epoch)

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

    def _transformed(self, found: Any, numbers: np.ndarray, epoch: int) -> Any:
        if self.transform is None:
            return found
        found = _elements(found, len(numbers))
        return self.transform.apply(found, numbers=numbers.tolist(), epoch=epoch, name=self.name)

    def _one_by_one(self, numbers: list[int]) -> list[Any]:
        source, rest = self.source, iter(numbers)
        try:
            return [source[number] for number in rest]
        except DistrainError:
            raise
        except Exception as error:
            number = numbers[-1 - length_hint(rest)]
            raise DataError(f"{self.name} cannot read example {number}: {cause(error)}.") from error

    def _has(self, method: str) -> bool:
        return callable(getattr(self.source, method, None))

    def _checked(self, read: Callable[[], Any], numbers: Sequence[int] | np.ndarray) -> Any:
        try:
            found = read()
            found = found if getattr(self.source, "returns_arrays", False) else _as_elements(found)
            counts = {len(found)} if isinstance(found, list) else {len(value) for _, value in leaves(found)}
        except DistrainError:
            raise
        except Exception as error:
            which = f"example {numbers[0]}" if len(numbers) == 1 else f"examples {numbers[0]} to {numbers[-1]}"
            raise DataError(f"{self.name} cannot read {which}: {cause(error)}.") from error
        for count in counts - {len(numbers)}:
            raise DataError(f"{self.name} returned {count} examples where {len(numbers)} were asked for.")
        return found


def span_shares(spans: np.ndarray, indices: np.ndarray, *, stored: int = 1) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the wanted examples in ranges that are read at once: their ascending numbers, and places in `indices`.

    Neighbouring spans are read at once, up to a sixteenth of the window, so that storage unpacks each of its groups of
    rows once.

    Args:
        spans: int64 `[s, 2]`: (start, stop) of each span.
        indices: int64 `[k]`: indices into the concatenated spans.
        stored: neighbours that the storage holds together.

    >>> span_shares(np.array([[10, 12], [4, 8]]), np.array([5, 0]))
    [(array([7]), array([0])), (array([10]), array([1]))]
    """
    lengths = spans[:, 1] - spans[:, 0]
    numbers = np.concatenate([np.arange(start, stop) for start, stop in spans.tolist()])[indices]
    places = np.argsort(numbers)
    numbers = numbers[places]
    at_once = -(-max(int(lengths.max()), int(lengths.sum()) // SPANS_PER_WINDOW) // stored) * stored
    ascending = spans[np.argsort(spans[:, 0])]
    starts = ascending[np.append(True, ascending[1:, 0] != ascending[:-1, 1]), 0]  # of spans without a gap between
    ranges = np.searchsorted(starts, numbers, side="right")
    cuts = np.flatnonzero(np.diff(ranges) | np.diff(numbers // at_once)) + 1
    return list(zip(np.split(numbers, cuts), np.split(places, cuts), strict=True))


def sampled_numbers(count: int) -> np.ndarray:
    """Return the numbers of some examples of `count`, from all of the data."""
    return np.unique(np.linspace(0, count - 1, SAMPLED_EXAMPLES).astype(np.int64))


def bytes_of(rows: RowNests) -> bytes:
    """Return the bytes of all arrays, for a digest."""
    return b"".join(value.tobytes() for _, value in leaves(rows))


def _as_elements(found: Any) -> Any:
    """Return a list of examples in place of a tuple or a dict that holds lists of values."""
    if isinstance(found, Mapping) and any(isinstance(values, list) for values in found.values()):
        return [dict(zip(found, values, strict=True)) for values in zip(*found.values(), strict=True)]
    if isinstance(found, tuple) and any(isinstance(values, list) for values in found):
        if len(lengths := {len(values) for values in found}) > 1:
            raise ValueError(
                f"lists have a value for each example, and these have {', '.join(map(str, sorted(lengths)))} values; "
                "give several inputs as a tuple or a dict of arrays"
            )
        return list(zip(*found, strict=True))
    return found


def _elements(found: Any, count: int) -> list[Any]:
    """Return a list of examples, from a list or from a tuple or a dict of arrays with `count` rows."""
    return found if isinstance(found, list) else [part_of(found, row) for row in range(count)]


def part_of(found: Any, rows: Any) -> Any:
    """Return the examples at `rows`; of arrays their rows."""
    if isinstance(found, list):
        return found[rows] if isinstance(rows, slice) else [found[row] for row in rows.tolist()]
    return map_nest(lambda values, name: values[rows], found)


def _room_for(found: Any, count: int) -> Any:
    """Return a list, or a nest of arrays, for `count` examples like those that were found."""
    if isinstance(found, list):
        return [None] * count
    return map_nest(lambda values, name: np.empty((count, *values.shape[1:]), values.dtype), found)


def _forms(arrays: Mapping[str, np.ndarray]) -> str:
    """Describe arrays, as in "x: float32 of (3,)"."""
    return ", ".join(f"{name}: {array.dtype} of {array.shape[1:]}" for name, array in arrays.items()) or "a list"
