"""TensorBoard reads the scalars of a run back."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from distrain.reporting.reporter import RunReporter


def test_tensorboard_reads_the_scalars_back(tmp_path):
    tf = pytest.importorskip("tensorflow")
    from tensorflow.core.util import event_pb2

    with RunReporter(tmp_path, num_epochs=1, console=Console(file=io.StringIO())) as reporter:
        reporter.epoch(epoch=1, step=7, num_examples=10, seconds=2.0, logs={"loss": 0.25, "bad": float("nan")})
    (path,) = (tmp_path / "events").iterdir()
    found = {}
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        event = event_pb2.Event.FromString(record)
        for value in event.summary.value:
            assert value.metadata.plugin_data.plugin_name == "scalars"
            found[value.tag] = (event.step, float(tf.make_ndarray(value.tensor)))
    assert found == {"epoch/loss": (7, 0.25), "epoch/samples_per_second": (7, 5.0), "epoch/seconds": (7, 2.0)}
