"""Data and settings of runs of many ranks, and digests of their examples.

x, y, weights = weighted()["train"]          # NumPy only, so that tests need not load TensorFlow
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from distrain.data.prepared.dataset_index import open_dataset

NUM_EXAMPLES = 97  # 8 steps of 12 and a step of one example, which leaves all ranks but the first without work
NUM_VALIDATION = 23
NUM_NORMALIZED = 36  # whole steps, because even an empty batch changes the moving averages
LARGE_VOCABULARY, SMALL_VOCABULARY = 500, 7
WORDS = 5
MAX_LENGTH = 30  # words of a row of text
MOMENTUM = 0.8  # of moving averages

# All runs. 331 rows of text make 5 steps of 66 and a step of 1, or 6 steps of 48 and a step of 43.
EPOCHS, SEED = 3, 3
NGRAM = {"global_batch_size": 66, "units": 16}
SEQUENCE = {"global_batch_size": 48, "embedding": 16, "filters": 4, "blocks": 1, "jit_compile": False}
ARRAYS = {"global_batch_size": 12, "jit_compile": False}

Data = dict[str, tuple[np.ndarray, ...]]


def weighted() -> Data:
    """Dense rows `[6]` of 3 classes; weights are 0, 1, 2 or 3."""
    rng = np.random.default_rng(8)  # the example that is alone in the last step of an epoch weighs something

    def part(count: int) -> tuple[np.ndarray, ...]:
        labels = rng.integers(0, 3, count)
        rows = (rng.normal(size=(count, 6)) + labels[:, None]).astype(np.float32)
        return rows, labels, rng.integers(0, 4, count).astype(np.float32)

    return {"train": part(NUM_EXAMPLES), "validation": part(NUM_VALIDATION)}


def words() -> Data:
    """Word ids `[5]` of a large vocabulary; one step touches few of its words, some of them repeatedly."""
    return _ids(LARGE_VOCABULARY)


def letters() -> Data:
    """Word ids `[5]` of a small vocabulary; each step touches nearly all of its words."""
    return _ids(SMALL_VOCABULARY)


def normalized() -> Data:
    """Dense rows `[4]` with means and variances of their own."""
    rng = np.random.default_rng(4)
    rows = (rng.normal(size=(NUM_NORMALIZED, 4)) * [1, 2, 3, 4] + [0, 5, -5, 1]).astype(np.float32)
    return {"train": (rows, rng.integers(0, 3, NUM_NORMALIZED)), "validation": (rows[:7], np.arange(7) % 3)}


def linear() -> Data:
    """Dense rows `[64]` of 80 classes."""
    rng = np.random.default_rng(6)

    def part(count: int) -> tuple[np.ndarray, ...]:
        return rng.normal(size=(count, 64)).astype(np.float32), rng.integers(0, 80, count)

    return {"train": part(NUM_EXAMPLES), "validation": part(NUM_VALIDATION)}


def _ids(vocabulary: int) -> Data:
    rng = np.random.default_rng(vocabulary)

    def part(count: int) -> tuple[np.ndarray, ...]:
        ids = (vocabulary * rng.random((count, WORDS)) ** 3).astype(np.int32)  # small ids are frequent
        ids[:, 1] = ids[:, 0]
        return ids, ids.sum(axis=1) % 3

    return {"train": part(NUM_EXAMPLES), "validation": part(NUM_VALIDATION)}


DATA: dict[str, Callable[[], dict[str, Any]]] = {
    case.__name__: case for case in (weighted, words, letters, normalized, linear)
}


def examples_of_text(data: Path, part: str) -> Counter[tuple[str, float]]:
    """Count each (example, weight) of prepared text; all weights are 1."""
    rows = open_dataset(data).parts[part]
    rows = rows.read(0, rows.num_rows)
    values = rows.columns if rows.values is None else rows.values
    examples: Counter[tuple[str, float]] = Counter()
    for row, label in enumerate(rows.labels):
        entries = slice(rows.row_splits[row], rows.row_splits[row + 1])
        columns = rows.columns[entries]
        if rows.values is None:  # word ids, cut at the length of `conftest.text`
            columns = np.arange(min(len(columns), MAX_LENGTH))
        examples[digest_of(columns, values[entries][: len(columns)], label), 1.0] += 1
    return examples


def examples_of_case(case: str, part: str) -> Counter[tuple[str, float]]:
    """Count each (example, weight) of a case, without examples of weight 0."""
    features, labels, *weights = DATA[case]()[part]
    all_weights = weights[0] if weights else np.ones(len(labels))
    rows = zip(features, labels, all_weights, strict=True)
    return Counter((digest_of(np.arange(row.size), row, label), float(w)) for row, label, w in rows if w > 0)


def digest_of(columns: np.ndarray, values: np.ndarray, label: Any) -> str:
    """Return the digest of one example, without zeros, because padding consists of zeros."""
    present = values != 0
    content = columns[present].astype(np.int64).tobytes() + values[present].astype(np.float32).tobytes()
    return hashlib.sha256(f"{int(label)}|".encode() + content).hexdigest()[:16]
