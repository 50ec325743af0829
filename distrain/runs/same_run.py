"""Which settings a run must keep when it resumes.

Decides: whether two commands train the same run. Never: reads or writes a run directory.

    check_same_run(Path("runs/1"), before, now)
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distrain.config import TrainConfig, settings_of
from distrain.errors import CheckpointError

# A resumed run must keep the settings that decide its weights. It may change where, how fast and how long it trains.
_SETTINGS = {setting.name: setting for setting in settings_of(TrainConfig)}
_MAY_CHANGE = {name for name, setting in _SETTINGS.items() if setting.may_change}
_MAY_CHANGE |= {"num_replicas", "replica_batch_size", "launch_id"}

# Digests, which mean nothing to a user, and what differs with each digest.
_OF_DIGESTS = {"data_digest": "other data", "validation_digest": "other validation data, or without any"}

# How to keep a value that settings led to, by its name in `config.json`.
_CURES = {
    "validation_digest": "Validation chooses the best epoch: give the same validation data",
    "scheduled_steps": "The learning rate falls over these steps: give the same --epochs and the same global batch",
    "learning_rate_factor": "--scale-learning-rate multiplies by the number of replicas: give the same number",
}


def check_same_run(run: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Compare the settings of a run with the settings of a command that wants to go on in it.

    Args:
        run: Run directory, for the message.
        before: Content of the run's `config.json`.
        now: The same of the command.

    Raises:
        CheckpointError: a setting differs that decides the weights.
    """
    for name in now:
        value = before.get(name, _SETTINGS[name].default if name in _SETTINGS else None)
        if name in _MAY_CHANGE or value == now[name]:
            continue
        if name not in before and name == "validation_digest":  # a run of an earlier version
            continue
        difference = f"{name} = {_shown(name, value)}, not {_shown(name, now[name])}"
        raise CheckpointError(
            f"{run} was made with {_OF_DIGESTS.get(name, difference)}. "
            f"{_CURES.get(name, 'Give the same settings')} to go on, or choose another --run for a new one."
        )
    batches_before, batches_now = (of["num_replicas"] * of.get("accumulation_steps", 1) for of in (before, now))
    if now["batch_size"] is not None and batches_before != batches_now:
        raise CheckpointError(
            f"{run} was trained with {batches_before} replicas (x accumulation steps) of --batch-size "
            f"{now['batch_size']}. With {batches_now}, the global batch and so the model differ. Choose another --run, "
            f"with --global-batch-size {batches_before * before['replica_batch_size']} if the number of replicas is to "
            "vary."
        )


def _shown(name: str, value: Any) -> str:
    default = _SETTINGS[name].shown_default if name in _SETTINGS else ""
    return default if value is None and default else repr(value)
