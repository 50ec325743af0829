"""Every setting once: frozen dataclasses, validated where they are made; a TOML file with the command line over it.

Decides: names, defaults and allowed values of settings. Never: reads data, looks at devices, imports TensorFlow.

    >>> from distrain.config import PrepareConfig
    >>> PrepareConfig(train="train.csv", out="data").top_k
    20000
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from distrain.errors import ConfigurationError

STRATEGIES = ("auto", "single", "mirrored", "horovod", "mpi")
COMPRESSIONS = ("none", "fp16")
DEFAULT_GLOBAL_BATCH_SIZE = 128  # that of Google's text classification guide
VECTORIZERS = ("auto", "ngram", "sequence")
DATASETS = ("ag_news", "dbpedia", "yelp_polarity", "yelp_full", "amazon_polarity", "amazon_full")


def require(condition: bool, name: str, value: object, rule: str) -> None:
    """Raise `ConfigurationError` naming the setting, its value and the rule it breaks, unless `condition` holds."""
    if not condition:
        raise ConfigurationError(f"{name} is {value!r}, but it must be {rule}.")


@dataclass(frozen=True)
class PrepareConfig:
    """What `distrain prepare` does.

    Attributes:
        train: a CSV, TSV, JSON Lines or Parquet file (the first three also .gz or .zst), or a folder with one
            folder per class.
        out: the folder to write the prepared data to; older prepared data in it is replaced, all else refused.
        test: the same for the test rows; without it `holdout` of the training rows are held out.
        dataset: one of the known data sets, which fixes columns and classes.
        vectorizer: "ngram", "sequence", or "auto" to choose by the rule rows / median words per row < 1500.
        top_k: number of n-grams or words kept.
        label_column: name or number (from 0) of the label column; with a name a CSV must begin with a header.
            Default: "label" where columns have names, else the first.
        text_columns: names or numbers of the text columns, joined by a space. Default: "text" in JSON Lines
            and Parquet, else all but the label.
        max_length: words kept of each row by the sequence vectorizer.
        holdout: share of the training rows held out when there is no `test`.
        seed: chooses the held-out rows.
        memory_mib: bound on what preparing holds in memory, in MiB, above what Python itself needs.
        workers: processes to use, each within `memory_mib`; the result is the same whatever their number. Default: one
            for each core, at most 8, and fewer for less than 16 MiB of text each; under mpirun its processes are used.
    """

    train: Path
    out: Path
    test: Path | None = None
    dataset: str | None = None
    vectorizer: str = "auto"
    top_k: int = 20_000
    label_column: str | None = None
    text_columns: tuple[str, ...] | None = None
    max_length: int = 500
    holdout: float = 0.1
    seed: int = 0
    memory_mib: int = 1024
    workers: int | None = None

    def __post_init__(self) -> None:
        for name in ("train", "out", "test"):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, Path(value))
        require(self.vectorizer in VECTORIZERS, "--vectorizer", self.vectorizer, f"one of {', '.join(VECTORIZERS)}")
        rule = f"one of {', '.join(DATASETS)}, or left out"
        require(self.dataset is None or self.dataset in DATASETS, "--dataset", self.dataset, rule)
        if self.text_columns is not None:
            object.__setattr__(self, "text_columns", tuple(self.text_columns))
            named = len(self.text_columns) > 0 and all(self.text_columns)
            require(named, "--text-columns", self.text_columns, "column names with commas between")
            rule = "one that is not among --text-columns"
            require(self.label_column not in self.text_columns, "--label-column", self.label_column, rule)
        require(self.top_k >= 1, "--top-k", self.top_k, "at least 1")
        require(self.max_length >= 1, "--max-length", self.max_length, "at least 1")
        require(0 < self.holdout < 1, "--holdout", self.holdout, "between 0 and 1")
        require(self.memory_mib >= 256, "--memory-mib", self.memory_mib, "at least 256")
        require(self.workers is None or 1 <= self.workers <= 256, "--workers", self.workers, "from 1 to 256")


@dataclass(frozen=True)
class TrainConfig:
    """What `distrain train` does.

    Attributes:
        data: a prepared data set, or a folder of arrays.
        run: the run directory, made if need be.
        strategy: "single", "mirrored", "horovod", "mpi", or "auto" to choose by processes and devices.
        devices: "cpu:N" for N logical CPU devices, "gpu:0,1" for these GPUs; default: all GPUs, else the CPU.
        model: "package.module:build_model" for a model of your own; default: the one that fits the data.
        batch_size: examples per replica and step, B; excludes `global_batch_size`.
        global_batch_size: examples per step over all replicas, G; default 128, so that the model does not depend on
            the number of replicas.
        accumulation_steps: batches that each replica takes one after the other for one update, K: G = N * B * K. For
            global batches that do not fit the device's memory; the model is that of the same G without it.
        steps_per_execution: steps taken in one call into TensorFlow, so that what a call costs is paid once for all;
            callbacks, checkpoints and requests to stop wait for the end of a call. The model is the same.
        compression: "fp16" to let gradients travel between processes in half precision, at the price of exactness.
        epochs: the most epochs to train.
        patience: epochs without a lower validation loss after which training ends; 0 trains all epochs.
        learning_rate: of Adam.
        seed: of weights, order and dropout.
        resume: "auto" to go on where the run directory stands, "never" to refuse one that is in use, or the
            path of a checkpoint: the run's own, or where a new run is to begin.
        checkpoint_every: steps between checkpoints; 0 saves at the end of each epoch only.
        keep: newest checkpoints kept, besides the best.
        units: width of the n-gram model's hidden layer.
        embedding: width of a word's vector in the sequence model.
        blocks: its blocks of convolutions.
        filters: filters of each convolution.
        dropout: share dropped in the shipped models; default: that of the model (`models/`).
        jit_compile: compile the optimizer's update by XLA where possible.
        prometheus: a file, `*.prom`, in which the chief keeps the run's status for Prometheus' textfile collector.
    """

    data: Path
    run: Path
    strategy: str = "auto"
    devices: str | None = None
    model: str | None = None
    batch_size: int | None = None
    global_batch_size: int | None = None
    accumulation_steps: int = 1
    steps_per_execution: int = 1
    compression: str = "none"
    epochs: int = 100
    patience: int = 2
    learning_rate: float = 1e-3
    seed: int = 0
    resume: str = "auto"
    checkpoint_every: int = 0
    keep: int = 2
    units: int = 64
    embedding: int = 200
    blocks: int = 2
    filters: int = 64
    dropout: float | None = None
    jit_compile: bool = True
    prometheus: Path | None = None

    def __post_init__(self) -> None:
        for name in ("data", "run", "prometheus"):
            value = getattr(self, name)
            object.__setattr__(self, name, None if value is None else Path(value))
        require(self.strategy in STRATEGIES, "--strategy", self.strategy, f"one of {', '.join(STRATEGIES)}")
        if self.devices is not None:
            rule = "cpu:N for N logical CPU devices, or gpu:0,1 for these GPUs"
            require(
                re.fullmatch(r"cpu:[1-9]\d{0,2}|gpu:\d+(,\d+)*", self.devices) is not None,
                "--devices",
                self.devices,
                rule,
            )
        if self.model is not None:
            require(
                re.fullmatch(r"[\w.]+:\w+", self.model) is not None, "--model", self.model, "package.module:function"
            )
        rule = f"one of {', '.join(COMPRESSIONS)}"
        require(self.compression in COMPRESSIONS, "--compression", self.compression, rule)
        both = self.batch_size is not None and self.global_batch_size is not None
        require(not both, "--global-batch-size", self.global_batch_size, "left out when --batch-size is given")
        for name, least in _LEAST.items():
            value = getattr(self, name)
            require(value is None or value >= least, _option(name), value, f"at least {least}")
        require(0 < self.learning_rate < float("inf"), "--learning-rate", self.learning_rate, "above 0 and finite")
        require(self.dropout is None or 0 <= self.dropout < 1, "--dropout", self.dropout, "at least 0 and below 1")
        if self.prometheus is not None:
            rule = "a file whose name ends in .prom, as the collector reads no others"
            require(self.prometheus.suffix == ".prom", "--prometheus", str(self.prometheus), rule)
        require(self.seed < 2**63, "--seed", self.seed, "below 2**63")

    @property
    def wanted_global_batch_size(self) -> int | None:
        """Examples per step over all replicas, G, as asked for or by default; None when B was given instead."""
        if self.batch_size is not None:
            return None
        return self.global_batch_size or DEFAULT_GLOBAL_BATCH_SIZE

    def replica_batch_size(self, num_replicas: int) -> int:
        """Examples per replica and batch, B: as given, or the global batch divided by N * K and rounded.

        Raises:
            ConfigurationError: there are more batches in a step than examples in the global batch.
        """
        if self.batch_size is not None:
            return self.batch_size
        wanted = self.wanted_global_batch_size
        assert wanted is not None
        num_batches = num_replicas * self.accumulation_steps
        rule = f"at least the number of replicas, {num_replicas}"
        if self.accumulation_steps > 1:
            rule = f"at least replicas x accumulation steps, {num_replicas} x {self.accumulation_steps}"
        require(wanted >= num_batches, "--global-batch-size", wanted, rule)
        return max(1, round(wanted / num_batches))


_LEAST = {
    "batch_size": 1,
    "global_batch_size": 1,
    "accumulation_steps": 1,
    "steps_per_execution": 1,
    "epochs": 1,
    "patience": 0,
    "seed": 0,
    "checkpoint_every": 0,
    "keep": 1,
    "units": 1,
    "embedding": 1,
    "blocks": 1,
    "filters": 1,
}


def _option(name: str) -> str:
    return "--" + name.replace("_", "-")


def train_config(settings: Mapping[str, Any], toml: Path | None = None) -> TrainConfig:
    """The settings of a TOML file, with `settings` over it where they are not None.

    Raises:
        ConfigurationError: the file is missing or no TOML, a setting is unknown, of the wrong type or out of range.
    """
    merged: dict[str, Any] = {}
    if toml is not None:
        try:
            merged = tomllib.loads(toml.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigurationError(f"{toml} cannot be read as TOML: {error}") from None
    merged |= {name: value for name, value in settings.items() if value is not None}
    types = {field.name: str(field.type) for field in fields(TrainConfig)}
    for name, value in merged.items():
        if name not in types:
            raise ConfigurationError(f"{toml}: {name!r} is not a setting; the settings are {', '.join(types)}.")
        allowed = {"Path": (str, Path), "str": (str,), "int": (int,), "float": (int, float), "bool": (bool,)}
        wanted = types[name].split(" |")[0]
        if not isinstance(value, allowed[wanted]) or (isinstance(value, bool) and wanted != "bool"):
            raise ConfigurationError(f"{toml}: {name} is {value!r}, but it must be of type {wanted}.")
    for name in ("data", "run"):
        require(name in merged, _option(name), None, "given, on the command line or in the configuration file")
    return TrainConfig(**merged)
