"""Estimates the bytes that replicas send each other in a step, and the duration of an all-reduce.

Decides: how to estimate the columns in a global batch from a sample of the data. Never: loads TensorFlow, or sends
anything.

    >>> round(expected_touched(np.array([1.0, 0.5]), 1, num_rows=1000), 6)  # columns in a batch of one row
    1.5
    >>> ring_seconds(12e9, num_replicas=2, bytes_per_second=12e9)
    1.0
"""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln

from distrain.data.prepared.shards import Part

SAMPLE_SPANS = 64  # spans in a sample, at equal distances
SAMPLE_SPAN = 512  # rows in a span; 64 spans take some tenths of a second to read


def sample_frequencies(part: Part) -> np.ndarray:
    """Fraction of rows that contain each column, float64 `[num_features]`.

    A part of at most 32,768 rows is read whole. A larger part is sampled in spans at equal distances.
    """
    num_spans = min(SAMPLE_SPANS, -(-part.num_rows // SAMPLE_SPAN))
    counts = np.zeros(part.num_features, np.int64)
    num_rows = 0
    for span in range(num_spans):
        start, end = span * part.num_rows // num_spans, (span + 1) * part.num_rows // num_spans
        rows = part.read(start, min(end, start + SAMPLE_SPAN))
        row_ids = np.repeat(np.arange(rows.num_rows), np.diff(rows.row_splits))
        once = np.unique(row_ids * part.num_features + rows.columns)  # a text may repeat a word
        counts += np.bincount(once % part.num_features, minlength=part.num_features)
        num_rows += rows.num_rows
    return counts / max(1, num_rows)


def expected_touched(frequencies: np.ndarray, batch_size: int, *, num_rows: int) -> float:
    """Expected number of distinct columns in a batch of rows drawn without replacement.

    A column in d of n rows is absent from a batch of b rows with the hypergeometric probability C(n - d, b) / C(n, b).
    Columns that the sample misses count as absent. The result is therefore too low for a batch much larger than the
    sample.

    Args:
        frequencies: fraction d / n of rows that contain each column, `[num_columns]`.
        batch_size: rows in the batch, b.
        num_rows: rows in the data, n.
    """
    without = np.rint(num_rows * (1.0 - frequencies))  # rows without the column
    others = np.maximum(without - batch_size, 0.0)
    logarithm = gammaln(without + 1) - gammaln(others + 1) + gammaln(num_rows - batch_size + 1) - gammaln(num_rows + 1)
    present = np.where(without < batch_size, 1.0, -np.expm1(logarithm))
    return float(present[frequencies > 0].sum())


def ring_seconds(num_bytes: float, *, num_replicas: int, bytes_per_second: float) -> float:
    """Duration of a ring all-reduce from the bandwidth alone: 2 (N - 1) / N * bytes / bandwidth, in seconds.

    Each replica sends and receives (N - 1) / N of the buffer twice, and no algorithm can send less. Patarasuk and Yuan
    prove this in "Bandwidth optimal all-reduce algorithms for clusters of workstations" (2009). The latency of the
    2 (N - 1) messages is not included.

    Args:
        num_bytes: bytes in the buffer.
        num_replicas: replicas in the ring, N.
        bytes_per_second: bandwidth of a replica in each direction.
    """
    return 2 * (num_replicas - 1) / num_replicas * num_bytes / bytes_per_second
