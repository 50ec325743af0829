"""Which columns of a file are features, label and weight, and how columns become the arrays of an example.

Decides: the meaning of `features`, `label` and `weight`, alike for all formats. Never: reads a file.

    >>> number = Column(rows=2, dtype=np.dtype("float32"), shape=())
    >>> parts = chosen_parts({"age": number, "income": number, "y": number}, features=None, label=None, weight=None)
    >>> assembled(parts, {"age": np.ones(2), "income": np.zeros(2), "y": np.array([0, 1])})
    (array([[1., 0.],
           [1., 0.]]), array([0, 1]))

A column is a column of a table, or a named array of a file. `features` and `label` are one of:

    "image"                              this column, as it is stored
    ["age", "income"]                    one vector of these columns, in this order
    {"image": "pixels", "table": [...]}  several inputs of the model, by name

Without `features`, all columns but label and weight are features: one vector if each column holds a single number, else
an input for each column. Without `label` and `weight`, a column named "label", "labels" or "y" is the label, and one
named "weight", "weights" or "sample_weight" the weight. An array of a group counts by the last part of its name.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distrain.data.by_position.elements import LABEL_NAMES, WEIGHT_NAMES
from distrain.data.nests import leaves, map_nest
from distrain.errors import ConfigurationError, DataError

Names = str | Sequence[str] | Mapping[str, str | Sequence[str]]

OBJECTS = np.dtype(object)
NUMBERS = "biuf"  # kinds of dtypes that are numbers or booleans
MAX_ROWS_PER_BYTE = 1024  # a file of a few bytes can declare any number of rows
FEWEST_ROWS = 2**20  # allowed in any file: constant columns of a small file take next to no bytes
_MAX_SHOWN = 20  # names in a message


@dataclass(frozen=True)
class Column:
    """A column of a table, or a named array of a file.

    Attributes:
        rows: number of rows.
        dtype: dtype of its values as they are read; `OBJECTS` for texts and bytes, which `map=` turns into numbers.
        shape: shape of a row; None where only reading shows the shape.
        stored_rows: rows that the file holds together; 1 if each row can be read alone.
        problem: a clause that says why the column cannot be read; empty if it can.
    """

    rows: int
    dtype: np.dtype[Any] = OBJECTS
    shape: tuple[int, ...] | None = None
    stored_rows: int = 1
    problem: str = ""

    @property
    def is_number(self) -> bool:
        """Whether each row is a single number."""
        return not self.problem and self.shape == () and self.dtype.kind in NUMBERS


@dataclass(frozen=True)
class Array:
    """One array of an example.

    Attributes:
        names: its columns.
        joined: whether the columns become one vector; else there is one column, which stays as it is stored.
    """

    names: tuple[str, ...]
    joined: bool


Parts = tuple[Any, ...]  # (features,), (features, label) or (features, label, weight): nests of `Array`


def chosen_parts(
    columns: Mapping[str, Column], *, features: Names | None, label: Names | None, weight: str | None
) -> Parts:
    """Return the columns of features, label and weight.

    Args:
        columns: all columns by name, in the order of the file.
        features: as described above.
        label: as described above.
        weight: name of a column.

    Raises:
        ConfigurationError: a column does not exist, or there are no features.
    """
    label = _default(columns, LABEL_NAMES) if label is None else label
    weight = _default(columns, WEIGHT_NAMES) if weight is None else weight
    others = [_nest(columns, given, argument) for given, argument in ((label, "label"), (weight, "weight"))]
    if features is None:
        used = {name for nest in others for name in names_of((nest,))}
        features = _default_features({name: column for name, column in columns.items() if name not in used})
    nest = _nest(columns, features, "features")
    if not names_of((nest,)):
        raise ConfigurationError(f"There are no features among the columns {shown(columns)}.")
    if others[1] != () and others[0] == ():
        raise ConfigurationError(f"{weight!r} is a weight, but no column is the label: name one by label=.")
    return (nest, *(other for other in others if other != ()))


def names_of(parts: Parts) -> tuple[str, ...]:
    """Return the names of all columns that an example needs, each once."""
    return tuple(dict.fromkeys(name for _, array in leaves(parts) for name in array.names))


def assembled(parts: Parts, values: Mapping[str, np.ndarray]) -> tuple[Any, ...]:
    """Return several examples as arrays with a row for each, from their columns `[rows, ...]`."""
    return tuple(map_nest(lambda array, name: _joined(array, values), parts))


def check_row_shape(path: Path, name: str, row: int, found: tuple[int, ...], wanted: tuple[int, ...]) -> None:
    """Compare the shape of a row with earlier rows; `row` counts from 0.

    Raises:
        DataError: the shapes differ.
    """
    if found != wanted:
        raise DataError(
            f"{path}, row {row + 1}: the column {name!r} has the shape {found}, and earlier rows have {wanted}. "
            "Give all rows one shape, as by padding with 0."
        )


def stacked_rows(column: Column, values: Sequence[Any]) -> np.ndarray:
    """Return the values of several rows as one array; where only reading shows the shape, as an array of objects."""
    if column.shape is None:
        return np.fromiter(values, object, len(values))
    return np.stack(values) if column.shape else np.array(values, column.dtype)


def expansion(rows: int, num_bytes: int) -> str:
    """Return a clause about a file that declares more rows than its bytes can be worth, or an empty string."""
    if rows <= max(FEWEST_ROWS, num_bytes * MAX_ROWS_PER_BYTE):
        return ""
    return (
        f"declares {rows:,} rows in {num_bytes:,} bytes, over {MAX_ROWS_PER_BYTE:,} rows a byte. It is damaged, or all "
        "of it is constant: write it again."
    )


def check_counts(path: Path, counts: Sequence[int], num_bytes: int) -> None:
    """Refuse a file that declares more rows than its bytes can be worth.

    Args:
        path: the file.
        counts: rows of each group of rows.
        num_bytes: bytes of the file.

    Raises:
        DataError: it does; shuffling alone would take memory for each row.
    """
    rows = sum(counts)
    if min(counts, default=0) < 0:
        raise DataError(f"{path} declares {min(counts):,} rows; it is damaged. Copy or write it again.")
    if problem := expansion(rows, num_bytes):
        raise DataError(f"{path} {problem}")


def shown(names: Sequence[str] | Mapping[str, Any]) -> str:
    """Return names for a message."""
    more = len(names) - _MAX_SHOWN
    return ", ".join(map(repr, list(names)[:_MAX_SHOWN])) + (f" and {more:,} more" if more > 0 else "")


def _default(columns: Mapping[str, Column], names: Sequence[str]) -> str | None:
    found = [name for name in columns if name.split("/")[-1] in names]  # of a file with groups, "train/y"
    if len(found) > 1:
        raise ConfigurationError(
            f"The columns {' and '.join(map(repr, found))} both look like the {names[0]}: choose by {names[0]}=."
        )
    return found[0] if found else None


def _default_features(columns: Mapping[str, Column]) -> Names:
    if len(columns) == 1:
        return next(iter(columns))
    return list(columns) if all(column.is_number for column in columns.values()) else {name: name for name in columns}


def _nest(columns: Mapping[str, Column], given: Names | None, argument: str) -> Any:
    if given is None:
        return ()
    if isinstance(given, Mapping):
        return {str(key): _nest(columns, value, argument) for key, value in given.items()}
    names = (given,) if isinstance(given, str) or not isinstance(given, Iterable) else tuple(given)
    if odd := [name for name in names if not isinstance(name, str)]:
        raise ConfigurationError(f"{argument}= names {odd[0]!r}; give the name of a column, a list or a dict of names.")
    for name in names:
        if name not in columns:
            raise ConfigurationError(f"{argument}= names the column {name!r}, but the columns are {shown(columns)}.")
    if len(set(names)) < len(names):
        raise ConfigurationError(f"{argument}= names a column twice: {shown(names)}.")
    return Array(names, joined=not isinstance(given, str)) if names else ()


def _joined(array: Array, values: Mapping[str, np.ndarray]) -> np.ndarray:
    if not array.joined:
        return values[array.names[0]]
    columns = [values[name] for name in array.names]
    for name, column in zip(array.names, columns, strict=True):
        if column.dtype.kind not in NUMBERS or column.ndim > 2:
            what = f"rows of shape {column.shape[1:]}" if column.dtype.kind in NUMBERS else "no numbers"
            raise DataError(
                f"The column {name!r} has {what}, and a list of columns makes one vector of numbers. "
                f"Give several inputs by a dict: features={{{name!r}: {name!r}, ...}}."
            )
    widths = [1 if column.ndim == 1 else column.shape[1] for column in columns]
    out = np.empty((len(columns[0]), sum(widths)), np.result_type(*columns))
    stop = 0
    for column, width in zip(columns, widths, strict=True):
        start, stop = stop, stop + width
        out[:, start:stop] = column.reshape(len(column), width)
    return out
