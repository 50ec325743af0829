"""Sources of examples: arrays, memory maps, SciPy matrices, dicts of inputs, and prepared text.

Decides: how rows become the arrays of a batch. Never: which rows, or in which order.

    >>> examples = array_examples({"age": np.array([30, 40, 50])}, labels=np.array([0, 1, 1]))
    >>> features, labels = examples.load(np.array([[0, 3]]), np.array([2, 0]))(0, 2)
    >>> features["age"].tolist(), labels.tolist()
    ([50, 30], [1, 0])
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
from distrain.data.examples import CsrRows, Examples, Features, PackedRows, RowReader
from distrain.data.readahead import read_ahead
from distrain.data.row_kernels import chunks_of_rows, gather_rows, pack_rows, pad_rows, write_row_ids
from distrain.data.rows import Rows, RowSpan, pick_rows, span_lengths
from distrain.data.shards import Part
from distrain.errors import ConfigurationError, DataError

MAX_INT32 = 2**31 - 1
DIGEST_BYTES = 2**20


def array_examples(features: Features, labels: Any, weights: Any = None) -> Examples:
    """Use arrays as examples.

    Args:
        features: `[n, ...]` array, `np.memmap`, SciPy sparse matrix (kept as CSR), or a dict of these.
        labels: `[n, ...]` array.
        weights: `[n]` array of finite weights >= 0, or None.

    Raises:
        ConfigurationError: lengths differ, there are no examples, or a type is not supported.
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

    def load(spans: np.ndarray, indices: np.ndarray, memory: Memory = np.empty) -> RowReader:
        examples = np.concatenate([np.arange(start, stop) for start, stop in spans])[indices]

        def read(start: int, stop: int) -> tuple[Features, np.ndarray]:
            rows = examples[start:stop]
            values = {name: _gather(value, rows) for name, value in inputs.items()}
            return (values if isinstance(features, Mapping) else values[""]), np.asarray(labels[rows])

        return read

    def will_need(spans: np.ndarray) -> None:
        for value in inputs.values():
            if isinstance(value, np.ndarray):
                read_ahead(value, spans.tolist())

    sparse = {name: value for name, value in inputs.items() if scipy.sparse.issparse(value)}
    num_columns = {name: value.shape[1] for name, value in sparse.items()}
    row_sizes = {name: partial(_entries, value.indptr) for name, value in sparse.items()}
    arrays = [*(array for value in inputs.values() for array in _arrays_of(value)), labels]
    digest = _digest([*arrays, *([] if weights is None else [weights])])
    return Examples(len(labels), load, num_columns, digest, weights, will_need, row_sizes)


def _entries(row_splits: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """Entries of each row of the spans, int64."""
    return np.concatenate([np.diff(row_splits[start : stop + 1]) for start, stop in spans.tolist()]).astype(np.int64)


def _arrays_of(value: Any) -> list[np.ndarray]:
    return [value.indptr, value.indices, value.data] if scipy.sparse.issparse(value) else [value]


def _digest(arrays: list[np.ndarray]) -> str:
    """Hash shapes, dtypes, first and last rows, because hashing arrays larger than memory would delay every start."""
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


def _gather(value: Any, rows: np.ndarray) -> Features:
    if scipy.sparse.issparse(value):
        return CsrRows(*gather_rows(value.indptr, value.indices, value.data, rows))
    return aligned_copy(value[rows])  # `np.take` into aligned memory would first copy a whole array in Fortran order


def rows_examples(
    rows: Rows, *, kind: str, num_features: int, length: int, pad_multiple: int | None = None
) -> Examples:
    """Use rows in memory as examples.

    N-gram rows become `CsrRows`. Sequences become int32 `[b, length]`, cut or padded with 0, or `PackedRows`.

    Args:
        rows: rows in memory.
        kind: "ngram" or "sequence".
        num_features: exclusive upper bound of columns or word ids.
        length: words in a padded sequence.
        pad_multiple: packed rows begin at multiples of this number of tokens; None pads rows to `length`.
    """

    def row_spans(spans: np.ndarray) -> list[RowSpan]:
        return [RowSpan(rows, start, stop) for start, stop in spans.tolist()]

    def gather(spans: np.ndarray, indices: np.ndarray, memory: Memory) -> Rows:
        picked, _ = pick_rows(row_spans(spans), indices, memory)
        return picked

    def lengths(spans: np.ndarray) -> np.ndarray:
        return span_lengths(row_spans(spans))

    return _ragged_examples(gather, lengths, rows.num_rows, kind, num_features, length, pad_multiple)


def part_examples(part: Part, *, length: int, pad_multiple: int | None = None) -> Examples:
    """Use the rows of a prepared part as examples, in the forms of `rows_examples`.

    Raises:
        DataError: the part has no rows, or `load` later finds a damaged shard.
    """
    if part.num_rows == 0:
        raise DataError(f"{part.directory} has no {part.name} rows. Run 'distrain prepare' with more rows.")
    examples = _ragged_examples(
        part.gather, part.lengths, part.num_rows, part.kind, part.num_features, length, pad_multiple
    )
    return replace(examples, will_need=part.will_need)


def _ragged_examples(
    gather: Callable[[np.ndarray, np.ndarray, Memory], Rows],
    lengths: Callable[[np.ndarray], np.ndarray],
    num_rows: int,
    kind: str,
    num_features: int,
    length: int,
    pad_multiple: int | None,
) -> Examples:
    def load(spans: np.ndarray, indices: np.ndarray, memory: Memory = np.empty) -> RowReader:
        return partial(_to_features, gather(spans, indices, memory), length, pad_multiple)

    if kind == "ngram":
        return Examples(num_rows, load, {"": num_features}, "", row_sizes={"": lengths})
    if pad_multiple is None:
        return Examples(num_rows, load, {}, "")
    packed_tokens = partial(_packed_tokens, lengths, pad_multiple)
    return Examples(num_rows, load, {"": num_features}, "", row_sizes={"": packed_tokens})


def _packed_tokens(lengths: Callable[[np.ndarray], np.ndarray], pad_multiple: int, spans: np.ndarray) -> np.ndarray:
    return chunks_of_rows(lengths(spans), pad_multiple) * pad_multiple


def _to_features(
    rows: Rows, length: int, pad_multiple: int | None, start: int, stop: int
) -> tuple[Features, np.ndarray]:
    """Features and labels of rows start .. stop - 1, in aligned memory, which TensorFlow does not copy."""
    splits, columns, values, labels = rows.slice(start, stop)
    if values is not None:
        row_ids = aligned_empty(columns.shape, np.int32)
        write_row_ids(splits, row_ids)
        return CsrRows(row_ids, aligned_copy(columns), aligned_copy(values)), labels
    if pad_multiple is not None:
        return PackedRows(*pack_rows(splits, columns, pad_multiple)), labels
    return pad_rows(splits, columns, length), labels
