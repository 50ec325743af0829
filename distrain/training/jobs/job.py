"""What a run trains, and how prepared text, arrays or the data of a function become a `TrainingJob`.

Decides: the fields of a job, and which model goes with which data. Never: trains.

    job = open_job(TrainConfig(data="data", run="runs/1"))
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from distrain.config import TrainConfig
from distrain.config.named_function import find_function
from distrain.config.text import TASKS
from distrain.data.array_folders.folder import is_array_folder, open_array_folder
from distrain.data.array_folders.manifest import recorded_digest
from distrain.data.examples import Examples
from distrain.data.prepared.dataset_index import open_dataset
from distrain.data.sources import part_examples
from distrain.data.workers.pool import WorkerPool
from distrain.errors import ConfigurationError, DataError
from distrain.training.jobs.class_weight import weigh_classes
from distrain.training.jobs.named_data import load_named_data, names_function


@dataclass(frozen=True)
class TrainingJob:
    """A model, its data, and the callbacks of its user.

    Attributes:
        build: makes a compiled model; called within the scope of the distribution. Its keyword `choose_optimizer`
            receives the user's optimizer, or None, and returns the optimizer of the run; default: Adam for None.
        train: the training examples.
        validation: the examples that evaluate each epoch, or None.
        data_digest: digest of the data; a run resumes only on data with the same digest.
        metadata: further entries of `config.json` that describe the data.
        vectorizer: folder of the vectorizer, to be copied into the run directory; None for arrays.
        callbacks: Keras callbacks.
        shuffle: whether each epoch has an order of its own.
        verbose: what callbacks see as their parameter `verbose`.
        is_temporary: whether nothing of the run directory stays.
        has_given_model: whether `build` returns a model that existed before, which suits one replica.
        workers: processes that read and transform examples while the run lasts; None for data without such sources.
    """

    build: Callable[..., Any]
    train: Examples
    validation: Examples | None
    data_digest: str
    metadata: dict[str, Any] = field(default_factory=dict)
    vectorizer: Path | None = None
    callbacks: Any = None
    shuffle: bool = True
    verbose: int | str = "auto"
    is_temporary: bool = False
    has_given_model: bool = False
    workers: WorkerPool | None = None


def refuse_given_model() -> NoReturn:
    """Say that several replicas need a function in place of a model."""
    raise ConfigurationError(
        "build_model is a model, which one device alone can train: for several replicas, give a function that builds "
        "and returns the model."
    )


@dataclass(frozen=True)
class TextMetadata:
    """A description of prepared text; a user's `build_model(metadata)` receives it.

    Attributes:
        kind: "ngram" (sparse rows) or "sequence" (word ids).
        num_features: columns of n-grams, or words of the vocabulary.
        max_length: words per row of a sequence; None for n-grams.
        classes: names of classes or labels in label order; empty if targets are numbers.
        task: "classification", "multilabel" (labels are 0 or 1 for each name) or "regression" (labels are numbers).
        target_mean: mean of the training targets of a regression, else None.
        target_deviation: standard deviation of the training targets of a regression, else None.
    """

    kind: str
    num_features: int
    max_length: int | None
    classes: tuple[str, ...]
    task: str = "classification"
    target_mean: float | None = None
    target_deviation: float | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the entry "text" of `config.json`; runs of classes have no entry of a task."""
        fields = {**asdict(self), "classes": list(self.classes)}
        left_out = ("task", "target_mean", "target_deviation") if self.task == "classification" else ()
        return {name: value for name, value in fields.items() if name not in left_out}

    @staticmethod
    def from_json(text: Mapping[str, Any]) -> TextMetadata:
        """Return what `as_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: an entry is missing or of another type.
        """
        classes = tuple(str(name) for name in text["classes"])
        head = text["kind"], int(text["num_features"]), text["max_length"], classes
        task = text.get("task", "classification")
        if task not in TASKS:
            raise ValueError(f"task {task!r}")
        scale = (float(text["target_mean"]), float(text["target_deviation"])) if task == "regression" else (None, None)
        return TextMetadata(*head, task, *scale)


def open_job(config: TrainConfig) -> TrainingJob:
    """Return the job that `config` describes.

    Raises:
        DataError: the data is missing or damaged.
        ConfigurationError: no model is known for the data.
    """
    if config.mixed_precision is not None and config.model is not None:
        raise ConfigurationError(
            "--mixed-precision is for the shipped models. In your own model, call "
            f'keras.config.set_dtype_policy("mixed_{config.mixed_precision}") before you make its layers.'
        )
    if names_function(config.data):
        return _named_job(config)
    return _array_job(config) if is_array_folder(config.data) else _text_job(config)


