"""The status of a run in a small file, `status.json`, and in Prometheus' text format.

Decides: what the status holds. Never: when it is written (`reporter.py` decides), or whether a run counts as alive
(`liveness.py` decides).

    >>> import tempfile
    >>> run = Path(tempfile.mkdtemp())
    >>> StatusFile(run, time=0.0).update({"state": "training", "step": 12, "loss": 0.5}, time=1.0)
    >>> read_status(run)["step"]
    12

All other times are in seconds since 1970.

    | field | |
    |---|---|
    | `state` | "starting", "training", "evaluating", "finishing", then "finished", "stopped" or "failed" |
    | `time` | time of the last sign of life: a step of training or evaluation, or a checkpoint |
    | `step`, `steps_per_epoch` | steps trained so far over all epochs; steps in an epoch |
    | `epoch`, `epochs` | current epoch, from 1; most epochs that the run may train |
    | `loss`, `accuracy`, ... | loss and metrics of the epoch so far |
    | `val_loss`, `val_accuracy`, ... | loss and metrics of the last evaluation |
    | `samples_per_second` | rate since the last update |
    | `last_step_time`, `last_checkpoint`, `last_checkpoint_time` | last step; path and time of the last checkpoint |
    | `evaluated_steps`, `evaluation_steps` | steps done and all steps of the current evaluation |
    | `message` | why the run ended |
    | `boot_id`, `boot_seconds` | `time` on the clock of this machine, for `distrain alive` (`boot_clock.py`) |
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distrain.errors import CheckpointError, ConfigurationError, StopRequested
from distrain.file_names import STATUS_NAME
from distrain.files import DISK_FAULTS, atomic_write, describe, read_json_object, write_json
from distrain.reporting.boot_clock import boot_clock, boot_id
from distrain.reporting.metrics_log import json_scalar
from distrain.reporting.write_warning import WriteWarning

STATES = ("starting", "training", "evaluating", "finishing", "finished", "stopped", "failed")
MAX_BYTES = 1 << 16  # a status has some hundred bytes; a longer file is damaged and is not read into memory


class StatusFile:
    """The status of one run, rewritten as a whole at each update.

    Args:
        run: Existing run directory.
        time: Current time, in seconds since 1970.
        prometheus: File for the textfile collector of Prometheus' node_exporter, or None.

    Raises:
        ConfigurationError: a file cannot be written at the start, and neither full disk nor failing disk is the reason.
    """

    def __init__(
        self,
        run: Path,
        *,
        time: float,
        prometheus: Path | None = None,
    ) -> None:
        self._run, self._prometheus = run, prometheus
        self._values: dict[str, object] = {"state": "starting"}
        self._boot_id = boot_id()
        self._warn = WriteWarning(f"the status of the run, {run / STATUS_NAME},")
        try:
            self._write(time)
        except OSError as error:
            if error.errno not in DISK_FAULTS:
                raise ConfigurationError(
                    f"{error.filename} cannot be written: {error.strerror}. The folder must exist, with permission to "
                    "write."
                ) from None
            self._warn(describe(error))

    def update(self, values: Mapping[str, object], *, time: float) -> None:
        """Change some values and write all; the first failing write is logged as a warning, and training goes on.

        Args:
            values: Numbers and texts by name; None removes a value.
            time: Current time, in seconds since 1970.
        """
        self._values |= values
        try:
            self._write(time)
        except OSError as error:
            if self._run.is_dir():  # else somebody removed it, which ends the run at its next checkpoint
                self._warn(describe(error))

    def end(self, error: BaseException, *, time: float) -> None:
        """Record the error that ended the run before it was finished."""
        state = "stopped" if isinstance(error, (StopRequested, KeyboardInterrupt)) else "failed"
        self.update({"state": state, "message": str(error) or type(error).__name__}, time=time)

    def _write(self, time: float) -> None:
        self._values = {name: value for name, value in self._values.items() if value is not None}
        values = {name: json_scalar(value) for name, value in {**self._values, "time": time}.items()}
        clock = {"boot_id": self._boot_id, "boot_seconds": boot_clock()}
        write_json(self._run / STATUS_NAME, {**values, **clock}, durable=False)  # a status need not outlive a power cut
        if self._prometheus is not None:
            with atomic_write(self._prometheus, durable=False) as tmp_path:
                tmp_path.write_text(prometheus_text(values, run=str(self._run)), encoding="utf-8")


def read_status(run: Path) -> dict[str, Any] | None:
    """Return the status of a run, or None if the run has not written one.

    Raises:
        CheckpointError: the file cannot be read, or `StatusFile` did not write it.
    """
    path = run / STATUS_NAME
    try:
        status = read_json_object(path, max_bytes=MAX_BYTES)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from None
    if status.get("state") not in STATES or not isinstance(status.get("time"), (int, float)):
        raise CheckpointError(f"{path} is not a status as distrain writes it.")
    return status


def prometheus_text(values: Mapping[str, Any], *, run: str) -> str:
    """Return values in Prometheus' text format: a gauge for each number, and a gauge for each state.

    A time gets the name that Prometheus' conventions ask for, `distrain_last_step_timestamp_seconds`. The textfile
    collector accepts no sample times, so a reader detects an old file by these gauges.

    Args:
        values: Content of a status.
        run: Run directory, which becomes the label `run`.
    """
    label = 'run="' + re.sub(r'[\\"\n]', lambda found: {"\n": r"\n"}.get(found[0], "\\" + found[0]), run) + '"'
    lines = ["# HELP distrain_state What the run is doing: 1 for one of these states.", "# TYPE distrain_state gauge"]
    lines += [f'distrain_state{{{label},state="{state}"}} {int(values["state"] == state)}' for state in STATES]
    numbers = {_gauge(name): value for name, value in values.items() if isinstance(value, (int, float))}
    for gauge, value in numbers.items():
        lines += [f"# HELP {gauge} See {STATUS_NAME}.", f"# TYPE {gauge} gauge", f"{gauge}{{{label}}} {value!r}"]
    return "\n".join([*lines, ""])


def _gauge(name: str) -> str:
    name = "alive_time" if name == "time" else re.sub("[^a-zA-Z0-9_]", "_", name)
    return f"distrain_{name.removesuffix('time')}timestamp_seconds" if name.endswith("_time") else f"distrain_{name}"
