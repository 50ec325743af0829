"""Trains many runs in one process: standard input is a JSON list of objects of settings.

Each run has `devices`, `run`, and `data` (prepared text) or `case` (arrays, see `cases.py`).
Further keys, besides the settings of a run:

    floatx      type of all weights, "float32" or "float64"
    stops       [["step", 3], ["evaluation", 1], ...]: send this process SIGTERM there, then start the run again
    copy        [["step", 8], FOLDER]: after this stop, copy the run to a folder
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from cases import CASES

import distrain
from distrain.config import TrainConfig
from distrain.errors import StopRequested
from distrain.training.jobs.job import open_job
from distrain.training.run import run_job


class Interrupt(keras.callbacks.Callback):
    """Sends SIGTERM to this process after a global step, or in the evaluation of an epoch."""

    def __init__(self, occasion: str, number: int) -> None:
        super().__init__()
        self._occasion = (occasion, number)
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._happens("step", int(self.model.optimizer.iterations.numpy()))

    def on_test_begin(self, logs: Any = None) -> None:
        self._happens("evaluation", self._epoch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._happens("epoch", epoch)

    def _happens(self, occasion: str, number: int) -> None:
        if (occasion, number) == self._occasion:
            os.kill(os.getpid(), signal.SIGTERM)


def train(settings: dict[str, Any], callbacks: list[Any]) -> None:
    """Train one run until it ends or is interrupted."""
    if "case" in settings:
        arguments = CASES[settings.pop("case")]()
        arguments["callbacks"] = [*arguments.get("callbacks", ()), *callbacks]
        result = distrain.fit(**arguments, **settings)
        seen = [callback.seen for callback in arguments["callbacks"] if hasattr(callback, "seen")]
        content = {"history": result.history, "seen": seen}
        Path(settings["run"], "history.json").write_text(json.dumps(content), encoding="utf-8")
    else:
        config = TrainConfig(**settings)
        run_job(lambda: replace(open_job(config), callbacks=callbacks), config)


def main() -> None:
    """Train all runs."""
    runs = json.load(sys.stdin)
    replicas = max(int(settings["devices"].removeprefix("cpu:")) for settings in runs)
    if replicas > 1:  # before the first optimizer or metric, which initializes the devices
        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
    for settings in runs:
        floatx = settings.pop("floatx", "float32")
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy(floatx)  # else the first layer fixes the policy
        stops = settings.pop("stops", [])
        copied_at, folder = settings.pop("copy", (None, None))
        for occasion, number in stops:
            try:
                train(dict(settings), [Interrupt(occasion, number)])
            except StopRequested:
                if [occasion, number] == copied_at:
                    shutil.copytree(settings["run"], folder)
                continue
            raise AssertionError(f"{settings['run']} was not stopped at {occasion} {number}")
        train(dict(settings), [])


if __name__ == "__main__":
    main()
