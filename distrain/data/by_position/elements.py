"""One example as a source of a user gives it, and several examples as the arrays of a batch.

Decides: which part of an example is features, label and weight, and which examples fit together. Never: reads one.

    >>> layout = layout_of(([0.5, 1.5], 3))
    >>> features, labels, weights = stacked(layout, [([0.5, 1.5], 3), ([2.5, 3.5], 4)])
    >>> features.tolist(), labels.tolist(), weights
    ([[0.5, 1.5], [2.5, 3.5]], [3, 4], ())

An example is a tuple (x, y) or (x, y, weight), or a dict of named values, or x alone. In a dict, "label", "labels" or
"y" is the label, and "weight", "weights" or "sample_weight" the weight. All other names are inputs of the model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np

from distrain.aligned_memory import aligned_empty
from distrain.data.array_checks import array_nest, is_number
from distrain.data.examples import RowNests
from distrain.data.nests import is_nest, leaves, map_nest
from distrain.errors import ConfigurationError

LABEL_NAMES = ("label", "labels", "y")
WEIGHT_NAMES = ("weight", "weights", "sample_weight")
PARTS = ("features", "label", "weight")
TEXT_CURE = "turn it into numbers with map="


@dataclass(frozen=True)
class Leaf:
    """Shape and dtype of one array of an example."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class Layout:
    """What all examples of a source have in common.

    Attributes:
        parts: features, label and weight, with a `Leaf` in place of each array.
        names: names of an example that is a dict; None for other examples.
    """

    parts: RowNests
    names: frozenset[Any] | None

    @property
    def row_bytes(self) -> int:
        """Bytes of one example."""
        return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for nest in self.parts for _, leaf in leaves(nest))

    def __str__(self) -> str:
        return "; ".join(
            f"{part}/{name}: {leaf.dtype.str}{leaf.shape}"
            for part, nest in zip(PARTS, self.parts, strict=True)
            for name, leaf in leaves(nest)
        )


class Misfit(ValueError):  # noqa: N818 - no error that users see: callers raise a DataError that names the example
    """An example differs from the first one; the message says how."""


def example_parts(element: Any) -> tuple[Any, Any, Any]:
    """Return features, label and weight of an example, with `()` for a label or a weight that is absent.

    A named tuple is read by its names, as a dict is.

    Raises:
        Misfit: the example is a list or a tuple of another length, or names two labels or two weights.
    """
    element = _named(element)
    if isinstance(element, tuple) and not hasattr(element, "_fields"):
        if not 1 <= len(element) <= len(PARTS):
            raise Misfit(f"is a tuple of {len(element)} values; give (x, y) or (x, y, weight)")
        return (*element, (), ())[:3]
    if isinstance(element, list):
        raise Misfit("is a list; give a tuple (x, y) or (x, y, weight), or a dict of named arrays")
    if not isinstance(element, Mapping):
        return element, (), ()
    label, weight = (_only(element, names) for names in (LABEL_NAMES, WEIGHT_NAMES))
    inputs = {name: value for name, value in element.items() if name not in (label, weight)}
    if not inputs:
        raise Misfit(f"has no inputs beside {', '.join(map(repr, element))}")
    features = next(iter(inputs.values())) if len(inputs) == 1 else inputs
    return features, () if label is None else element[label], () if weight is None else element[weight]


def _named(element: Any) -> Any:
    is_named_tuple = is_nest(element) and hasattr(element, "_asdict")
    return element._asdict() if is_named_tuple else element


def _only(element: Mapping[Any, Any], names: Sequence[str]) -> str | None:
    found = [name for name in names if name in element]
    if len(found) > 1:
        raise Misfit(f"has {' and '.join(map(repr, found))}, which name one thing; keep one of them, or give (x, y)")
    return found[0] if found else None


