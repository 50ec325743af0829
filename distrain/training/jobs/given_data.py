"""What a user gives as data, as examples: arrays, or a source by position.

Decides: which objects are data, and what a refusal says. Never: reads more than a first example.

    train = given_examples((x, y), "train")
    train = given_examples(datasets.load_from_disk("reviews"), "train", Transform(tokenize, seed=0))
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from distrain.data.by_position.array_source import ArraySource
from distrain.data.by_position.batch_source import is_py_dataset, py_dataset_source
from distrain.data.by_position.element_stream import is_stream
from distrain.data.by_position.source_reader import is_positional
from distrain.data.by_position.transforms import Transform
from distrain.data.examples import Examples
from distrain.data.positional import positional_examples
from distrain.data.sources import array_examples
from distrain.data.workers.pool import WorkerPool
from distrain.errors import ConfigurationError

MAX_SHOWN = 10  # names of classes in a message

FORMS = (
    "give a tuple (x, y) or (x, y, weights) of arrays, or a source: an object with __len__ and __getitem__ that "
    "returns one example (x, y) for a number"
)


def given_examples(
    data: Any, name: str, transform: Transform | None = None, workers: WorkerPool | None = None
) -> Examples:
    """Return data of a user as examples.

    Args:
        data: a tuple of arrays, a `keras.utils.PyDataset`, or a source by position.
        name: the argument's name, for messages.
        transform: changes each example.
        workers: processes that read and transform the examples of a source; None reads in this process.

    Raises:
        ConfigurationError: `data` is neither, or arrays do not fit together.
        DataError: the first example cannot be read or is no example.
    """
    options: dict[str, Any] = {"transform": transform, "name": name, "workers": workers}
    if isinstance(data, tuple):
        if len(data) not in (2, 3):
            raise ConfigurationError(f"{name} has length {len(data)}: {FORMS}. Of a model without labels, y is None.")
        return positional_examples(ArraySource(*data), **options) if transform else array_examples(*data)
    if is_py_dataset(data):
        return positional_examples(py_dataset_source(data, name), **options)
    if isinstance(data, np.ndarray) or hasattr(data, "iloc") or (isinstance(data, list) and _is_list_of_arrays(data)):
        raise ConfigurationError(f"{name} is of type {type(data).__name__} and has no labels of its own: {FORMS}.")
    if not is_positional(data) or isinstance(data, (str, bytes, dict)):
        raise ConfigurationError(f"{name} is of type {type(data).__name__}: {_way_on(data)}.")
    return positional_examples(data, **options)


def _way_on(data: Any) -> str:
    """Return the way on for data that is read in one direction alone, else the forms of data."""
    if not is_stream(data) or isinstance(data, (str, bytes)):
        return FORMS
    return (
        "data that is read from its start alone has no example by number. Write it to disk once, by "
        "'distrain prepare --source package.module:function --out DIR' and then --data DIR, or by "
        "distrain.fit(..., cache=DIR)"
    )


def _is_list_of_arrays(data: list[Any]) -> bool:
    """Whether a list looks like [x, y], which is no list of examples."""
    return len(data) in (2, 3) and all(isinstance(value, np.ndarray) and value.ndim for value in data)


def class_names_of(parts: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the classes by number, which a source may give as `class_names`; empty if none gives names.

    Args:
        parts: data by name of the part.

    Raises:
        ConfigurationError: two parts number their classes differently.
    """
    named = {name: tuple(map(str, getattr(part, "class_names", None) or ())) for name, part in parts.items()}
    (first, names), *others = [(name, found) for name, found in named.items() if found] or [("", ())]
    for name, found in others:
        if found != names:
            raise ConfigurationError(
                f"{name} has the classes {_shown(found)}, but {first} has {_shown(names)}, so equal numbers mean "
                "different classes: give both the same class_names."
            )
    return names


def _shown(names: tuple[str, ...]) -> str:
    return ", ".join(names[:MAX_SHOWN]) + (f", ... ({len(names):,} in all)" if len(names) > MAX_SHOWN else "")
