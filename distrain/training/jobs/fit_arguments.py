"""Arguments of Keras' `Model.fit` and `Model.compile`, as `distrain.fit` takes them.

Decides: which of these arguments are served, and what a refusal says. Never: trains.

    refuse_arguments({"initial_epoch": 3})                       # raises ConfigurationError with the way on
    train, validation = examples_of((x, y), None, class_weight={1: 5.0}, validation_split=0.2)
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from distrain.data.array_folders.cache import Progress, cached_arrays
from distrain.data.by_position.transforms import Transform
from distrain.data.examples import Examples
from distrain.data.labels.class_weights import balanced_weights, class_counts, class_weighted
from distrain.data.split import split_examples
from distrain.data.workers.pool import WorkerPool
from distrain.errors import ConfigurationError
from distrain.training.jobs.given_data import given_examples

# Arguments that are refused: the value that changes nothing, and the way on.
REFUSED: dict[str, tuple[Any, str]] = {
    "initial_epoch": (0, "give run=DIRECTORY, and the same call with more epochs goes on from the last epoch"),
    "steps_per_epoch": (None, "every epoch reads every example once; give less data, or limit_batches for a dry run"),
    "validation_steps": (None, "an evaluation reads every example once; give less validation data"),
    "validation_batch_size": (None, "figures do not depend on it; distrain evaluates with the batch size of training"),
    "validation_freq": (1, "the best epoch is chosen by validation; give less validation data to save time"),
    "run_eagerly": (False, "distrain compiles its steps; to debug a model, use model.fit"),
    "auto_scale_loss": (True, "give optimizer=keras.optimizers.LossScaleOptimizer(...) to scale the loss your way"),
}
VERBOSE = (0, 1, 2, "auto")


def refuse_arguments(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings without arguments of Keras that have their default value.

    Raises:
        ConfigurationError: an argument that distrain does not serve has another value.
    """
    for name, (default, way_on) in REFUSED.items():
        value = settings.get(name, default)
        if type(value) is not type(default) or value != default:
            raise ConfigurationError(f"{name}={value!r} is not served by distrain.fit: {way_on}.")
    return {name: value for name, value in settings.items() if name not in REFUSED}


def train_and_validation(train: Any, validation: Any, x: Any, y: Any, validation_data: Any) -> tuple[Any, Any]:
    """Return `train` and `validation`, given by these names or by Keras' names x, y and validation_data.

    Raises:
        ConfigurationError: something is given twice or is missing.
    """
    if (train is None) == (x is None) or (train is not None and y is not None):
        raise ConfigurationError("give the training data once: as train=(x, y) or (x, y, weights), or as x= and y=.")
    if validation is not None and validation_data is not None:
        raise ConfigurationError("validation and validation_data are two names of one argument; give one of them.")
    train = (x, y) if train is None else train
    validation = validation_data if validation is None else validation
    return train, validation


def examples_of(
    train: Any,
    validation: Any,
    sample_weight: Any = None,
    class_weight: Mapping[int, float] | str | None = None,
    validation_split: float = 0.0,
    *,
    transform: Transform | None = None,
    validation_transform: Transform | None = None,
    workers: WorkerPool | None = None,
    cache: Any = None,
    progress: Progress = lambda part, rows, length: None,
) -> tuple[Examples, Examples | None]:
    """Return the training and the validation examples.

    Args:
        train: (x, y) or (x, y, weights), or a source by position.
        validation: validation data in one of these forms, or None.
        sample_weight: weights of the training examples, in place of the third element of `train`.
        class_weight: weight by class number, or "balanced".
        validation_split: fraction of the examples, the last ones, that validate; 0 takes `validation` alone.
        transform: changes each training example, and each example that `validation_split` holds out.
        validation_transform: changes each validation example.
        workers: processes that read and transform examples of sources; None reads in this process.
        cache: folder that holds, or will hold, all data but arrays as arrays; None reads the data itself.
        progress: is called as examples are written to `cache`.

    Raises:
        ConfigurationError: arguments contradict each other, or the data is wrong.
    """
    if sample_weight is not None:
        if not isinstance(train, tuple):
            raise ConfigurationError("sample_weight goes with arrays: give the weight as third value of each example.")
        if len(train) == 3 and train[2] is not None:
            raise ConfigurationError("the weights are given twice: as sample_weight and as third element of train.")
        train = (*train[:2], sample_weight)
    if cache is not None:
        train, validation = _cached(cache, train, validation, progress)
    examples = given_examples(train, "train", transform, workers)
    held_out = None if validation is None else given_examples(validation, "validation", validation_transform, workers)
    if validation_split:
        if transform and transform.is_random:
            raise ConfigurationError(
                "map draws random numbers, which held out examples should not: give validation data and validation_map."
            )
        if held_out is not None:
            raise ConfigurationError("validation_split and validation data are given; leave one of them out.")
        examples, held_out = _split(examples, validation_split)
    if class_weight is not None:
        weights: Any = class_weight  # `class_weighted` refuses other types
        if class_weight == "balanced":
            weights = balanced_weights(class_counts(examples))
        examples = class_weighted(examples, weights)
    return examples, held_out


def _cached(cache: Any, train: Any, validation: Any, progress: Progress) -> tuple[Any, Any]:
    if not isinstance(cache, (str, os.PathLike)):
        raise ConfigurationError(f"cache is {cache!r}, but it must name a folder.")
    given = {"train": train, "validation": validation}
    written = {part: data for part, data in given.items() if data is not None and not isinstance(data, tuple)}
    arrays = cached_arrays(Path(cache), written, progress) if written else {}
    return arrays.get("train", train), arrays.get("validation", validation)


def transforms_of(
    function: Callable[..., Any] | None, validation_function: Callable[..., Any] | None, *, seed: int, validates: bool
) -> dict[str, Transform | None]:
    """Return `transform` and `validation_transform` of `examples_of`.

    Args:
        function: the argument `map` of `distrain.fit`.
        validation_function: its argument `validation_map`.
        seed: seed of the run.
        validates: whether validation data is given.

    Raises:
        ConfigurationError: an argument is no function, or validation data would be changed at random unasked.
    """
    for name, given in (("map", function), ("validation_map", validation_function)):
        if given is not None and not callable(given):
            raise ConfigurationError(f"{name} is {given!r}; give a function of one example.")
    transform = None if function is None else Transform(function, seed)
    if validation_function is not None:
        return {"transform": transform, "validation_transform": Transform(validation_function, seed)}
    if transform and transform.is_random and validates:
        raise ConfigurationError(
            "map draws random numbers, which validation data should not: give validation_map, a function of one "
            "example without random numbers."
        )
    return {"transform": transform, "validation_transform": transform}


def _split(examples: Examples, fraction: float) -> tuple[Examples, Examples]:
    if not isinstance(fraction, int | float) or not 0 < fraction < 1:
        raise ConfigurationError(f"validation_split is {fraction!r}, but it must be above 0 and below 1.")
    count = math.floor(examples.num_examples * (1.0 - fraction))  # as Keras rounds
    if count in (0, examples.num_examples):
        raise ConfigurationError(
            f"validation_split={fraction} leaves one part of {examples.num_examples} examples empty; "
            "choose another fraction."
        )
    return split_examples(examples, count)
