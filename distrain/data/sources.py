"""Sources of examples: nests of arrays, memory maps and SciPy matrices, and prepared text.

Decides: how rows become the arrays of a batch. Never: which rows, or in which order.

    >>> examples = array_examples({"age": np.array([30, 40, 50])}, labels=np.array([0, 1, 1]))
    >>> features, labels, weights = examples.load(np.array([[0, 3]]), np.array([2, 0]))(0, 2)
    >>> features["age"].tolist(), labels.tolist(), weights
    ([50, 30], [1, 0], ())
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse

from distrain.aligned_memory import aligned_copy, aligned_empty
from distrain.batch import Memory
from distrain.data.array_checks import checked_arrays, num_rows_of
from distrain.data.examples import CsrRows, Examples, Features, PackedRows, RowNests, RowReader
from distrain.data.nests import leaves, map_nest
from distrain.data.prepared.rows import Rows, RowSpan, pick_rows, span_lengths
from distrain.data.prepared.shards import Part
from distrain.data.readahead import read_ahead
from distrain.data.row_kernels import chunks_of_rows, gather_rows, pack_rows, pad_rows, write_row_ids
from distrain.data.shuffle import shuffle_sizes
from distrain.errors import DataError

DIGEST_BYTES = 2**20


def array_examples(features: Any, labels: Any = None, weights: Any = None) -> Examples:
    """Use arrays as examples.

    Each argument is an array or a nest of arrays: lists, tuples and dicts, as the model takes its inputs or gives its
    outputs. A list or tuple is a nest if it contains an array or a dict. A list of numbers alone is one array.

    Args:
        features: arrays `[n, ...]`, memory maps or SciPy sparse matrices (kept as CSR).
        labels: arrays `[n, ...]` of numbers or booleans. None if the model needs no labels, as with `add_loss` alone.
        weights: arrays `[n]` or `[n, ...]` of finite weights >= 0, as Keras takes `sample_weight`. Several labels take
            one array, or weights in the structure of the labels; None in it stands for a label without weights.

    Raises:
        ConfigurationError: lengths differ, there are no examples, or a type is not supported.
    """
    rows = features, labels, _ = checked_arrays(features, labels, weights)
    num_examples = num_rows_of(features, "features")
    arrays = leaves(rows)

    def load(spans: np.ndarray, indices: np.ndarray, memory: Memory = np.empty, epoch: int = 0) -> RowReader:
        examples = np.concatenate([np.arange(start, stop) for start, stop in spans])[indices]

        def read(start: int, stop: int) -> RowNests:
            chosen = examples[start:stop]
            return map_nest(lambda value, name: _gather(value, chosen), rows)

        return read

    def will_need(spans: np.ndarray) -> None:
        for _, value in arrays:
            if isinstance(value, np.ndarray):
                read_ahead(value, spans.tolist())

    def read_labels(start: int, stop: int) -> Any:
        return map_nest(lambda value, name: value[start:stop], labels)

    sparse = {name: value for name, value in leaves(features) if scipy.sparse.issparse(value)}
    num_columns = {name: value.shape[1] for name, value in sparse.items()}
    row_sizes = {name: partial(_entries, value.indptr) for name, value in sparse.items()}
    row_bytes = sum(value[:1].nbytes for _, value in arrays if isinstance(value, np.ndarray))
    window, span = shuffle_sizes(row_bytes)
    return Examples(num_examples, load, num_columns, _digest(rows), will_need, row_sizes, read_labels, window, span)


def _entries(row_splits: np.ndarray, spans: np.ndarray) -> np.ndarray:
    """Entries of each row of the spans, int64."""
    return np.concatenate([np.diff(row_splits[start : stop + 1]) for start, stop in spans.tolist()]).astype(np.int64)


def _digest(rows: RowNests) -> str:
    """Hash names, shapes, dtypes, first and last rows: hashing data larger than memory would delay every start."""
    digest = hashlib.sha256()
    for name, value in [named for nest in rows for named in leaves(nest)]:
        digest.update(name.encode())
        arrays = [value.indptr, value.indices, value.data] if scipy.sparse.issparse(value) else [value]
        for array in arrays:
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            count = max(1, DIGEST_BYTES // max(1, array.nbytes // max(1, len(array))))
            for end in (array[:count], array[-count:]):
                digest.update(np.ascontiguousarray(end).tobytes())
    return digest.hexdigest()


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

    examples = _ragged_examples(gather, lengths, rows.num_rows, kind, num_features, length, pad_multiple)
    return replace(examples, read_labels=lambda start, stop: rows.labels[start:stop])


def part_examples(part: Part, *, length: int, pad_multiple: int | None = None) -> Examples:
    """Use the rows of a prepared part as examples, in the forms of `rows_examples`.

    Raises:
        DataError: the part has no rows, or `load` later finds a damaged shard.
    """
    if part.num_rows == 0:
        raise DataError(f"{part.directory} has no {part.name} rows. Run 'distrain prepare' with more rows.")
    num_labels = part.num_classes if part.task == "multilabel" else None

    def read_labels(start: int, stop: int) -> np.ndarray:
        return _unpacked(part.labels(start, stop), num_labels)

    examples = _ragged_examples(
        part.gather, part.lengths, part.num_rows, part.kind, part.num_features, length, pad_multiple, num_labels
    )
    return replace(examples, will_need=part.will_need, read_labels=read_labels)


def _ragged_examples(
    gather: Callable[[np.ndarray, np.ndarray, Memory], Rows],
    lengths: Callable[[np.ndarray], np.ndarray],
    num_rows: int,
    kind: str,
    num_features: int,
    length: int,
    pad_multiple: int | None,
    num_labels: int | None = None,
) -> Examples:
    def load(spans: np.ndarray, indices: np.ndarray, memory: Memory = np.empty, epoch: int = 0) -> RowReader:
        return partial(_to_features, gather(spans, indices, memory), length, pad_multiple, num_labels)

    if kind == "ngram":
        return Examples(num_rows, load, {"": num_features}, "", row_sizes={"": lengths})
    if pad_multiple is None:
        return Examples(num_rows, load, {}, "")
    packed_tokens = partial(_packed_tokens, lengths, pad_multiple)
    return Examples(num_rows, load, {"": num_features}, "", row_sizes={"": packed_tokens})


def _packed_tokens(lengths: Callable[[np.ndarray], np.ndarray], pad_multiple: int, spans: np.ndarray) -> np.ndarray:
    return chunks_of_rows(lengths(spans), pad_multiple) * pad_multiple


def _unpacked(labels: np.ndarray, num_labels: int | None) -> np.ndarray:
    """Return sets of labels as 0 and 1, uint8 `[n, num_labels]`, and other labels as they are."""
    return labels if num_labels is None else np.unpackbits(labels, axis=1, count=num_labels)


def _to_features(
    rows: Rows, length: int, pad_multiple: int | None, num_labels: int | None, start: int, stop: int
) -> RowNests:
    """Rows start .. stop - 1, in aligned memory, which TensorFlow does not copy."""
    splits, columns, values, labels, own_weights = rows.slice(start, stop)
    labels = _unpacked(labels, num_labels)
    weights: Any = () if own_weights is None else own_weights
    if values is not None:
        row_ids = aligned_empty(columns.shape, np.int32)
        write_row_ids(splits, row_ids)
        return CsrRows(row_ids, aligned_copy(columns), aligned_copy(values)), labels, weights
    if pad_multiple is not None:
        return PackedRows(*pack_rows(splits, columns, pad_multiple)), labels, weights
    return pad_rows(splits, columns, length), labels, weights
