"""A finished run, opened to use its best model.

Decides: how the best checkpoint becomes a model again. Never: trains, or computes an output.

    run = open_on_device(Path("runs/1"), devices="cpu")
    trainable = run.load_model(examples)

A shipped model is built from the run's settings. A model of a user's own is rebuilt from the configuration that Keras
saved, if that names parts of Keras and distrain alone. The user's function runs if the caller trusts the run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distrain.config import TrainConfig
from distrain.config.named_function import find_function
from distrain.data.batches import sample_batch
from distrain.data.examples import Examples
from distrain.errors import CheckpointError, ConfigurationError
from distrain.file_names import CONFIG_NAME
from distrain.keras_backend.start import require_tensorflow
from distrain.runs.checkpoint import Checkpoint
from distrain.runs.directory import config_of, read_settings
from distrain.runs.manifest import check_files
from distrain.runs.served import load_served
from distrain.training.jobs.job import TextMetadata, model_builder, row_layout

if TYPE_CHECKING:
    from distrain.training.steps.task import TrainableModel


@dataclass(frozen=True)
class FinishedRun:
    """A run, with its best checkpoint.

    Attributes:
        path: the run directory.
        settings: content of `config.json`.
        checkpoint: the best checkpoint, or the checkpoint that the user chose.
        is_trusted: whether code that the run names may run.
    """

    path: Path
    settings: dict[str, Any]
    checkpoint: Checkpoint
    is_trusted: bool = False

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
            return TextMetadata.from_json(self.settings["text"])
        except (KeyError, TypeError, ValueError):
            raise CheckpointError(f"{self.path} was not trained on prepared text, which this command needs.") from None

    @property
    def row_layout(self) -> dict[str, Any]:
        """Arguments of `part_examples` and `rows_examples` that fit the model."""
        return row_layout(self.config, self.metadata)

    def load_model(self, examples: Examples) -> TrainableModel:
        """Build the model for `examples` and load the weights of the checkpoint.

        Raises:
            CheckpointError: the checkpoint belongs to another model.
            ConfigurationError: the model is of a user's own code, and the run is not trusted.
        """
        from distrain.training.steps.task import make_task

        sample = sample_batch(examples)
        trainable = make_task(self._builder(), sample, scope=nullcontext(), num_columns=examples.num_columns)
        self._restore(trainable.model)
        return trainable

    def load_network(self, examples: Examples) -> Any:
        """Build the model as `load_model` does, for examples that may have no labels; return the Keras model."""
        from distrain.training.steps.task import built_model

        sample = sample_batch(examples)
        model, _ = built_model(self._builder(), sample, scope=nullcontext(), num_columns=examples.num_columns)
        self._restore(model)
        return model

    @property
    def is_of_text(self) -> bool:
        """Whether the run was trained on prepared text."""
        return "text" in self.settings

    def _restore(self, model: Any) -> None:
        from distrain.models.state import ModelState

        averages = getattr(model.optimizer, "inner_optimizer", model.optimizer).use_ema
        state = ModelState(model, model.optimizer if averages else None)
        self._check_names(state.layout())
        state.restore(self.checkpoint)
        model.optimizer.finalize_variable_values(model.trainable_variables)

    def _builder(self) -> Callable[[], Any]:
        is_shipped = self.config.model is None and self.is_of_text
        is_named = self.config.model is not None and self.is_trusted
        return self._named_model() if is_shipped or is_named else self._rebuilt_model()

    def _named_model(self) -> Callable[[], Any]:
        from distrain.models.build import user_model
        from distrain.models.optimizers import choose_optimizer

        # The optimizer is never used, but may hold the averages of the weights; any length of the run gives the same.
        choice = partial(choose_optimizer, config=self.config, num_steps=2**31, num_replicas=1)
        if self.config.model is not None and not self.is_of_text:
            return partial(user_model, find_function(self.config.model), choose_optimizer=choice)
        return partial(model_builder(self.config, self.metadata), choose_optimizer=choice)

    def _rebuilt_model(self) -> Callable[[], Any]:
        from distrain.models.architecture import foreign_part, rebuilt
        from distrain.models.build import user_model

        saved = self.checkpoint.state.get("architecture")
        foreign = "nothing that Keras could save" if saved is None else foreign_part(saved)
        if foreign and self.config.model is None:
            raise ConfigurationError(
                f"{self.path} was trained by distrain.fit, and its model cannot be rebuilt without the code that made "
                f"it, because it holds {foreign}. Use the model in your program, or train it by --model."
            )
        if foreign:
            raise ConfigurationError(
                f"{self.path} was trained with --model {self.config.model}. Its model cannot be rebuilt without the "
                f"code that made it, because it holds {foreign}. If you trust this run and the modules in the current "
                f"folder, add --trust: then distrain imports {self.config.model} and calls it."
            )
        return partial(user_model, lambda: rebuilt(saved), choose_optimizer=lambda own: own)

    def _check_names(self, layout: Mapping[str, Any]) -> None:
        """Refuse a checkpoint that holds a variable of another name, such as "bias", in the place of a weight."""
        saved, now = self.checkpoint.state.get("variables"), layout["variables"]
        if not isinstance(saved, dict):
            return
        for name in now:
            before, expected = _last_name(saved.get(name)), _last_name(now[name])
            if name.startswith("model/") and before != expected:
                raise CheckpointError(
                    f"{self.checkpoint.path} is of another model: {name} is {before}, not {expected}."
                )


def _last_name(variable: Any) -> str:
    """Return "kernel" for the path "dense/kernel" of a variable and its shape."""
    return str(variable[0]).rpartition("/")[2] if isinstance(variable, list) and variable else "nothing"


def open_finished_run(path: Path, *, checkpoint: str | None = None, trust: bool = False) -> FinishedRun:
    """Open a run directory.

    Args:
        path: the run directory.
        checkpoint: name or path of the checkpoint to use; default: the best.
        trust: whether code that the run names may run.

    Raises:
        CheckpointError: `path` is not a run directory, or the checkpoint cannot be used.
    """
    check_files(path, CONFIG_NAME)
    settings = read_settings(path)
    served = load_served(path, checkpoint)
    if served.state.get("data_digest") != settings.get("data_digest"):
        raise CheckpointError(f"{served.path} was trained on other data than {path}. Choose a checkpoint of that run.")
    return FinishedRun(path, settings, served, trust)


def open_on_device(
    path: Path, *, checkpoint: str | None = None, trust: bool = False, devices: str | None = None
) -> FinishedRun:
    """Open a run directory in a process that computes on one device; see `open_finished_run`.

    Args:
        path: the run directory.
        checkpoint: name or path of the checkpoint to use; default: the best.
        trust: whether code that the run names may run.
        devices: "cpu", or "gpu:N" for one GPU; default: the first GPU, and the CPU if there is no GPU.

    Raises:
        CheckpointError: the run cannot be used.
        ConfigurationError: TensorFlow is missing, or a GPU is not usable.
    """
    require_tensorflow()
    from distrain.distribution.devices import use_one_device

    use_one_device(os.environ, devices)
    return open_finished_run(path, checkpoint=checkpoint, trust=trust)
