"""TensorBoard scalars of a run, in `events/`.

Decides: how a scalar is tagged. Never: when one is written.

    scalars = TensorBoardScalars(run / "events")
    scalars.write("epoch", 120, {"loss": 0.5})              # the scalar "epoch/loss" at step 120
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from distrain.files import describe
from distrain.reporting.metrics_log import json_scalar
from distrain.reporting.write_warning import WriteWarning

RETRY_SECONDS = 60.0  # each try on a full disk may leave an empty file


class TensorBoardScalars:
    """Writes scalars tagged `epoch/loss` and the like, at the number of steps trained so far.

    TensorFlow without TensorBoard has no `tf.summary.scalar`. The metadata here are what that function writes. After a
    failed write a new file begins, because the failed one may end in half a record.
    """

    def __init__(self, folder: Path) -> None:
        import tensorflow as tf

        self._tf = tf
        self._folder = folder
        self._warn = WriteWarning(str(folder))
        self._retry_at = -math.inf
        self._writer: Any = None
        self._metadata = tf.compat.v1.SummaryMetadata(
            plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name="scalars"),
            data_class="DATA_CLASS_SCALAR",
        )

    def write(self, prefix: str, step: int, values: Mapping[str, Any]) -> None:
        """Write each value that is a finite number, tagged `prefix/name`, or `prefix/name/2` for an item of a list."""
        if time.monotonic() < self._retry_at:
            return
        try:
            if self._writer is None:
                self._folder.mkdir(exist_ok=True)  # TensorFlow would make a removed run directory again
                self._writer = self._tf.summary.create_file_writer(str(self._folder))
            with self._writer.as_default(step):
                for name, value in _scalars(values):
                    if json_scalar(value) is not None:
                        tensor = self._tf.constant(float(value), self._tf.float32)
                        self._tf.summary.write(f"{prefix}/{name}", tensor, metadata=self._metadata)
        except (OSError, self._tf.errors.OpError) as error:
            self._fail(error)

    def close(self) -> None:
        """Flush the buffer and close the file."""
        try:
            if self._writer is not None:
                self._writer.close()
        except (OSError, self._tf.errors.OpError) as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if self._folder.parent.is_dir():  # else somebody removed the run, which ends it at its next checkpoint
            self._warn(describe(error) if isinstance(error, OSError) else str(getattr(error, "message", error)))
        self._writer, self._retry_at = None, time.monotonic() + RETRY_SECONDS


def _scalars(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, list):
            yield from _scalars({f"{name}/{number}": item for number, item in enumerate(value)})
        else:
            yield name, value
