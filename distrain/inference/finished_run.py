"""A finished run, opened to use its best model.

Decides: how the best checkpoint becomes a model again. Never: trains, or computes an output.

    run = open_finished_run(Path("runs/1"))
    trainable = run.load_model(examples)

The model is built from the run's own settings, and its arrays are loaded: no file of the run can execute code.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distrain.config import TrainConfig
from distrain.data.batches import sample_batch
from distrain.data.examples import Examples
from distrain.errors import CheckpointError
from distrain.runs.checkpoint import Checkpoint
from distrain.runs.directory import config_of, open_finished
from distrain.training.job import TextMetadata, model_builder, row_layout

if TYPE_CHECKING:
    from distrain.distribution.base import Distribution
    from distrain.training.task import TrainableModel


@dataclass(frozen=True)
class FinishedRun:
    """A run on prepared text, with its best checkpoint.

    Attributes:
        path: the run directory.
        settings: content of `config.json`.
        checkpoint: the best checkpoint.
    """

    path: Path
    settings: dict[str, Any]
    checkpoint: Checkpoint

    @property
    def config(self) -> TrainConfig:
        """The settings that a user chose."""
        return config_of(self.settings)

    @property
    def metadata(self) -> TextMetadata:
        """Description of the text that the run was trained on.

        Raises:
            CheckpointError: the run was not trained on prepared text.
        """
        try:
            text = self.settings["text"]
            classes = tuple(str(name) for name in text["classes"])
            return TextMetadata(text["kind"], int(text["num_features"]), text["max_length"], classes)
        except (KeyError, TypeError, ValueError):
            raise CheckpointError(f"{self.path} was not trained on prepared text, which this command needs.") from None

    @property
    def row_layout(self) -> dict[str, Any]:
        """Arguments of `part_examples` and `rows_examples` that fit the model."""
        return row_layout(self.config, self.metadata)

    def load_model(self, examples: Examples, distribution: Distribution) -> TrainableModel:
        """Build the model for `examples` and load the weights of the checkpoint.

        Raises:
            CheckpointError: the checkpoint belongs to another model.
        """
        from distrain.models.optimizers import choose_optimizer
        from distrain.models.state import ModelState
        from distrain.training.task import make_task

        # The optimizer is never used, but may hold the averages of the weights; any length of the run gives the same.
        choice = partial(choose_optimizer, config=self.config, num_steps=2**31, num_replicas=1)
        build = partial(model_builder(self.config, self.metadata), choose_optimizer=choice)
        scope = distribution.scope()
        trainable = make_task(build, sample_batch(examples), scope=scope, num_columns=examples.num_columns)
        averages = getattr(trainable.optimizer, "inner_optimizer", trainable.optimizer).use_ema
        ModelState(trainable.model, trainable.optimizer if averages else None).restore(self.checkpoint)
        trainable.optimizer.finalize_variable_values(trainable.model.trainable_variables)
        return trainable


def open_finished_run(path: Path) -> FinishedRun:
    """Open a run directory.

    Raises:
        CheckpointError: `path` is not a run directory, or has no usable checkpoint.
    """
    return FinishedRun(path, *open_finished(path))
