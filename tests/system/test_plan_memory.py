"""`distrain plan` predicts the host memory that the loader of a training process really takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from distrain.config import TrainConfig
from distrain.data.prepared.dataset_index import open_dataset
from distrain.data.prepared.dataset_writer import DatasetWriter
from distrain.data.prepared.rows import Rows
from distrain.planning.run_plan import plan_run

PROGRAM = Path(__file__).parent / "programs" / "loader_memory.py"
NUM_ROWS = 150_000  # more than two shuffle windows: a loader that kept all rows would take twice the prediction


@pytest.fixture(scope="module", params=["ngram", "sequence"])
def data(request, tmp_path_factory):
    rng = np.random.default_rng(0)
    splits = np.concatenate([[0], np.cumsum(rng.integers(30, 90, NUM_ROWS))])
    columns = rng.integers(1, 20_000, splits[-1]).astype(np.int32)
    values = np.ones(len(columns), np.float32) if request.param == "ngram" else None
    rows = Rows(splits, columns, values, (np.arange(NUM_ROWS) % 4).astype(np.int32))
    folder = tmp_path_factory.mktemp(request.param)
    writer = DatasetWriter(folder, kind=request.param, num_features=20_000, classes=list("abcd"), max_length=90)
    writer.write("train", [rows])
    writer.write("test", [rows.slice(0, 10)])
    writer.finish(vectorizer=None)
    return open_dataset(folder)


@pytest.mark.parametrize("num_replicas", [1, 2])
def test_host_memory_is_as_planned(data, num_replicas):
    config = TrainConfig(data=data.directory, run="run", batch_size=512)
    planned = plan_run(data, config, num_replicas=num_replicas).batches.host_bytes
    pad_multiple = 3 if data.kind == "sequence" else 0
    command = [sys.executable, PROGRAM, data.directory, *map(str, (512, num_replicas, pad_multiple))]
    measured = int(subprocess.run(command, stdout=subprocess.PIPE, timeout=240, check=True).stdout)
    assert measured == pytest.approx(planned, rel=0.25)
