"""`distrain.fit`: train any Keras model on arrays, from Python.

Decides: how a user's arguments become a `TrainingJob`. Never: trains.

    result = distrain.fit(build_model, train=(x, y), validation=(xv, yv), loss="mse", run="runs/1", epochs=5)
    result.model.predict(xv)
"""

from __future__ import annotations

import math
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from distrain.cluster.world import find_world
from distrain.config import TrainConfig
from distrain.data.array_folders.cache import Progress
from distrain.data.workers.pool import WorkerPool
from distrain.data.workers.process import refuse_in_worker
from distrain.errors import ConfigurationError
from distrain.reporting.console import open_console, print_line
from distrain.reporting.reporter import Reporter, RunReporter
from distrain.training.callbacks.rules import flat_callbacks
from distrain.training.jobs.fit_arguments import (
    VERBOSE,
    examples_of,
    refuse_arguments,
    train_and_validation,
    transforms_of,
)
from distrain.training.jobs.given_data import class_names_of
from distrain.training.jobs.job import TrainingJob, named_classes, refuse_given_model
from distrain.training.process_end import end_script_by_exit_code
from distrain.training.run import Result, run_job

CACHE_LINE_SECONDS = 10.0  # between two lines about the examples that are written to a cache

# `fit` takes data and model as arguments of its own; the rest describes the models that distrain ships.
_NOT_OF_FIT = {"data", "model", "units", "embedding", "blocks", "filters", "dropout", "class_weight", "mixed_precision"}


def fit(
    build_model: Callable[[], Any] | Any,
    train: Any = None,
    validation: Any = None,
    *,
    x: Any = None,
    y: Any = None,
    validation_data: Any = None,
    map: Callable[..., Any] | None = None,  # noqa: A002 - as in datasets.Dataset.map and tf.data.Dataset.map; fit never calls the built-in
    validation_map: Callable[..., Any] | None = None,
    optimizer: Any = None,
    loss: Any = None,
    metrics: Any = None,
    loss_weights: Any = None,
    weighted_metrics: Any = None,
    callbacks: Any = None,
    sample_weight: Any = None,
    class_weight: Mapping[int, float] | str | None = None,
    validation_split: float = 0.0,
    shuffle: bool = True,
    verbose: int | str = "auto",
    run: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
    patience: int = 0,
    **settings: Any,
) -> Result:
    """Train a Keras model; the result does not depend on the number of replicas.

    Args:
        build_model: makes the model, functional or subclassed, compiled or not. distrain calls it once, in the scope
            of the devices and with Keras's random seed set. One replica also trains a given model, from its weights.
        train: (x, y) or (x, y, weights): nests of arrays `[n, ...]` (also `np.memmap`) and of SciPy sparse matrices.
            Weights are as Keras' sample_weight. A source of examples by number serves too: see `data.positional`.
        validation: validation data in the form of `train`, or None.
        x: features, in place of `train`.
        y: labels, beside `x`.
        validation_data: another name of `validation`.
        map: changes an example; a second argument is a random generator of the seed, the epoch and the example.
        validation_map: the same for validation data; default: `map`, if that draws no random numbers.
        optimizer: a Keras optimizer, its name, or a function that makes it; default: the compiled one, else Adam.
        loss: as `compile` takes it, and likewise the next three; default: as the model is compiled.
        metrics: metrics whose states add up over examples.
        loss_weights: weights of several losses.
        weighted_metrics: metrics that see the weights of the examples.
        callbacks: Keras callbacks. A callback that writes files runs on the chief alone, all others on every rank.
        sample_weight: weights of the training examples, in place of a third element of `train`.
        class_weight: weight of each class by number, or "balanced".
        validation_split: fraction of the examples, the last ones before shuffling, that validate.
        shuffle: whether each epoch has an order of its own; False keeps the order of the data.
        verbose: 0 prints nothing on standard output, 2 one line per epoch, 1 or "auto" a bar on a terminal.
        run: the run directory; default: a temporary folder.
        cache: folder that holds `train` and `validation` as arrays; it is written if it is missing.
        patience: epochs without a lower validation loss after which training ends; 0 trains all epochs.
        **settings: fields of `TrainConfig`: epochs, strategy, ...; `batch_size` counts examples of one replica.

    Returns:
        The best model (by validation loss, else training loss), the summary, metrics by epoch, and Keras' `History`.

    Raises:
        DistrainError: as `run_job`; uncaught, it ends a script by its exit code. `StopRequested.result` has the model.
    """
    end_script_by_exit_code()
    settings = _checked(settings, shuffle, verbose)
    is_model = _is_model(build_model, settings.get("devices"))
    build = _builder(build_model, is_model, (optimizer, loss, metrics, loss_weights, weighted_metrics))
    data = train_and_validation(train, validation, x, y, validation_data)
    workers = WorkerPool(settings.get("data_workers", 0))
    maps = transforms_of(map, validation_map, seed=settings.get("seed", 0), validates=data[1] is not None)
    options: dict[str, Any] = {**maps, "workers": workers, "cache": cache, "progress": _cache_progress(verbose)}
    examples, held_out = examples_of(*data, sample_weight, class_weight, validation_split, **options)
    way: dict[str, Any] = {"shuffle": shuffle, "verbose": verbose, "has_given_model": is_model, "workers": workers}

    def open_job() -> TrainingJob:
        metadata = {"shuffle": shuffle, "validation_digest": getattr(held_out, "digest", None), **_classes(*data)}
        way["callbacks"] = flat_callbacks(callbacks)  # refuses a callback before the run directory is made
        return TrainingJob(build, examples, held_out, examples.digest, metadata, is_temporary=run is None, **way)

    with _run_directory(run) as folder:
        config = TrainConfig(data=Path(), run=folder, patience=patience, **settings)
        return run_job(open_job, config, reporter=partial(_reporter, config, verbose))


