"""Which arrays are taken as features, labels and weights; all others are refused in one sentence.

Decides: which lists are arrays and which are nests, and which types, lengths and values are accepted. Never: reads rows
of features.

    features, labels, weights = checked_arrays({"age": [30, 40], "image": images}, [0, 1], [0.5, 2.0])
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import scipy.sparse

from distrain.data.bus_errors import report_lost_pages
from distrain.data.nests import children, is_nest, leaves, map_children, map_nest
from distrain.errors import ConfigurationError

MAX_INT32 = 2**31 - 1
MAX_ITEM_BYTES = 8  # of a number
CHECKED_BYTES = 2**24  # weights that are checked at a time, so that a memory map never fills the memory


def checked_arrays(features: Any, labels: Any, weights: Any) -> tuple[Any, Any, Any]:
    """Return features, labels and weights as nests of arrays with as many rows; `()` for labels or weights of None.

    Raises:
        ConfigurationError: lengths differ, there are no examples, or a type is not supported.
    """
    labels = checked_labels(labels)
    features = checked_features(features, num_rows_of(labels, "labels") if leaves(labels) else None)
    weights = checked_weights(weights, labels, num_rows_of(features, "features"))
    for _, array in [named for nest in (features, labels, weights) for named in leaves(nest)]:
        report_lost_pages(array)
    return features, labels, weights


def array_nest(given: Any) -> Any:
    """Return a nest of arrays and sparse matrices, with `()` in place of None.

    A dict is a nest. A list or tuple is a nest if it contains an array, a dict or None, at any depth. Any other list
    consists of numbers, such as `[0, 1, 1]` or `[[1, 0], [0, 1]]`, and becomes one array. A pandas Series becomes
    `[n, 1]`, as in Keras.
    """
    if given is None:
        return ()
    if isinstance(given, Mapping) and (odd := [key for key in given if not isinstance(key, str)]):
        raise ConfigurationError(f"A dict has the name {odd[0]!r}, which is no text. Name each array by a text.")
    if isinstance(given, Mapping) or (isinstance(given, (list, tuple)) and _contains_array(given)):
        return map_children(lambda key, value: array_nest(value), given)
    if scipy.sparse.issparse(given):
        return given
    try:
        array = np.asanyarray(given)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(f"A {type(given).__name__} is not an array of numbers: {error}.") from None
    if isinstance(array, np.ma.MaskedArray):
        raise ConfigurationError(
            "A masked array would lose its mask: give numbers for masked values, by .filled(value)."
        )
    return array[:, None] if hasattr(given, "iloc") and array.ndim == 1 else array


def is_number(dtype: np.dtype[Any]) -> bool:
    """Whether arrays of a dtype hold numbers or booleans that TensorFlow takes, which have at most 64 bits."""
    return dtype.kind in "biuf" and dtype.itemsize <= MAX_ITEM_BYTES


def _contains_array(given: Any) -> bool:
    if isinstance(given, (list, tuple)):
        return any(map(_contains_array, given))
    return given is None or isinstance(given, Mapping) or len(getattr(given, "shape", ())) > 0


def num_rows_of(nest: Any, what: str) -> int:
    """Return the number of rows of the first array of a nest.

    Raises:
        ConfigurationError: the array has no rows.
    """
    _, value = leaves(nest)[0]
    if not value.shape or not value.shape[0]:
        raise ConfigurationError(f"The {what} are empty; training needs at least one example.")
    return int(value.shape[0])


def checked_features(given: Any, num_examples: int | None, *, counted: str = "labels") -> Any:
    """Return features as a nest of arrays and CSR matrices.

    Args:
        given: the features.
        num_examples: rows that each input must have; None for the rows of the first input.
        counted: what `num_examples` counts, for messages.
    """
    features = array_nest(given)
    if not leaves(features):
        kind = f"an empty {type(given).__name__}" if is_nest(given) else given
        raise ConfigurationError(f"The features are {kind}; give at least one input.")
    if num_examples is None:
        num_examples, counted = num_rows_of(features, "features"), "rows of the first input"

    def check(value: Any, name: str) -> Any:
        name = name or "x"
        if scipy.sparse.issparse(value):
            value = _checked_matrix(value, name)
        elif not is_number(value.dtype) or value.ndim == 0:
            raise ConfigurationError(
                f"Input {name!r} is {value.dtype} of shape {value.shape}; give numbers of at most 64 bits, such as "
                "float32, of shape [examples, ...]."
            )
        if value.shape[0] != num_examples:
            raise ConfigurationError(
                f"Input {name!r} has {value.shape[0]:,} rows, but there are {num_examples:,} {counted}."
            )
        return value

    return map_nest(check, features)


def _checked_matrix(value: Any, name: str) -> scipy.sparse.csr_matrix:
    matrix = value.tocsr()
    try:
        matrix.check_format(full_check=True)  # row kernels use the matrix' indices without bounds checks
    except ValueError as error:
        raise ConfigurationError(f"Input {name!r} is a damaged sparse matrix: {error}.") from None
    if not matrix.has_canonical_format:
        matrix = matrix.copy()
        matrix.sum_duplicates()
    matrix = scipy.sparse.csr_matrix(
        (matrix.data.astype(np.float32, copy=False), matrix.indices, matrix.indptr), shape=matrix.shape
    )
    if matrix.shape[1] > MAX_INT32:
        raise ConfigurationError(f"Input {name!r} has {matrix.shape[1]:,} columns; at most {MAX_INT32:,} are possible.")
    return matrix


def checked_labels(given: Any) -> Any:
    """Return labels as a nest of arrays with the same number of rows; `()` for None."""
    labels = array_nest(given)
    if not leaves(labels):
        return ()
    num_examples, first = num_rows_of(labels, "labels"), leaves(labels)[0][0]

    def check(value: Any, name: str) -> Any:
        _check_numbers(value, "label", name)
        if value.shape[0] != num_examples:
            raise ConfigurationError(
                f"Label {name!r} has {value.shape[0]:,} rows, but label {first!r} has {num_examples:,}."
            )
        return value

    return map_nest(check, labels)


def checked_weights(given: Any, labels: Any, num_examples: int) -> Any:
    """Return weights as a nest of floating arrays of the structure of `labels`; `()` for None.

    As in Keras, one array `[n]` or `[n, 1]` beside several labels weighs each of them.
    """
    weights = array_nest(given)
    if not leaves(weights):
        return ()

    def check(value: Any, name: str) -> Any:
        _check_numbers(value, "weight", name)
        if value.shape[0] != num_examples:
            raise ConfigurationError(
                f"The weights{f' {name!r}' if name else ''} have shape {value.shape}; they must be one per label, "
                f"({num_examples},), or one row per label, ({num_examples}, ...)."
            )
        return _checked_values(value if value.dtype.kind == "f" else value.astype(np.float32), name)

    weights = map_nest(check, weights)
    if is_nest(labels) and labels and not is_nest(weights):
        if weights.shape not in ((num_examples,), (num_examples, 1)):
            raise ConfigurationError(
                f"The weights have shape {weights.shape}, but there are several labels: give one weight per example, "
                "or weights for each label in the structure of the labels."
            )
        return map_nest(lambda label, name: weights, labels)
    if not _fit(weights, labels):
        raise ConfigurationError(
            f"The weights are {_structure(weights)}, but the labels are {_structure(labels)}: give weights, or None, "
            "for each label in the structure of the labels."
        )
    return weights


def _check_numbers(value: Any, what: str, name: str) -> None:
    subject = f"{what.capitalize()} {name!r} is" if name else f"The {what}s are"
    if scipy.sparse.issparse(value):
        raise ConfigurationError(f"{subject} a sparse matrix; give a dense array, as from toarray().")
    if not is_number(value.dtype) or value.ndim == 0:
        kind = value.dtype.type.__name__.rstrip("_")
        raise ConfigurationError(
            f"{subject} {kind} of shape {value.shape}; give numbers or booleans of shape [examples, ...]."
        )


def _checked_values(weights: np.ndarray, name: str) -> np.ndarray:
    rows = max(1, CHECKED_BYTES // max(1, weights[:1].nbytes))
    for start in range(0, len(weights), rows):
        part = weights[start : start + rows]
        if not np.all((part >= 0) & (part < np.inf)):
            raise ConfigurationError(
                f"A weight{f' of {name!r}' if name else ''} is negative or not finite; weights must be finite "
                "numbers >= 0."
            )
    return weights


def _fit(weights: Any, labels: Any) -> bool:
    """Whether weights have the structure of labels; no weights fit any label."""
    if not is_nest(weights):
        return not (is_nest(labels) and labels)
    if not weights:
        return True
    if not is_nest(labels) or isinstance(weights, Mapping) != isinstance(labels, Mapping):
        return False
    own, wanted = dict(children(weights)), dict(children(labels))
    return own.keys() == wanted.keys() and all(_fit(own[key], wanted[key]) for key in own)


def _structure(nest: Any) -> str:
    """Describe a nest, as in "a dict of 'a', 'b'"."""
    if not is_nest(nest):
        return "one array"
    return f"a {type(nest).__name__} of {', '.join(repr(key) for key, _ in children(nest)) or 'nothing'}"
