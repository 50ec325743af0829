"""TensorBoard reads the scalars of a run back."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from distrain.reporting.reporter import RunReporter

NAN = float("nan")
LOGS = {"loss": 0.25, "bad": NAN, "learning_rate": 0.5, "f1": [0.125, NAN, 1.0]}  # f1: a figure per class


def test_tensorboard_reads_the_scalars_back(tmp_path):
    tf = pytest.importorskip("tensorflow")
    from tensorflow.core.util import event_pb2

    with RunReporter(tmp_path, num_epochs=1, console=Console(file=io.StringIO())) as reporter:
        reporter.epoch(epoch=1, step=7, num_examples=10, seconds=2.0, logs=LOGS)
    (path,) = (tmp_path / "events").iterdir()
    found = {}
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        event = event_pb2.Event.FromString(record)
        for value in event.summary.value:
            assert value.metadata.plugin_data.plugin_name == "scalars"
            found[value.tag] = (event.step, float(tf.make_ndarray(value.tensor)))
    expected = {"loss": 0.25, "learning_rate": 0.5, "f1/0": 0.125, "f1/2": 1.0, "samples_per_second": 5, "seconds": 2}
    assert found == {f"epoch/{name}": (7, value) for name, value in expected.items()}
