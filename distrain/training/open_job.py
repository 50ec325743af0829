"""From a folder of data to a `TrainingJob`: prepared text, or arrays.

Decides: which model goes with which data. Never: trains.

    job = open_job(TrainConfig(data="data", run="runs/1"))
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from distrain.config import TrainConfig
from distrain.data.array_folder import is_array_folder, open_array_folder
from distrain.data.examples import part_examples
from distrain.data.shards import open_dataset
from distrain.errors import ConfigurationError
from distrain.training.job import TrainingJob


@dataclass(frozen=True)
class TextMetadata:
    """What a model must know of prepared text; a user's `build_model(facts)` is given it.

    Attributes:
        kind: "ngram" (sparse rows) or "sequence" (word ids).
        num_features: columns, or size of the vocabulary.
        max_length: words per row (sequences), else None.
        classes: class names in label order.
    """

    kind: str
    num_features: int
    max_length: int | None
    classes: tuple[str, ...]


def open_job(config: TrainConfig) -> TrainingJob:
    """The job that a configuration describes.

    Raises:
        DataError: the data is missing or damaged.
        ConfigurationError: there is no model for it.
    """
    if is_array_folder(config.data):
        return _array_job(config)
    from distrain.models import build

    dataset = open_dataset(config.data)
    facts = TextMetadata(dataset.kind, dataset.num_features, dataset.max_length, dataset.classes)
    layout = row_layout(config, facts)
    return TrainingJob(
        build=model_builder(config, facts),
        train=part_examples(dataset.parts["train"], **layout),
        validation=part_examples(dataset.parts["test"], **layout),
        data_digest=dataset.digest,
        facts={
            "text": {**asdict(facts), "classes": list(facts.classes)},
            "dropout": build.dropout_rate(config, facts.kind),
        },
        vectorizer=dataset.vectorizer,
    )


def row_layout(config: TrainConfig, facts: TextMetadata) -> dict[str, Any]:
    """How the model takes rows of words, for `part_examples`: packed where it is the shipped one, else padded."""
    unit = None
    if config.model is None and facts.kind == "sequence":
        from distrain.models.sepcnn import packing_unit

        unit = packing_unit(config.blocks)
    return {"length": facts.max_length or 1, "unit": unit}


def model_builder(config: TrainConfig, facts: TextMetadata) -> Callable[[], Any]:
    """A function that makes the model for prepared text, with what trains it."""
    from distrain.models import build

    if config.model is None:
        return lambda: build.text_model(
            facts.kind,
            num_features=facts.num_features,
            num_classes=len(facts.classes),
            config=config,
        )
    function = build.find_function(config.model)
    takes_facts = len(inspect.signature(function).parameters) > 0

    def build_model() -> Any:
        return function(facts) if takes_facts else function()

    return lambda: build.user_model(build_model, learning_rate=config.learning_rate)


def _array_job(config: TrainConfig) -> TrainingJob:
    from distrain.models.build import find_function, user_model

    if config.model is None:
        raise ConfigurationError(
            f"{config.data} holds arrays, not prepared text: name your model, --model package.module:function."
        )
    parts = open_array_folder(config.data)
    function = find_function(config.model)
    return TrainingJob(
        build=lambda: user_model(function, learning_rate=config.learning_rate),
        train=parts["train"],
        validation=parts.get("test"),
        data_digest="|".join(f"{name}:{part.digest}" for name, part in parts.items()),
    )
