"""Settings of `distrain train`; a TOML file may hold them, and the command line goes over the file.

Decides: how a run trains. Never: reads data, looks at devices, imports TensorFlow.

    >>> TrainConfig(data="data", run="runs/1").replica_batch_size(4)
    32
"""

# ruff: noqa: RUF009 - setting() makes a dataclass field
from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distrain.config.setting import check_settings, require, setting, settings_of
from distrain.errors import ConfigurationError

STRATEGIES = ("auto", "single", "mirrored", "horovod", "mpi")
COMPRESSIONS = ("none", "fp16")
DROPOUT_RATES = {"ngram": 0.4, "sequence": 0.2}  # by kind of data
DEFAULT_GLOBAL_BATCH_SIZE = 128  # Google's text classification guide trains with it


@dataclass(frozen=True)
class TrainConfig:
    """Settings of `distrain train`; `settings_of(TrainConfig)` lists them with their help texts."""

    data: Path = setting(
        "prepared data; train also takes a folder of arrays", metavar="DIR", may_differ=True, may_change=True
    )
    run: Path = setting(
        "run directory, made if it is missing; the chief alone uses it",
        metavar="DIR",
        may_differ=True,
        may_change=True,
    )
    strategy: str = setting(
        "how replicas train together; auto chooses by the number of processes and GPUs",
        default="auto",
        choices=STRATEGIES,
        may_change=True,
    )
    devices: str | None = setting(
        "devices of this process: cpu:N for N logical CPU devices, or gpu:0,1 for the GPUs with these numbers",
        default=None,
        default_text="all GPUs, else the CPU",
        pattern=r"cpu:[1-9]\d{0,2}|gpu:\d+(,\d+)*",
        rule="cpu:N for N logical CPU devices, or gpu:0,1 for these GPUs",
        metavar="DEVICES",
        may_differ=True,
        may_change=True,
    )
    model: str | None = setting(
        "function that makes a model of your own, as package.module:function",
        default=None,
        default_text="the shipped model for the kind of data",
        pattern=r"[\w.]+:\w+",
        rule="package.module:function",
        metavar="MODEL",
    )
    batch_size: int | None = setting(
        "examples per replica and batch, in place of --global-batch-size", default=None, at_least=1, metavar="B"
    )
    global_batch_size: int | None = setting(
        "examples per step over all replicas; the trained model depends on it, but not on the number of replicas",
        default=None,
        default_text=str(DEFAULT_GLOBAL_BATCH_SIZE),
        at_least=1,
        metavar="G",
    )
    accumulation_steps: int = setting(
        "batches that each replica takes for one update, if a global batch is too large for the memory of the devices",
        default=1,
        at_least=1,
        metavar="K",
        may_change=True,
    )
    steps_per_execution: int = setting(
        "steps in one call into TensorFlow; callbacks, checkpoints and stop requests wait for the end of the call",
        default=1,
        at_least=1,
        metavar="K",
        may_change=True,
    )
    compression: str = setting(
        "number format of gradients between processes; fp16 halves the traffic and costs exactness",
        default="none",
        choices=COMPRESSIONS,
    )
    epochs: int = setting("largest number of epochs", default=100, at_least=1, may_change=True)
    patience: int = setting(
        "epochs without a lower validation loss before training stops; 0 trains all epochs",
        default=2,
        at_least=0,
        metavar="EPOCHS",
        may_change=True,
    )
    learning_rate: float = setting(
        "learning rate of the Adam optimizer", default=1e-3, above=0, below=float("inf"), metavar="RATE"
    )
    seed: int = setting(
        "random seed of the weights, the order of examples, and dropout", default=0, at_least=0, below=2**63
    )
    resume: str = setting(
        "where to continue: auto takes the newest checkpoint in --run, a path names any checkpoint, "
        "never refuses a run directory in use",
        default="auto",
        metavar="auto|never|PATH",
        may_change=True,
    )
    checkpoint_every: int = setting(
        "steps between checkpoints; 0 saves at the end of each epoch only",
        default=0,
        at_least=0,
        metavar="STEPS",
        may_change=True,
    )
    keep: int = setting(
        "newest checkpoints to keep, besides the best", default=2, at_least=1, metavar="N", may_change=True
    )
    units: int = setting("width of the hidden layer of the n-gram model", default=64, at_least=1)
    embedding: int = setting("width of a word vector of the sequence model", default=200, at_least=1, metavar="UNITS")
    blocks: int = setting("convolution blocks of the sequence model", default=2, at_least=1, metavar="N")
    filters: int = setting("filters of each convolution of the sequence model", default=64, at_least=1, metavar="N")
    dropout: float | None = setting(
        "fraction of inputs that the layers of the shipped models drop",
        default=None,
        default_text=f"{DROPOUT_RATES['ngram']} for n-grams, {DROPOUT_RATES['sequence']} for sequences",
        at_least=0,
        below=1,
        metavar="FRACTION",
    )
    jit_compile: bool = setting(
        "do not compile the update of the weights by XLA", default=True, option="--no-jit", may_change=True
    )
    prometheus: Path | None = setting(
        "also write the status of the run to this file, for the textfile collector of Prometheus",
        default=None,
        pattern=r"(.*/)?[^/]+\.prom",
        rule="a file whose name ends in .prom, because the collector reads no other files",
        metavar="FILE.prom",
        may_differ=True,
        may_change=True,
    )

    def __post_init__(self) -> None:
        check_settings(self)
        both = self.batch_size is not None and self.global_batch_size is not None
        require(not both, "--global-batch-size", self.global_batch_size, "left out when --batch-size is given")

    @property
    def wanted_global_batch_size(self) -> int | None:
        """Examples per step over all replicas, G, as given or by default; None if `batch_size` is given."""
        if self.batch_size is not None:
            return None
        return self.global_batch_size or DEFAULT_GLOBAL_BATCH_SIZE

    def replica_batch_size(self, num_replicas: int) -> int:
        """Examples per replica and batch, B: as given, or G divided by replicas and accumulation steps, and rounded.

        Raises:
            ConfigurationError: a step has more batches than the global batch has examples.
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


def train_config(settings: Mapping[str, Any], toml: Path | None = None) -> TrainConfig:
    """Make a configuration from a TOML file, with all of `settings` that are not None over it.

    Raises:
        ConfigurationError: the file cannot be read, or a setting is unknown, missing or wrong.
    """
    merged: dict[str, Any] = {}
    if toml is not None:
        try:
            merged = tomllib.loads(toml.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigurationError(f"{toml} cannot be read as TOML: {error}") from None
    known = {one.name: one for one in settings_of(TrainConfig)}
    for name in merged:
        if name not in known:
            raise ConfigurationError(f"{toml}: {name!r} is not a setting; the settings are {', '.join(known)}.")
    merged |= {name: value for name, value in settings.items() if value is not None}
    for one in known.values():
        if one.is_required:
            given = one.name in merged
            require(given, one.option, None, "given, on the command line or in the configuration file")
    try:
        return TrainConfig(**merged)
    except ConfigurationError as error:
        if toml is not None:
            error.add_note(f"The settings come from {toml} and the command line.")
        raise
