"""Settings of `distrain train`; a TOML file may hold them, and the command line goes over the file.

Decides: how a run trains. Never: reads data, looks at devices, imports TensorFlow.

    >>> TrainConfig(data="data", run="runs/1").replica_batch_size(4)
    32
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distrain.config.length import LengthSettings
from distrain.config.optimizer import OptimizerSettings
from distrain.config.run import RunSettings
from distrain.config.setting import require, setting, settings_of
from distrain.errors import ConfigurationError

DROPOUT_RATES = {"ngram": 0.4, "sequence": 0.2}  # by kind of data

MAX_TOML_BYTES = 2**20  # all settings take less than 4,000 bytes
MAX_WIDTH = 2**20  # of a layer; the memory of the machine bounds the model besides
MAX_BLOCKS = 16  # each block but the last halves a row, so more blocks see one word

PRECISIONS = ("float16", "bfloat16")


@dataclass(frozen=True)
class TrainConfig(OptimizerSettings, LengthSettings, RunSettings):
    """Settings of `distrain train`; `settings_of(TrainConfig)` lists them with their help texts, the bases' first."""

    class_weight: str | None = setting(
        "weights of training examples by class: balanced, or LABEL=WEIGHT,... by a class's name or number",
        default=None,
        pattern=r"balanced|[^=,]+=[^=,]+(,[^=,]+=[^=,]+)*",
        rule="balanced, or LABEL=WEIGHT,... such as spam=20,other=1",
        metavar="balanced|LABEL=WEIGHT,...",
    )
    mixed_precision: str | None = setting(
        "compute the shipped models in half precision with float32 weights; float16 needs a GPU",
        default=None,
        default_text="float32 throughout",
        choices=PRECISIONS,
    )
    units: int = setting("width of the hidden layer of the n-gram model", default=64, at_least=1, at_most=MAX_WIDTH)
    embedding: int = setting(
        "width of a word vector of the sequence model", default=200, at_least=1, at_most=MAX_WIDTH, metavar="UNITS"
    )
    blocks: int = setting(
        "convolution blocks of the sequence model", default=2, at_least=1, at_most=MAX_BLOCKS, metavar="N"
    )
    filters: int = setting(
        "filters of each convolution of the sequence model", default=64, at_least=1, at_most=MAX_WIDTH, metavar="N"
    )
    dropout: float | None = setting(
        "fraction of inputs that the layers of the shipped models drop",
        default=None,
        default_text=f"{DROPOUT_RATES['ngram']} for n-grams, {DROPOUT_RATES['sequence']} for sequences",
        at_least=0,
        below=1,
        metavar="FRACTION",
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
    metrics_port: str | None = setting(
        "serve the status of the run at this port, path /metrics, for a scrape by Prometheus; without a host only to "
        "this machine",
        default=None,
        pattern=r"([A-Za-z0-9_.-]+:)?[1-9][0-9]{0,4}",
        rule="PORT or HOST:PORT, such as 9400 or 0.0.0.0:9400",
        metavar="[HOST:]PORT",
        may_differ=True,
        may_change=True,
    )


def train_config(settings: Mapping[str, Any], toml: Path | None = None) -> TrainConfig:
    """Make a configuration from a TOML file, with all of `settings` that are not None over it.

    Raises:
        ConfigurationError: the file cannot be read, or a setting is unknown, missing or wrong.
    """
    merged: dict[str, Any] = {}
    if toml is not None:
        try:
            with toml.open("rb") as file:
                content = file.read(MAX_TOML_BYTES + 1)
            if len(content) > MAX_TOML_BYTES:
                raise ValueError(f"it has over {MAX_TOML_BYTES:,} bytes")
            merged = tomllib.loads(content.decode())
        except RecursionError:
            raise ConfigurationError(f"{toml} cannot be read as TOML: its brackets are nested too deeply.") from None
        except (OSError, ValueError) as error:  # ValueError also for a number of thousands of digits
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
