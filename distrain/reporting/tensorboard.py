"""TensorBoard scalars of a run, in `events/`.

Decides: how a scalar is tagged. Never: when one is written.

    scalars = TensorBoardScalars(run / "events")
    scalars.write("epoch", 120, {"loss": 0.5})              # the scalar "epoch/loss" at step 120
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from distrain.reporting.metrics_log import json_scalar


class TensorBoardScalars:
    """Writes scalars tagged `epoch/loss` and the like, at the number of steps trained so far.

    TensorFlow without TensorBoard has no `tf.summary.scalar`. The metadata here are what that function writes.
    """

    def __init__(self, folder: Path) -> None:
        import tensorflow as tf

        self._tf = tf
        self._writer = tf.summary.create_file_writer(str(folder))
        self._metadata = tf.compat.v1.SummaryMetadata(
            plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars"),
            data_class="DATA_CLASS_SCALAR",
        )

    def write(self, prefix: str, step: int, values: Mapping[str, Any]) -> None:
        """Write each value that is a finite number, tagged `prefix/name`, or `prefix/name/2` for an item of a list."""
        with self._writer.as_default(step):
            for name, value in _scalars(values):
                if json_scalar(value) is not None:
                    tensor = self._tf.constant(float(value), self._tf.float32)
                    self._tf.summary.write(f"{prefix}/{name}", tensor, metadata=self._metadata)

    def close(self) -> None:
        """Flush the buffer and close the file."""
        self._writer.close()


def _scalars(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, list):
            yield from _scalars({f"{name}/{number}": item for number, item in enumerate(value)})
        else:
            yield name, value
