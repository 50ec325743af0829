"""Predictions become lines of JSON, or a Parquet file with the same rows."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.parquet
import pytest

from distrain.errors import ConfigurationError
from distrain.inference.prediction_files import check_prediction_file, json_lines, prediction_writer

LABELS = np.empty(3, object)
LABELS[:] = [["a", "b"], [], ["c"]]
COLUMNS = {
    "example": np.arange(3),
    "label": np.array(["x", "y", "z"], object),
    "labels": LABELS,
    "value": np.array([0.5, np.inf, np.nan], object),
    "prediction": np.array([[1.0, np.nan], [2.0, 3.0], [-np.inf, 4.0]], np.float32),
}


def test_json_has_null_for_what_is_no_number():
    found = [json.loads(line) for line in json_lines(COLUMNS)]
    assert [row["value"] for row in found] == [0.5, None, None]
    assert [row["prediction"] for row in found] == [[1.0, None], [2.0, 3.0], [None, 4.0]]
    assert [row["labels"] for row in found] == [["a", "b"], [], ["c"]]


def test_a_parquet_file_has_the_rows_of_all_batches(tmp_path):
    with prediction_writer(tmp_path / "p.parquet") as write:
        write(COLUMNS)
        write(COLUMNS)
        assert not (tmp_path / "p.parquet").exists()
    rows = pyarrow.parquet.read_table(tmp_path / "p.parquet").to_pylist()
    assert [row["example"] for row in rows] == [0, 1, 2, 0, 1, 2]
    assert rows[4]["prediction"] == [2.0, 3.0]
    assert (rows[1]["value"], rows[0]["labels"], rows[2]["label"]) == (np.inf, ["a", "b"], "z")


def test_a_file_of_another_kind_or_place_is_refused(tmp_path):
    for name, words in (("p.csv", "ending must be"), ("none/p.jsonl", "which is no folder")):
        with pytest.raises(ConfigurationError, match=words):
            check_prediction_file(tmp_path / name)
