"""Nests: a value, or lists, tuples and dicts of values, as Keras takes several inputs, labels and weights.

Decides: which values are nests, and how a value of a nest is named. Never: what the values are.

    >>> map_nest(lambda value, name: f"{name}: {value}", {"image": 1, "words": (2, 3)})
    {'image': 'image: 1', 'words': ('words/0: 2', 'words/1: 3')}
    >>> leaves({"image": 1, "words": (2, 3)}), leaves(4), leaves(())
    ([('image', 1), ('words/0', 2), ('words/1', 3)], [('', 4)], [])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from distrain.batch import SparseRows, WordRows
from distrain.data.examples import CsrRows, PackedRows

_VALUES = (CsrRows, PackedRows, SparseRows, WordRows)  # tuples that are values, not nests


def is_nest(value: Any) -> bool:
    """Whether `value` is a list, a tuple or a dict, and no rows of any length."""
    if isinstance(value, np.ndarray):  # most values are arrays, and to ask for a Mapping takes ten times as long
        return False
    return isinstance(value, (list, tuple, Mapping)) and not isinstance(value, _VALUES)


def children(nest: Any) -> list[tuple[str, Any]]:
    """Return key and value of each item of a list, tuple or dict; the keys are positions or names."""
    if isinstance(nest, (list, tuple)):
        keys = getattr(nest, "_fields", map(str, range(len(nest))))
        return list(zip(keys, nest, strict=True))
    return [(str(key), value) for key, value in nest.items()]


def map_children(function: Callable[[str, Any], Any], nest: Any) -> Any:
    """Return a list, tuple or dict with `function(key, value)` in place of each value."""
    mapped = {key: function(key, value) for key, value in children(nest)}
    if isinstance(nest, list):
        return list(mapped.values())
    if isinstance(nest, tuple):
        return type(nest)(**mapped) if hasattr(nest, "_fields") else tuple(mapped.values())
    return mapped


def map_nest(function: Callable[[Any, str], Any], nest: Any, name: str = "") -> Any:
    """Return the nest with `function(value, name)` in place of each value.

    Args:
        function: receives a value and its name: the keys on the way to the value, joined by "/".
        nest: a nest; a single value has the name "".
        name: name of the whole nest within a larger one.
    """
    if not is_nest(nest):
        return function(nest, name)
    return map_children(lambda key, value: map_nest(function, value, f"{name}/{key}" if name else key), nest)


def leaves(nest: Any) -> list[tuple[str, Any]]:
    """Return the name and the value of each leaf, in the order of the nest."""
    found: list[tuple[str, Any]] = []
    map_nest(lambda value, name: found.append((name, value)), nest)
    return found


def concatenated(nests: Sequence[Any]) -> Any:
    """Return nests of arrays of one structure as one nest, whose arrays have the rows of all."""
    columns = zip(*([value for _, value in leaves(nest)] for nest in nests), strict=True)
    arrays = iter([np.concatenate(column) for column in columns])
    return map_nest(lambda value, name: next(arrays), nests[0])
