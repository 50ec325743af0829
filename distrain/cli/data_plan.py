"""`distrain plan` on arrays and on the data of a function.

Decides: how such data is opened, and which options do not suit it. Never: has formulas of its own.

    if is_own_data(config.data):
        print_data_plan(asked, config)
"""

from __future__ import annotations

import logging
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distrain.config import PlanConfig, TrainConfig, settings_of
from distrain.errors import ConfigurationError

if TYPE_CHECKING:
    from distrain.data.examples import Examples
    from distrain.planning.data_plan import ModelSize

_SERVED = {"replicas", "audit", "step_ms"}  # settings of a plan that do not need the shipped model

_LOG = logging.getLogger(__name__)


def is_own_data(data: Path) -> bool:
    """Whether the data is arrays or a named function, and no prepared text."""
    from distrain.data.array_folders.folder import is_array_folder
    from distrain.training.jobs.named_data import names_function

    return names_function(data) or is_array_folder(data)


def print_data_plan(asked: PlanConfig, config: TrainConfig) -> None:
    """Print the plan, and audit it if that is asked for.

    Raises:
        ConfigurationError: the data cannot be had, or an option needs the shipped model.
        DataError: the data is damaged, or the audit cannot read an example.
    """
    from distrain.planning.audit import audit
    from distrain.planning.data_plan import data_table, plan_data
    from distrain.reporting.console import open_console

    for one in settings_of(PlanConfig):
        if one.name not in _SERVED and getattr(asked, one.name) != one.default:
            raise ConfigurationError(
                f"{one.option} is for prepared text and its shipped model, and {config.data} is none: leave it out, or "
                "give the time of a step as --step-ms."
            )
    train, validation = _opened(config, verify=asked.audit)
    plan = plan_data(train, validation, config, num_replicas=asked.replicas)
    model = None if config.model is None else _model_size(config.model, train)
    for warning in plan.warnings:
        _LOG.warning(warning)
    console = open_console()
    step_seconds = None if asked.step_ms is None else asked.step_ms / 1000
    console.print(data_table(str(config.data), plan, model, step_seconds))
    if asked.audit:
        audit(plan.epoch, seed=config.seed, epoch=0, console=console, source=train, reads=True)
        audit(plan.epoch, seed=config.seed, epoch=1, console=console, source=train)
        console.print(
            f"Audit: in epochs 1 and 2 each of {plan.epoch.num_examples:,} examples is read exactly once. "
            "In epoch 1 all were read and fit together.",
            highlight=False,
        )


def _opened(config: TrainConfig, *, verify: bool) -> tuple[Examples, Examples | None]:
    """Return the examples that `distrain train` would read; `verify` compares the checksums of arrays."""
    from distrain.training.jobs.job import training_arrays
    from distrain.training.jobs.named_data import load_named_data, names_function

    if not names_function(config.data):
        parts = training_arrays(config.data, verify=verify)
        return parts["train"], parts.get("validation", parts.get("test"))
    return load_named_data(str(config.data)).training_examples(seed=config.seed)


def _model_size(name: str, train: Examples) -> ModelSize:
    from distrain.config.named_function import find_function
    from distrain.data.batches import sample_batch
    from distrain.keras_backend.start import require_tensorflow
    from distrain.planning.data_plan import ModelSize

    require_tensorflow()
    from distrain.distribution.devices import use_one_device
    from distrain.models.build import user_model
    from distrain.training.steps.task import built_model

    use_one_device({}, "cpu")

    def build() -> Any:
        return user_model(find_function(name))

    model, _ = built_model(build, sample_batch(train), scope=nullcontext(), num_columns=train.num_columns)

    def num_bytes(variables: Any) -> int:
        return sum(variable.value.dtype.size * variable.value.shape.num_elements() for variable in variables)

    return ModelSize(
        num_weights=model.count_params(),
        weight_bytes=num_bytes(model.variables),
        gradient_bytes=num_bytes(model.trainable_variables),
        optimizer_bytes=num_bytes(model.optimizer.variables),
    )
