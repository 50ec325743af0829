"""Ragged rows with known values, and small prepared data sets, for tests of the data room."""

from __future__ import annotations

import hashlib
import json

import numpy as np

from distrain.data.prepared.dataset_index import open_dataset
from distrain.data.prepared.dataset_writer import DatasetWriter
from distrain.data.prepared.rows import Rows
from distrain.data.sources import array_examples
from distrain.files import json_bytes


def numbered(n, weights=None):
    """Examples whose label and only feature are the example number."""
    return array_examples(np.arange(n, dtype=np.float32)[:, None], np.arange(n), weights)


def ragged(lengths, *, first=0, values=True):
    """Rows of the given lengths; entry e, counted from `first`, has column e % 50 and value e."""
    splits = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    entries = np.arange(first, first + splits[-1])
    floats = entries.astype(np.float32) if values else None
    return Rows(splits, (entries % 50).astype(np.int32), floats, (np.arange(len(lengths)) % 3).astype(np.int32))


def write_dataset(folder, pieces, *, kind="ngram", test=(), vectorizer=None, **sizes):
    folder.mkdir(exist_ok=True)
    writer = DatasetWriter(folder, kind=kind, num_features=50, classes=["a", "b", "ç"], max_length=None, **sizes)
    writer.write("train", iter(pieces))
    writer.write("test", iter(test))
    writer.finish(vectorizer=vectorizer, details={"note": 1})
    return open_dataset(folder)


def same_rows(rows, expected):
    pairs = zip(rows, expected, strict=True)
    return all((a is None and b is None) or (a.dtype == b.dtype and np.array_equal(a, b)) for a, b in pairs)


def forge_index(folder, change):
    """Change the index and make its digest fit, as an attacker can."""
    index = json.loads((folder / "dataset.json").read_text())
    change(index)
    del index["digest"]
    index["digest"] = hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()
    (folder / "dataset.json").write_bytes(json_bytes(index))
