"""The row kernels against SciPy and NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, settings
from hypothesis import strategies as st

from distrain.data.row_kernels import gather_rows, order_by_column, pad_rows, write_row_ids


@st.composite
def matrices(draw):
    """CSR matrices, also with empty rows or without any entry."""
    shape = draw(st.tuples(st.integers(1, 8), st.integers(1, 9)))
    drawn = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    filled = drawn.choice([0, 0.05, 0.4, 1])  # part of the entries that are not 0
    dense = drawn.choice([1, -2.5], shape) * (drawn.random(shape) < filled)
    return scipy.sparse.csr_array(dense.astype(np.float32))


def parts(matrix):
    return matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data


@given(matrices(), st.data())
@settings(max_examples=60, deadline=None)
def test_gather_rows_picks_the_rows_that_scipy_picks(matrix, data):
    rows = data.draw(st.lists(st.integers(0, matrix.shape[0] - 1), max_size=12))
    row_ids, columns, values = gather_rows(*parts(matrix), np.array(rows, np.int64))
    assert (row_ids.dtype, columns.dtype, values.dtype) == (np.int32, np.int32, np.float32)
    expected = matrix[rows].tocoo() if rows else scipy.sparse.coo_array((0, matrix.shape[1]), dtype=np.float32)
    assert row_ids.tolist() == expected.row.tolist()
    assert columns.tolist() == expected.col.tolist()
    assert values.tolist() == expected.data.tolist()


@given(matrices(), st.integers(1, 12), st.data())
@settings(max_examples=60, deadline=None)
def test_pad_rows_cuts_and_fills(matrix, length, data):
    start = data.draw(st.integers(0, matrix.shape[0]))
    splits, columns, _ = parts(matrix)
    padded = pad_rows(splits[start:], columns, length)
    assert padded.dtype == np.int32
    assert padded.shape == (matrix.shape[0] - start, length)
    for row, got in enumerate(padded.tolist(), start):
        ids = columns[splits[row] : splits[row + 1]].tolist()
        assert got == (ids + [0] * length)[:length]


@given(matrices(), st.data())
@settings(max_examples=40, deadline=None)
def test_row_ids_equal_scipys(matrix, data):
    start = data.draw(st.integers(0, matrix.shape[0]))
    row_ids = np.full(matrix[start:].nnz if start < matrix.shape[0] else 0, -1, np.int32)
    write_row_ids(parts(matrix)[0][start:], row_ids)
    assert row_ids.tolist() == (matrix[start:].tocoo().row.tolist() if start < matrix.shape[0] else [])


@pytest.mark.parametrize("num_columns", [30, 5_000_000])  # counting, and sorting
@given(st.integers(0, 60), st.integers(1, 30), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_order_by_column_is_numpys_stable_sort(num_columns, count, used, seed):
    columns = np.random.default_rng(seed).integers(0, used, count, dtype=np.int32)
    order, segments, touched = order_by_column(columns, num_columns)
    unique, inverse = np.unique(columns, return_inverse=True)
    assert all(array.dtype == np.int32 for array in (order, segments, touched))
    assert order.tolist() == np.argsort(columns, kind="stable").tolist()
    assert touched.tolist() == unique.tolist()
    assert segments.tolist() == inverse[order].tolist()