def layout_of(element: Any, cure: str = TEXT_CURE) -> Layout:
    """Return the layout of an example.

    Args:
        element: the example.
        cure: what a user can do about text.

    Raises:
        Misfit: the example is empty, or holds something that is no array of numbers.
    """
    features, label, weight = example_parts(element)
    if features is None or (isinstance(features, (list, tuple, Mapping)) and not len(features)):
        raise Misfit("has no features")
    features, label, weight = (_leaves(*named, cure) for named in zip((features, label, weight), PARTS, strict=True))
    return Layout((features, label, weight), _names(element))


def _names(element: Any) -> frozenset[Any] | None:
    element = _named(element)
    return frozenset(element) if isinstance(element, Mapping) else None


def _leaves(given: Any, part: str, cure: str) -> Any:
    def leaf(value: Any, name: str) -> Leaf:
        where = f"{part} {name!r}" if name else part
        if value.dtype.kind in "USO":
            raise Misfit(f"has text, or something else that is no number, as {where}: {cure}")
        if not is_number(value.dtype):
            raise Misfit(f"has {value.dtype} as {where}; give numbers of at most 64 bits, such as float32")
        return Leaf(value.shape, value.dtype)

    try:
        return map_nest(leaf, _arrays(given))
    except ConfigurationError as error:
        raise Misfit(f"has no array of numbers as {part}: {str(error).rstrip('.')}") from None


def _arrays(given: Any) -> Any:
    return () if isinstance(given, tuple) and not given else array_nest(given)


def stacked(layout: Layout, elements: Sequence[Any]) -> RowNests:
    """Return examples as arrays with a row for each.

    Raises:
        Misfit: an example differs from the layout.
    """
    columns = _columns_of(layout, elements)
    if columns is None:
        if layout.names is not None or any(isinstance(_named(element), Mapping) for element in elements):
            _check_names(layout, map(_names, elements))
        rows = tuple(map(_stack, layout.parts, zip(*map(example_parts, elements), strict=True)))
    else:
        rows = tuple(map(_stack_part, layout.parts, example_parts(columns)))
    return _checked_weights(rows)


def _columns_of(layout: Layout, elements: Sequence[Any]) -> Any:
    """Return an example with a column of values in place of each value; None unless the examples have one form.

    Dicts of 1 KB are read twice as fast by columns, because Python calls no function for each record.
    """
    if layout.names is not None:
        return _columns_by_name(elements, layout.names)
    is_tuple = set(map(type, elements)) == {tuple} and len(set(map(len, elements))) == 1
    return tuple(zip(*elements, strict=True)) if is_tuple else None


def _columns_by_name(values: Sequence[Any], names: frozenset[Any]) -> dict[Any, list[Any]] | None:
    """Return the column of each name; None unless each of `values` is a dict with these names alone."""
    if set(map(type, values)) != {dict} or set(map(frozenset, values)) != {names}:
        return None
    return {name: list(map(itemgetter(name), values)) for name in values[0]}


def _check_names(layout: Layout, found: Iterable[frozenset[Any] | None]) -> None:
    for names in found:
        if names != layout.names:
            raise Misfit(f"has {_shown(names)} where example 0 has {_shown(layout.names)}")


def _shown(names: frozenset[Any] | None) -> str:
    return "no names" if names is None else ", ".join(sorted(map(repr, names)))


def stacked_columns(layout: Layout, columns: Any, count: int) -> RowNests:
    """Return arrays that a source read for several examples at once, checked and aligned.

    Args:
        layout: layout of each example.
        columns: a tuple or a dict like an example, whose arrays have a row for each example.
        count: number of examples.

    Raises:
        Misfit: an array has another shape, dtype or number of rows.
    """
    _check_names(layout, [_names(columns)])
    parts = example_parts(columns)
    return _checked_weights(tuple(_columns(spec, part, count) for spec, part in zip(layout.parts, parts, strict=True)))


