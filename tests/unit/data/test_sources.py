"""Arrays, sparse matrices, dicts and prepared rows as examples; unsupported arrays are refused."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import scipy.sparse

from distrain.data.prepared.dataset_index import open_dataset
from distrain.data.prepared.dataset_writer import DatasetWriter
from distrain.data.prepared.rows import Rows
from distrain.data.sources import array_examples, part_examples, rows_examples
from distrain.errors import ConfigurationError, DataError

SPANS = np.array([[10, 14], [2, 5]])  # examples 10, 11, 12, 13, 2, 3, 4
INDICES = np.array([6, 0, 3])
EXAMPLES = [4, 10, 13]


def loaded(examples):
    return examples.load(SPANS, INDICES)(0, 3)


def dense_of(rows, shape):
    return scipy.sparse.coo_array((rows.values, (rows.row_ids, rows.columns)), shape).toarray()


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int64, bool])
def test_arrays_keep_shape_and_dtype(dtype):
    x = (np.arange(20 * 6) % 7).reshape(20, 2, 3).astype(dtype)
    features, labels, _ = loaded(array_examples(x, np.arange(40).reshape(20, 2)))
    assert features.dtype == dtype
    assert np.array_equal(features, x[EXAMPLES])
    assert labels[:, 0].tolist() == [8, 20, 26]


def test_lists_and_memory_maps_are_taken(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(20.0))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for x in (mapped, list(range(20))):
        features, labels, _ = loaded(array_examples(x, list(range(20))))
        assert type(features) is np.ndarray  # a copy, not a view of the file
        assert features.tolist() == labels.tolist() == EXAMPLES


@pytest.mark.parametrize("columns_first", [False, True])
def test_a_memory_map_is_read_row_by_row(tmp_path, columns_first):
    """Also in Fortran order, because a batch must never read an array that is larger than memory."""
    mapped = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (40_000, 100), columns_first)
    mapped[EXAMPLES] = np.array(EXAMPLES, np.float32)[:, None]
    examples = array_examples(mapped, np.arange(40_000))
    tracemalloc.start()
    try:
        features, *_ = loaded(examples)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert features[:, 99].tolist() == EXAMPLES
    assert peak < mapped.nbytes / 100


@pytest.mark.parametrize("kind", ["csr_matrix", "csr_array", "coo_array", "csc_matrix", "lil_array"])
def test_sparse_matrices_of_any_kind(kind):
    dense = np.where(np.arange(100).reshape(20, 5) % 3 == 0, np.arange(100).reshape(20, 5), 0).astype(np.float64)
    examples = array_examples(getattr(scipy.sparse, kind)(dense), np.arange(20))
    features, *_ = loaded(examples)
    assert features.values.dtype == np.float32
    assert np.array_equal(dense_of(features, (3, 5)), dense[EXAMPLES])


def test_repeated_sparse_entries_are_summed_in_a_copy():
    matrix = scipy.sparse.csr_matrix((20, 3), dtype=np.float32)
    matrix.indptr = np.array([0] * 5 + [3] * 16, np.int32)
    matrix.indices, matrix.data = np.array([2, 0, 2], np.int32), np.array([1, 5, 2], np.float32)
    features, *_ = loaded(array_examples(matrix, np.arange(20)))
    assert features.columns.tolist() == [0, 2]
    assert features.values.tolist() == [5.0, 3.0]
    assert matrix.indices.tolist() == [2, 0, 2]


def test_digests_of_different_data_differ():
    x, y = np.arange(20.0).reshape(10, 2), np.arange(10)
    sparse = scipy.sparse.csr_matrix(x)
    changed = x.copy()
    changed[9, 1] = 99
    weights = np.ones(10)
    variants = [
        array_examples(*variant).digest
        for variant in [
            (x, y),
            (changed, y),
            (x, y + 1),
            (x.astype(np.float32), y),
            (x.reshape(10, 2, 1), y),
            (sparse, y),
            (x, y, weights),
            (x, y, weights * 2),
            ({"a": x, "b": changed}, y),
        ]
    ]
    assert len(set(variants)) == len(variants)
    assert array_examples(x.copy(), y.copy()).digest == variants[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((np.ones((3, 2)), np.ones(4)), "3 rows.*4 labels"),
        ((np.ones((3, 2)), np.ones(0)), "empty"),
        ((np.ones((3, 2)), np.float32(1)), "empty"),
        (({}, np.ones(3)), "empty dict"),
        (({0: np.ones(3), "0": np.zeros(3)}, np.ones(3)), "name 0, which is no text"),
        (({"a": np.ones(3), "b": np.ones(2)}, np.ones(3)), "'b' has 2 rows"),
        ((np.array(["a", "b", "c"]), np.ones(3)), "<U1"),
        ((np.array([None] * 3), np.ones(3)), "object"),
        ((np.float32(1), np.ones(3)), "shape"),
        ((np.ones(3, np.longdouble), np.ones(3)), "numbers of at most 64 bits"),
        ((np.ones(3), np.ones(3, np.longdouble)), "labels are longdouble"),
        ((np.ma.masked_equal([1, 2, 3], 2), np.ones(3)), r"masked array would lose its mask.*\.filled"),
        ((np.ones(3, np.complex64), np.ones(3)), "complex64"),
        ((np.ones(3), np.ones(3), np.ones(2)), "weights have shape"),
        ((np.ones(3), np.ones(3), [1, -1, 1]), "negative"),
        ((np.ones(3), np.ones(3), [1, np.nan, 1]), "not finite"),
        ((np.ones(3), np.ones(3), [1, np.inf, 1]), "not finite"),
        ((scipy.sparse.csr_matrix((2, 2)), np.ones(3)), "2 rows"),
    ],
)
def test_unsupported_arrays_are_refused(arguments, words):
    with pytest.raises(ConfigurationError, match=words):
        array_examples(*arguments)


def test_weights_come_along_as_float32():
    _, _, weights = array_examples(np.ones(3), np.ones(3), [0, 1, 2]).load(np.array([[0, 3]]), np.array([2, 0, 1]))(
        0, 3
    )
    assert weights.dtype == np.float32
    assert weights.tolist() == [2.0, 0.0, 1.0]


NGRAMS = Rows(
    np.array([0, 2, 2, 3]),
    np.array([1, 4, 0], np.int32),
    np.array([0.5, 1, 2], np.float32),
    np.array([0, 1, 0], np.int32),
)
WORDS = NGRAMS._replace(values=None)


def test_rows_in_memory_as_ngrams_and_as_sequences():
    whole, rows = np.array([[0, 3]]), np.array([2, 1, 0])
    features, labels, _ = rows_examples(NGRAMS, kind="ngram", num_features=5, length=1).load(whole, rows)(0, 3)
    assert dense_of(features, (3, 5)).tolist() == [[2, 0, 0, 0, 0], [0] * 5, [0, 0.5, 0, 0, 1]]
    assert labels.tolist() == [0, 1, 0]
    features, *_ = rows_examples(WORDS, kind="sequence", num_features=5, length=3).load(whole, rows)(0, 3)
    assert features.tolist() == [[0, 0, 0], [0, 0, 0], [1, 4, 0]]


def test_prepared_parts_are_read_in_spans(tmp_path):
    writer = DatasetWriter(tmp_path, kind="ngram", num_features=5, classes=["a", "b"], rows_per_shard=2)
    writer.write("train", [NGRAMS, NGRAMS])
    writer.write("test", [])
    writer.finish()
    dataset = open_dataset(tmp_path)
    examples = part_examples(dataset.parts["train"], length=1)
    assert (examples.num_examples, dict(examples.num_columns)) == (6, {"": 5})
    read = examples.load(np.array([[4, 6], [0, 2]]), np.array([1, 2, 0]))  # rows 5, 0, 4
    features, labels, _ = read(0, 3)
    assert dense_of(features, (3, 5)).tolist() == [[2, 0, 0, 0, 0], [0, 0.5, 0, 0, 1], [0] * 5]
    assert labels.tolist() == [0, 0, 1]
    features, labels, _ = read(1, 2)
    assert dense_of(features, (1, 5)).tolist() == [[0, 0.5, 0, 0, 1]]
    assert labels.tolist() == [0]
    with pytest.raises(DataError, match="no test rows"):
        part_examples(dataset.parts["test"], length=1)


def test_a_sparse_matrix_with_a_column_out_of_range_is_refused():
    """Row kernels use columns as indices without bounds checks, and a SciPy file can contain any column."""
    matrix = scipy.sparse.csr_matrix(np.eye(3, dtype=np.float32))
    matrix.indices[1] = 2**30
    with pytest.raises(ConfigurationError, match="Input 'x' is a damaged sparse matrix"):
        array_examples(matrix, np.zeros(3))
