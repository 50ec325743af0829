"""Sizes of the shipped models, before one is built.

Decides: how many weights a shipped model has, and whether they fit into this machine. Never: builds a model, imports
TensorFlow.

    >>> count_weights("ngram", num_features=20_000, num_classes=4, config=TrainConfig(data="data", run="run"))
    1280324
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from distrain.config import TrainConfig
from distrain.errors import ConfigurationError

COPIES = 4  # of the weights in float32: the weights, their gradients, and two moments of Adam
_FLOAT_BYTES = 4
_LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container


def num_outputs(task: str, num_classes: int) -> int:
    """Return the width of a shipped model's last layer: two classes take one output, and so does a number."""
    if task == "regression":
        return 1
    return 1 if task == "classification" and num_classes == 2 else num_classes


def count_weights(
    kind: str, *, num_features: int, num_classes: int, config: TrainConfig, task: str = "classification"
) -> int:
    """Return the number of trainable weights of the shipped model for a kind of data, from the shapes of its layers."""
    outputs = num_outputs(task, num_classes)
    if kind == "ngram":
        return (num_features + 1) * config.units + (config.units + 1) * outputs
    if kind != "sequence":
        raise ValueError(f"No shipped model reads rows of the kind {kind!r}.")
    weights = num_features * config.embedding
    width = config.embedding
    for block in range(config.blocks):
        filters = config.filters if block < config.blocks - 1 else 2 * config.filters
        for inputs in (width, filters):  # depthwise kernel of 3, pointwise kernel, bias
            weights += 3 * inputs + inputs * filters + filters
        width = filters
    return weights + (width + 1) * outputs


def require_memory(
    kind: str, *, num_features: int, num_classes: int, config: TrainConfig, task: str = "classification"
) -> None:
    """Refuse a shipped model whose training cannot fit into the memory of this machine.

    Raises:
        ConfigurationError: the weights, their gradients and their moments take more than the memory.
    """
    shape = {"num_features": num_features, "num_classes": num_classes}
    needed = COPIES * _FLOAT_BYTES * count_weights(kind, **shape, config=config, task=task)
    memory = _memory_bytes()
    if needed > memory:
        sizes = "--units" if kind == "ngram" else "--embedding, --filters or --blocks"
        raise ConfigurationError(
            f"The model would take {needed / 2**30:,.1f} GiB to train: {COPIES} numbers of 4 bytes for each weight. "
            f"This machine has {memory / 2**30:,.1f} GiB. Choose smaller {sizes}, or prepare with fewer --top-k."
        )


def _memory_bytes() -> int:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):  # the file is missing, or says "max"
        memory = min(memory, int(_LIMIT.read_text()))
    return memory
