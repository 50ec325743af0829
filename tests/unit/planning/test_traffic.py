"""Estimates of traffic against counts over all batches, and formulas against arithmetic by hand."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distrain.data.prepared.dataset_index import open_dataset
from distrain.data.prepared.dataset_writer import DatasetWriter
from distrain.data.prepared.rows import Rows
from distrain.planning import traffic
from distrain.planning.traffic import expected_touched, ring_seconds, sample_frequencies


def part(folder, texts, *, num_features, kind):
    splits = np.cumsum([0, *map(len, texts)])
    columns = np.array([column for text in texts for column in text], np.int32)
    values = np.ones(len(columns), np.float32) if kind == "ngram" else None
    rows = Rows(splits, columns, values, np.arange(len(texts), dtype=np.int32) % 2)
    length = 9 if kind == "sequence" else None
    writer = DatasetWriter(folder, kind=kind, num_features=num_features, classes=["a", "b"], max_length=length)
    writer.write("train", [rows])
    writer.write("test", [rows])
    writer.finish()
    return open_dataset(folder).parts["train"]


@pytest.mark.parametrize("kind", ["ngram", "sequence"])
def test_frequencies_of_all_rows(tmp_path, kind):
    texts = [[0, 2], [2], [], [1, 2, 3] if kind == "ngram" else [3, 2, 3, 1, 3]]
    found = sample_frequencies(part(tmp_path, texts, num_features=6, kind=kind))
    np.testing.assert_allclose(found, [1 / 4, 1 / 4, 3 / 4, 1 / 4, 0, 0])


def test_a_sample_is_from_all_over_the_data(tmp_path, monkeypatch):
    """Sorted rows: the first half holds column 0, the second column 1."""
    monkeypatch.setattr(traffic, "SAMPLE_SPANS", 10)
    monkeypatch.setattr(traffic, "SAMPLE_SPAN", 7)
    texts = [[int(row >= 500)] for row in range(1000)]
    np.testing.assert_allclose(sample_frequencies(part(tmp_path, texts, num_features=2, kind="ngram")), [0.5, 0.5])


@given(st.lists(st.sets(st.integers(0, 4)), min_size=1, max_size=7), st.data())
def test_expected_columns_are_the_mean_over_all_batches(rows, data):
    batch_size = data.draw(st.integers(1, len(rows)))
    batches = list(combinations(rows, batch_size))
    mean = sum(len(set().union(*batch)) for batch in batches) / len(batches)
    frequencies = np.array([sum(column in row for row in rows) for column in range(5)]) / len(rows)
    assert expected_touched(frequencies, batch_size, num_rows=len(rows)) == pytest.approx(mean)


def test_rows_drawn_from_millions():
    """A batch contains 1 - exp(-1) of the columns that it contains once on average, without loss of precision."""
    touched = expected_touched(np.full(20_000, 1 / 3_600), 3_600, num_rows=3_600_000)
    assert touched == pytest.approx(20_000 * (1 - math.exp(-1)), rel=1e-3)


def test_a_ring_by_hand():
    """Four replicas send 8 bytes in 6 rounds of 2 bytes, which is 12 bytes at 4 bytes per second."""
    assert ring_seconds(8, num_replicas=4, bytes_per_second=4) == 3.0
    assert ring_seconds(8, num_replicas=1, bytes_per_second=4) == 0.0