def _classes(train: Any, validation: Any) -> dict[str, Any]:
    return named_classes(class_names_of({"train": train, "validation": validation}))


def _cache_progress(verbose: int | str) -> Progress:
    """Return what tells now and then how many examples are in the cache, because writing it may take hours."""
    console = open_console(is_quiet=verbose == 0, is_plain=True)
    told: dict[str, float] = {}

    def show(part: str, rows: int, length: int | None) -> None:
        now = time.monotonic()
        if now - told.get(part, -math.inf) >= CACHE_LINE_SECONDS:
            told[part] = now
            print_line(console, f"cache: {part}, {rows:,}{f' of {length:,}' if length else ''} examples written")

    return show


@contextmanager
def _run_directory(run: str | os.PathLike[str] | None) -> Iterator[Path]:
    if run is not None:
        yield Path(run)
        return
    with tempfile.TemporaryDirectory(prefix="distrain-") as folder:
        yield Path(folder) / "run"


def _builder(build_model: Any, is_model: bool, compiling: tuple[Any, ...]) -> Callable[..., Any]:
    given = dict(zip(("optimizer", "loss", "metrics", "loss_weights", "weighted_metrics"), compiling, strict=True))

    def build(**choices: Any) -> Any:
        from distrain.models.build import user_model

        return user_model((lambda: build_model) if is_model else build_model, **given, **choices)

    return build


def _checked(settings: Mapping[str, Any], shuffle: Any, verbose: Any) -> dict[str, Any]:
    refuse_in_worker()
    settings = refuse_arguments(settings)
    unknown = set(settings) - (set(TrainConfig.__dataclass_fields__) - _NOT_OF_FIT)
    if unknown:
        raise ConfigurationError(f"{', '.join(sorted(unknown))}: no such setting of distrain.fit.")
    if verbose not in VERBOSE:
        raise ConfigurationError(f"verbose is {verbose!r}, but it must be one of {', '.join(map(str, VERBOSE))}.")
    if not isinstance(shuffle, bool):
        raise ConfigurationError(f"shuffle is {shuffle!r}, but it must be True or False.")
    return settings


def _reporter(config: TrainConfig, verbose: int | str, run: Path) -> Reporter:
    console = open_console(is_quiet=verbose == 0, is_plain=verbose == 2)
    return RunReporter(run, num_epochs=config.epochs, prometheus=config.prometheus, console=console)


def _is_model(build_model: Any, devices: Any) -> bool:
    keras = sys.modules.get("keras")  # whoever made a model has imported Keras
    is_model = keras is not None and isinstance(build_model, keras.Model)
    has_several_devices = isinstance(devices, str) and re.fullmatch(r"cpu(:0*1)?|gpu:\d+", devices) is None
    if is_model and (has_several_devices or find_world(os.environ).size > 1):
        refuse_given_model()
    return is_model