def row_layout(config: TrainConfig, metadata: TextMetadata) -> dict[str, Any]:
    """Return the arguments of `part_examples` that fit the model: packed rows for the shipped one, else padded rows."""
    pad_multiple = None
    if config.model is None and metadata.kind == "sequence":
        from distrain.models.sepcnn import pad_multiple_for

        pad_multiple = pad_multiple_for(config.blocks)
    return {"length": metadata.max_length or 1, "pad_multiple": pad_multiple}


def model_builder(config: TrainConfig, metadata: TextMetadata) -> Callable[..., Any]:
    """Return a function that makes the compiled model for prepared text; see `TrainingJob.build`."""
    from distrain.models import build
    from distrain.models.heads import head_of

    if config.model is None:
        return partial(
            build.text_model,
            metadata.kind,
            num_features=metadata.num_features,
            num_classes=len(metadata.classes),
            config=config,
            head=head_of(metadata.task, metadata.target_mean, metadata.target_deviation),
        )
    function = find_function(config.model)
    takes_metadata = len(inspect.signature(function).parameters) > 0

    def build_model() -> Any:
        return function(metadata) if takes_metadata else function()

    return partial(build.user_model, build_model)


def _text_job(config: TrainConfig) -> TrainingJob:
    from distrain.models.build import dropout_rate

    dataset = open_dataset(config.data)
    metadata = TextMetadata(
        dataset.kind,
        dataset.num_features,
        dataset.max_length,
        dataset.classes,
        dataset.task,
        dataset.target_mean,
        dataset.target_deviation,
    )
    if config.class_weight is not None and metadata.task != "classification":
        what = "sets of labels" if metadata.task == "multilabel" else "numbers"
        raise ConfigurationError(
            f"--class-weight is for classes, but {config.data} holds {what}. Weigh rows: prepare with --weight-column."
        )
    layout = row_layout(config, metadata)
    train = part_examples(dataset.parts["train"], **layout)
    train, weights = weigh_classes(train, config.class_weight, dataset.classes)
    return TrainingJob(
        build=model_builder(config, metadata),
        train=train,
        validation=part_examples(dataset.parts["test"], **layout),
        data_digest=dataset.digest,
        metadata={
            "text": metadata.as_json(),
            "dropout": dropout_rate(config, metadata.kind),
            **weights,
        },
        vectorizer=dataset.vectorizer,
    )


def named_classes(classes: Sequence[str]) -> dict[str, Any]:
    """Return the entry of `config.json` for names of classes that a source gives; none for classes without names."""
    return {"classes": list(classes)} if classes else {}


def class_names(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the classes by number that `config.json` holds; empty if classes have no names."""
    return tuple(map(str, settings.get("classes") or settings.get("text", {}).get("classes", ())))


def training_arrays(folder: Path, *, verify: bool = True) -> dict[str, Examples]:
    """Return the parts of a folder of arrays, of which "train" is one; see `open_array_folder`.

    Raises:
        DataError: a file is damaged, or the folder has no training arrays.
    """
    parts = open_array_folder(folder, verify=verify)
    if "train" not in parts:
        raise DataError(f"{folder} has arrays to test, but none to train: add train.x.npy and train.y.npy.")
    return parts


def _array_job(config: TrainConfig) -> TrainingJob:
    _require_model(config, "holds arrays, not prepared text")
    parts = training_arrays(config.data)
    digests = {name: part.digest for name, part in parts.items()}
    if recorded := recorded_digest(config.data):  # sees every byte, and the digest of an array its two ends
        digests["folder"] = recorded
    digest = "|".join(f"{name}:{value}" for name, value in digests.items())
    return _model_job(config, parts["train"], parts.get("validation", parts.get("test")), digest)


def _named_job(config: TrainConfig) -> TrainingJob:
    _require_model(config, "returns data of your own, not prepared text")
    data = load_named_data(str(config.data))
    workers = WorkerPool(config.data_workers)
    train, validation = data.training_examples(seed=config.seed, workers=workers)
    job = _model_job(config, train, validation, train.digest, data.class_names())
    metadata = {"validation_digest": validation.digest if validation else None, **job.metadata}
    return replace(job, metadata=metadata, workers=workers)


def _require_model(config: TrainConfig, what: str) -> None:
    if config.model is None:
        raise ConfigurationError(f"{config.data} {what}: name your model, --model package.module:function.")


def _model_job(
    config: TrainConfig,
    train: Examples,
    validation: Examples | None,
    data_digest: str,
    classes: tuple[str, ...] = (),
) -> TrainingJob:
    from distrain.models.build import user_model

    assert config.model is not None
    function = find_function(config.model)
    train, weights = weigh_classes(train, config.class_weight, classes)
    metadata = {**named_classes(classes), **weights}
    return TrainingJob(partial(user_model, function), train, validation, data_digest, metadata=metadata)
