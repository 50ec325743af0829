"""How far a run has come, and how a checkpoint stores it.

Decides: which fields a run needs to resume at the same example. Never: trains, saves or decides.

    >>> from distrain.runs.progress import Progress
    >>> Progress().after_step([2.5, 64.0], num_examples=64, seconds=0.1).position
    64
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from distrain.errors import CheckpointError
from distrain.runs.checkpoint import Checkpoint

Sums = Sequence[np.ndarray]


@dataclass(frozen=True)
class Progress:
    """How far training has come; each checkpoint holds these fields.

    Attributes:
        epoch: the current epoch, from 0.
        position: examples trained in the current epoch; the next batch starts at this position.
        epoch_steps: steps of the current epoch so far, skipped steps included.
        global_step: steps over all epochs, skipped steps included.
        examples_trained: examples trained over all epochs; a skipped step trains none.
        train_seconds: seconds spent in training steps over all epochs.
        sums: the step's sums, added up over the current epoch, float64.
        skipped_steps: steps without an update, because a number in them was not finite.
    """

    epoch: int = 0
    position: int = 0
    epoch_steps: int = 0
    global_step: int = 0
    examples_trained: int = 0
    train_seconds: float = 0.0
    sums: tuple[np.ndarray, ...] = ()
    skipped_steps: int = 0

    def after_step(self, sums: Sums, num_examples: int, seconds: float) -> Progress:
        """Return the progress after one more step over `num_examples` examples."""
        added = [np.asarray(value, np.float64) for value in sums]
        if self.sums:
            added = [before + value for before, value in zip(self.sums, added, strict=True)]
        return Progress(
            self.epoch,
            self.position + num_examples,
            self.epoch_steps + 1,
            self.global_step + 1,
            self.examples_trained + num_examples,
            self.train_seconds + seconds,
            tuple(added),
            self.skipped_steps,
        )

    def after_skipped_step(self, num_examples: int, seconds: float) -> Progress:
        """Return the progress after a step over `num_examples` examples that changed no weight."""
        return replace(
            self,
            position=self.position + num_examples,
            epoch_steps=self.epoch_steps + 1,
            global_step=self.global_step + 1,
            train_seconds=self.train_seconds + seconds,
            skipped_steps=self.skipped_steps + 1,
        )

    def after_epoch(self) -> Progress:
        """Return the progress at the start of the next epoch."""
        return replace(self, epoch=self.epoch + 1, position=0, epoch_steps=0, sums=())


def progress_state(progress: Progress) -> dict[str, Any]:
    """Return the fields that a checkpoint stores as JSON."""
    return {
        "epoch": progress.epoch,
        "position": progress.position,
        "epoch_steps": progress.epoch_steps,
        "global_step": progress.global_step,
        "examples_trained": progress.examples_trained,
        "train_seconds": progress.train_seconds,
        "skipped_steps": progress.skipped_steps,
    }


def progress_arrays(progress: Progress) -> dict[str, np.ndarray]:
    """Return the fields that a checkpoint stores as arrays, by name."""
    return {f"sums/{number:04d}": np.asarray(value) for number, value in enumerate(progress.sums)}


def read_progress(checkpoint: Checkpoint | None, *, num_examples: int | None = None) -> Progress:
    """Return the progress that a checkpoint holds, or the start of training if `checkpoint` is None.

    Args:
        checkpoint: the checkpoint.
        num_examples: training examples of an epoch, if they are known.

    Raises:
        CheckpointError: the checkpoint lacks a field, or its position lies outside of an epoch.
    """
    if checkpoint is None:
        return Progress()
    sums = [checkpoint.arrays[name] for name in sorted(checkpoint.arrays) if name.startswith("sums/")]
    try:
        if any(not np.issubdtype(value.dtype, np.floating) for value in sums):
            raise CheckpointError(f"{checkpoint.path} holds sums of an epoch that are no floating numbers.")
        state = {"skipped_steps": 0, **checkpoint.state}  # a checkpoint of an earlier version lacks the count
        progress = Progress(**{name: state[name] for name in progress_state(Progress())}, sums=tuple(sums))
    except KeyError as error:
        raise CheckpointError(f"{checkpoint.path} does not record how far training was: {error} is missing.") from None
    if num_examples is not None and progress.position > num_examples:
        raise CheckpointError(
            f"{checkpoint.path} continues an epoch at example {progress.position:,}, but the training data has "
            f"{num_examples:,}: it is forged or damaged."
        )
    return progress