def _stack_part(spec: Any, part: Any) -> Any:
    """Return features, labels or weights; `part` is a column, a dict of columns, or `()` if absent."""
    if isinstance(part, dict):
        return {name: _stack(child, part[name]) for name, child in spec.items()}
    if not part and leaves(spec):
        raise Misfit("has another structure than example 0")
    return _stack(spec, part) if part else spec


def _stack(spec: Any, values: Sequence[Any]) -> Any:
    if isinstance(spec, Leaf):
        return _stack_leaf(spec, values)
    if isinstance(spec, Mapping):
        columns = _columns_by_name(values, frozenset(spec))
        if columns is not None:
            return _stack_part(spec, columns)
        if any(not isinstance(value, Mapping) or value.keys() != spec.keys() for value in values):
            raise Misfit(f"does not have the names {', '.join(map(repr, spec))} alone")
        return {name: _stack(child, [value[name] for value in values]) for name, child in spec.items()}
    if not spec and set(map(type, values)) == {tuple} and not any(values):
        return spec
    if any(len(value) != len(spec) if is_nest(value) else value is not None or spec for value in values):
        raise Misfit("has another structure than example 0")
    children = [_stack(child, [value[index] for value in values]) for index, child in enumerate(spec)]
    return type(spec)(*children) if hasattr(spec, "_fields") else type(spec)(children)


def _stack_leaf(leaf: Leaf, values: Sequence[Any]) -> np.ndarray:
    out = aligned_empty((len(values), *leaf.shape), leaf.dtype)
    try:
        if not leaf.shape:
            own_forms = any(hasattr(kind, "__array__") for kind in set(map(type, values)))  # such as tensors
            _assign(out, np.array(list(map(np.asanyarray, values)) if own_forms else values))
            return out
        arrays = values if set(map(type, values)) == {np.ndarray} else list(map(np.asanyarray, values))
        if set(map(len, arrays)) != {leaf.shape[0]}:  # `np.concatenate` checks the other axes
            raise ValueError("another length")
        joined = out.reshape(len(values) * leaf.shape[0], *leaf.shape[1:])
        np.concatenate(arrays, out=joined, casting="safe")  # three times as fast as `np.stack` for rows of 1 KB
    except (ValueError, TypeError):
        found = [_form_of(value) for value in values]
        other = next((form for form in found if form != (leaf.shape, leaf.dtype)), found[0])
        raise Misfit(f"has {other[1]} of shape {other[0]} where example 0 has {leaf.dtype} of {leaf.shape}") from None
    return out


def _form_of(value: Any) -> tuple[Any, Any]:
    try:
        array = np.asanyarray(value)
    except (ValueError, TypeError):
        return "unequal lengths", type(value).__name__
    return array.shape, array.dtype


def _columns(spec: Any, given: Any, count: int) -> Any:
    arrays = dict(leaves(_arrays(given)))
    if arrays.keys() != {name for name, _ in leaves(spec)}:
        raise Misfit(f"has the arrays {', '.join(map(repr, arrays))}, unlike example 0")

    def column(leaf: Leaf, name: str) -> np.ndarray:
        value = arrays[name]
        if value.shape != (count, *leaf.shape):
            raise Misfit(f"is read as an array of shape {value.shape}, not {(count, *leaf.shape)}")
        out = aligned_empty(value.shape, leaf.dtype)
        try:
            _assign(out, value)
        except TypeError:
            raise Misfit(f"is read as {value.dtype}, not {leaf.dtype} as example 0") from None
        return out

    return map_nest(column, spec)


def _assign(out: np.ndarray, values: np.ndarray) -> None:
    if values.shape != out.shape:
        raise ValueError("another shape")
    np.copyto(out, values, casting="safe")


def _checked_weights(rows: RowNests) -> RowNests:
    for _, weights in leaves(rows[2]):
        if not np.all((weights >= 0) & (weights < np.inf)):
            raise Misfit("has a weight that is negative or not finite; weights must be finite numbers >= 0")
    return rows
