"""Rows in memory: concatenated and picked."""

from __future__ import annotations

import numpy as np
from small_datasets import ragged, same_rows

from distrain.data.prepared.rows import RowSpan, concatenate_rows, pick_rows


def test_concatenated_slices_are_the_whole():
    rows = ragged([1, 0, 4, 2])
    assert same_rows(concatenate_rows([rows.slice(0, 1), rows.slice(1, 3), rows.slice(3, 4)]), rows)


def test_picking_returns_the_largest_column_as_unsigned():
    rows = ragged([1, 2])._replace(columns=np.array([3, 7, -1], np.int32))
    spans = [RowSpan(rows, 1, 2), RowSpan(rows, 0, 1)]  # the rows in reverse order
    assert pick_rows(spans, np.array([1]))[1] == 3
    assert pick_rows(spans, np.array([1, 0]))[1] == 2**32 - 1
    assert pick_rows(spans, np.array([], np.int64))[1] == 0
