"""Where examples come from: arrays in memory or memory-mapped, SciPy CSR, dicts of these, or prepared text.

Decides: how rows become the arrays a model is fed. Never: which rows, or in which order.

    examples = array_examples({"image": images, "age": ages}, labels)
    examples = part_examples(open_dataset(folder).parts["train"], length=400)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse

from distrain.aligned_memory import aligned_copy, aligned_empty
from distrain.batch import Memory
from distrain.data.examples import CsrRows, Examples, Features, PackedRows, Take
from distrain.data.readahead import read_ahead
from distrain.data.row_kernels import chunks_of_rows, gather_rows, pack_rows, pad_rows, write_row_ids
from distrain.data.rows import Rows, Span, pick_rows, span_lengths
from distrain.data.shards import Part
from distrain.errors import ConfigurationError, DataError

MAX_INT32 = 2**31 - 1
DIGEST_BYTES = 2**20


def array_examples(features: Features, labels: Any, weights: Any = None) -> Examples:
    """Examples out of arrays.

    Args:
        features: `[n, ...]` array, `np.memmap`, SciPy sparse matrix (kept as CSR), or a dict of these.
        labels: `[n, ...]` array.
        weights: `[n]` array of finite weights >= 0, or None.

    Raises:
        ConfigurationError: lengths differ, there are no examples, or a value is of a kind that cannot be fed.
    """
    labels = np.asanyarray(labels)
    if labels.ndim == 0 or len(labels) == 0:
        raise ConfigurationError("The labels are empty; training needs at least one example.")
    if isinstance(features, Mapping):
        inputs = {str(name): _checked(name, value, len(labels)) for name, value in features.items()}
        if not inputs:
            raise ConfigurationError("The features are an empty dict; give at least one input.")
    else:
        inputs = {"": _checked("x", features, len(labels))}
    if weights is not None:
        weights = np.asarray(weights, np.float32)
        if weights.shape != (len(labels),):
            raise ConfigurationError(
                f"The weights have shape {weights.shape}; they must be one per label, ({len(labels)},)."
            )
        if not (np.all(np.isfinite(weights)) and np.all(weights >= 0)):
            raise ConfigurationError("A weight is negative or not finite; weights must be finite numbers >= 0.")

    def load(runs: np.ndarray, chosen: np.ndarray, memory: Memory = np.empty) -> Take:
        examples = np.concatenate([np.arange(start, stop) for start, stop in runs])[chosen]

        def take(start: int, stop: int) -> tuple[Features, np.ndarray]:
            rows = examples[start:stop]
            taken = {name: _take_rows(value, rows) for name, value in inputs.items()}
            return (taken if isinstance(features, Mapping) else taken[""]), np.asarray(labels[rows])

        return take

    def expect(runs: np.ndarray) -> None:
        for value in inputs.values():
            if isinstance(value, np.ndarray):
                read_ahead(value, runs.tolist())

    sparse = {name: value for name, value in inputs.items() if scipy.sparse.issparse(value)}
    num_columns = {name: value.shape[1] for name, value in sparse.items()}
    sizes = {name: partial(_entries, value.indptr) for name, value in sparse.items()}
    arrays = [*(array for value in inputs.values() for array in _arrays_of(value)), labels]
    digest = _digest([*arrays, *([] if weights is None else [weights])])
    return Examples(len(labels), load, num_columns, digest, weights, expect, sizes)


def _entries(row_splits: np.ndarray, runs: np.ndarray) -> np.ndarray:
    """Of each row of runs (start, stop), int64."""
    return np.concatenate([np.diff(row_splits[start : stop + 1]) for start, stop in runs.tolist()]).astype(np.int64)


def _arrays_of(value: Any) -> list[np.ndarray]:
    return [value.indptr, value.indices, value.data] if scipy.sparse.issparse(value) else [value]


def _digest(arrays: list[np.ndarray]) -> str:
    """Names arrays by shape, type, first and last rows: telling other data apart must not read all of it."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        rows = max(1, DIGEST_BYTES // max(1, array.nbytes // max(1, len(array))))
        for end in (array[:rows], array[-rows:]):
            digest.update(np.ascontiguousarray(end).tobytes())
    return digest.hexdigest()


