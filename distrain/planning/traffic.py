"""What replicas send each other in a step, and how long that takes: arithmetic, over a sample of the data.

Decides: how the rows that a global batch touches are estimated, and what an all-reduce of so many bytes takes. Never:
loads TensorFlow, sends anything.

    >>> round(expected_touched(np.array([1.0, 0.5]), 1, num_rows=1000), 6)  # columns in a batch of one row
    1.5
    >>> ring_seconds(12e9, num_replicas=2, bytes_per_second=12e9)
    1.0
"""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln

from distrain.data.shards import Part

SAMPLE_RUNS = 64  # places of the data that a sample is from
SAMPLE_RUN = 512  # neighbouring rows read at each: 32,768 rows in all take some tenths of a second


def sample_frequencies(part: Part) -> np.ndarray:
    """The share of rows that each column occurs in, float64 `[num_features]`.

    From runs of rows at even distances, at most 32,768 rows; from all rows where there are no more.
    """
    num_runs = min(SAMPLE_RUNS, -(-part.num_rows // SAMPLE_RUN))
    counts = np.zeros(part.num_features, np.int64)
    num_rows = 0
    for run in range(num_runs):
        start, end = run * part.num_rows // num_runs, (run + 1) * part.num_rows // num_runs
        rows = part.read(start, min(end, start + SAMPLE_RUN))
        row_ids = np.repeat(np.arange(rows.num_rows), np.diff(rows.row_splits))
        once = np.unique(row_ids * part.num_features + rows.columns)  # a text may hold a word more than once
        counts += np.bincount(once % part.num_features, minlength=part.num_features)
        num_rows += rows.num_rows
    return counts / max(1, num_rows)


def expected_touched(frequencies: np.ndarray, batch_size: int, *, num_rows: int) -> float:
    """How many columns occur in a batch, on average over all batches of rows drawn without repeats.

    A column of d rows is absent from a batch of b out of n with probability C(n - d, b) / C(n, b): the hypergeometric
    distribution. Columns rarer than a sample shows count as absent, so that of a batch much larger than the sample this
    is too low.

    Args:
        frequencies: d / n, the share of rows that each column occurs in, `[num_columns]`.
        batch_size: b.
        num_rows: n.
    """
    without = np.rint(num_rows * (1.0 - frequencies))  # rows that lack the column
    others = np.maximum(without - batch_size, 0.0)
    logarithm = gammaln(without + 1) - gammaln(others + 1) + gammaln(num_rows - batch_size + 1) - gammaln(num_rows + 1)
    present = np.where(without < batch_size, 1.0, -np.expm1(logarithm))
    return float(present[frequencies > 0].sum())


def ring_seconds(num_bytes: float, *, num_replicas: int, bytes_per_second: float) -> float:
    """What a ring all-reduce takes by bandwidth alone: 2 (N - 1) / N * bytes / bandwidth.

    Each replica sends, and receives, (N - 1) / N of the buffer twice, which is the least that any algorithm can do
    (Patarasuk and Yuan, Bandwidth optimal all-reduce algorithms for clusters of workstations, 2009). The delay of each
    of its 2 (N - 1) messages comes on top.

    Args:
        num_bytes: the buffer that is summed.
        num_replicas: N.
        bytes_per_second: of a replica, in each direction.
    """
    return 2 * (num_replicas - 1) / num_replicas * num_bytes / bytes_per_second
