"""`distrain.fit`: train any Keras model on arrays, from Python.

Decides: how a user's arguments become a `TrainingJob`. Never: trains.

    result = distrain.fit(build_model, train=(x, y), validation=(xv, yv), loss="mse", run="runs/1", epochs=5)
    result.model.predict(xv)
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from distrain.config import TrainConfig
from distrain.data.sources import array_examples
from distrain.errors import ConfigurationError
from distrain.training.job import TrainingJob
from distrain.training.run import Result, run_job

# `fit` takes data and model as arguments of its own; the rest describes the models that distrain ships.
_NOT_OF_FIT = {"data", "model", "units", "embedding", "blocks", "filters", "dropout", "class_weight"}


def fit(
    build_model: Callable[[], Any],
    train: tuple[Any, ...],
    validation: tuple[Any, ...] | None = None,
    *,
    optimizer: Any = None,
    loss: Any = None,
    metrics: Sequence[Any] | None = None,
    callbacks: Sequence[Any] = (),
    run: str | os.PathLike[str] | None = None,
    patience: int = 0,
    **settings: Any,
) -> Result:
    """Train a Keras model; the result does not depend on the number of replicas.

    Args:
        build_model: makes the model, functional or subclassed, compiled or not. distrain calls it once, in the scope
            of the devices and with Keras's random seed set.
        train: (x, y) or (x, y, weights). Features x are an array `[n, ...]` (also `np.memmap`), a SciPy sparse matrix,
            or a dict of these by input name. Labels y are an array `[n, ...]`, weights an array `[n]`.
        validation: validation data in the form of `train`, or None.
        optimizer: a Keras optimizer or its name; default: the compiled optimizer, else Adam.
        loss: a Keras loss, its name, or a function (y, outputs) -> `[b, ...]`; default: the compiled loss.
        metrics: names or Keras metrics with additive states; default: the compiled metrics.
        callbacks: Keras callbacks.
        run: the run directory; default: a temporary folder.
        patience: epochs without a lower validation loss after which training ends; 0 trains all epochs.
        **settings: fields of `TrainConfig`: epochs, global_batch_size, batch_size, strategy, devices, seed,
            checkpoint_every, resume, ...

    Returns:
        The best model (by validation loss, else training loss), the summary, and the metrics of each epoch.

    Raises:
        ConfigurationError: an argument does not fit.
        DistrainError: as `distrain.training.run.run_job`.
    """
    for name, part in (("train", train), ("validation", validation)):
        if part is not None and not (isinstance(part, tuple) and len(part) in (2, 3)):
            raise ConfigurationError(f"{name} must be a tuple (x, y) or (x, y, weights).")
    unknown = set(settings) - (set(TrainConfig.__dataclass_fields__) - _NOT_OF_FIT)
    if unknown:
        raise ConfigurationError(f"{', '.join(sorted(unknown))}: no such setting of distrain.fit.")
    examples = array_examples(*train)
    job = TrainingJob(
        build=_builder(build_model, optimizer, loss, metrics),
        train=examples,
        validation=None if validation is None else array_examples(*validation),
        data_digest=examples.digest,
        callbacks=callbacks,
    )
    if run is not None:
        return run_job(lambda: job, TrainConfig(data=Path(), run=Path(run), patience=patience, **settings))
    with tempfile.TemporaryDirectory(prefix="distrain-") as folder:
        return run_job(lambda: job, TrainConfig(data=Path(), run=Path(folder) / "run", patience=patience, **settings))


def _builder(build_model: Any, optimizer: Any, loss: Any, metrics: Any) -> Callable[..., Any]:
    def build(**choices: Any) -> Any:
        from distrain.models.build import user_model

        return user_model(build_model, optimizer=optimizer, loss=loss, metrics=metrics, **choices)

    return build