def _checked(name: object, value: Any, num_examples: int) -> Any:
    if scipy.sparse.issparse(value):
        matrix = value.tocsr()
        try:
            matrix.check_format(full_check=True)  # row kernels index memory by what it holds
        except ValueError as error:
            raise ConfigurationError(f"Input {name!r} is a damaged sparse matrix: {error}.") from None
        if not matrix.has_canonical_format:
            matrix = matrix.copy()
            matrix.sum_duplicates()
        matrix = scipy.sparse.csr_matrix(
            (matrix.data.astype(np.float32, copy=False), matrix.indices, matrix.indptr), shape=matrix.shape
        )
        if matrix.shape[1] > MAX_INT32:
            raise ConfigurationError(
                f"Input {name!r} has {matrix.shape[1]:,} columns; at most {MAX_INT32:,} are possible."
            )
        value = matrix
    else:
        value = np.asanyarray(value)
        if value.dtype.kind not in "biuf" or value.ndim == 0:
            raise ConfigurationError(
                f"Input {name!r} is {value.dtype} of shape {value.shape}; give numbers of shape [examples, ...]."
            )
    if value.shape[0] != num_examples:
        raise ConfigurationError(f"Input {name!r} has {value.shape[0]:,} rows, but there are {num_examples:,} labels.")
    return value


def _take_rows(value: Any, rows: np.ndarray) -> Features:
    if scipy.sparse.issparse(value):
        return CsrRows(*gather_rows(value.indptr, value.indices, value.data, rows))
    return aligned_copy(value[rows])  # `np.take` into aligned memory would first copy all of what is not in C order


def rows_examples(
    rows: Rows, *, kind: str, num_features: int, length: int, pad_multiple: int | None = None
) -> Examples:
    """A block of rows in memory: `CsrRows` for n-grams; sequences as int32 `[b, length]` padded with 0, or packed.

    Args:
        rows: the block.
        kind: "ngram" or "sequence".
        num_features: columns, or word ids, are below it.
        length: of padded rows.
        pad_multiple: packed rows begin at multiples of this number of tokens; None pads rows to `length`.
    """

    def spans(runs: np.ndarray) -> list[Span]:
        return [Span(rows, start, stop) for start, stop in runs.tolist()]

    def gather(runs: np.ndarray, chosen: np.ndarray, memory: Memory) -> Rows:
        picked, _ = pick_rows(spans(runs), chosen, memory)
        return picked

    def lengths(runs: np.ndarray) -> np.ndarray:
        return span_lengths(spans(runs))

    return _ragged_examples(gather, lengths, rows.num_rows, kind, num_features, length, pad_multiple)


def part_examples(part: Part, *, length: int, pad_multiple: int | None = None) -> Examples:
    """The rows of a prepared part, in the same forms.

    Raises:
        DataError: the part has no rows, or later, in `load`, a shard is damaged.
    """
    if part.num_rows == 0:
        raise DataError(f"{part.directory} has no {part.name} rows. Run 'distrain prepare' with more rows.")
    examples = _ragged_examples(
        part.gather, part.lengths, part.num_rows, part.kind, part.num_features, length, pad_multiple
    )
    return replace(examples, expect=part.expect)


def _ragged_examples(
    gather: Callable[[np.ndarray, np.ndarray, Memory], Rows],
    lengths: Callable[[np.ndarray], np.ndarray],
    num_rows: int,
    kind: str,
    num_features: int,
    length: int,
    pad_multiple: int | None,
) -> Examples:
    def load(runs: np.ndarray, chosen: np.ndarray, memory: Memory = np.empty) -> Take:
        return partial(_laid_out, gather(runs, chosen, memory), length, pad_multiple)

    if kind == "ngram":
        return Examples(num_rows, load, {"": num_features}, "", sizes={"": lengths})
    if pad_multiple is None:
        return Examples(num_rows, load, {}, "")
    return Examples(
        num_rows, load, {"": num_features}, "", sizes={"": lambda runs: _packed_tokens(lengths(runs), pad_multiple)}
    )


def _packed_tokens(lengths: np.ndarray, pad_multiple: int) -> np.ndarray:
    return chunks_of_rows(lengths, pad_multiple) * pad_multiple


def _laid_out(block: Rows, length: int, pad_multiple: int | None, start: int, stop: int) -> tuple[Features, np.ndarray]:
    """Rows of a block as features, and their labels; what is large is where a step can read it."""
    splits, columns, values, labels = block.slice(start, stop)
    if values is not None:
        row_ids = aligned_empty(columns.shape, np.int32)
        write_row_ids(splits, row_ids)
        return CsrRows(row_ids, aligned_copy(columns), aligned_copy(values)), labels
    if pad_multiple is not None:
        return PackedRows(*pack_rows(splits, columns, pad_multiple)), labels
    return pad_rows(splits, columns, length), labels
