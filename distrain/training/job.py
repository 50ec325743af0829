"""What is trained on what.

Decides: the fields of a job. Never: where they come from, or how training goes.

    job = Job(build=build, train=examples, validation=None, data_digest=examples.digest)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distrain.data.examples import Examples


@dataclass(frozen=True)
class TrainingJob:
    """What is trained on what.

    Attributes:
        build: makes model, optimizer, loss and metrics (`CompiledModel`); called in the distribution's scope.
        train: the training examples.
        validation: the examples that judge each epoch, or None.
        data_digest: names the data; a run goes on only with the same.
        facts: what `config.json` says of the data besides.
        vectorizer: the folder that makes rows of new text; copied into the run directory.
        callbacks: Keras callbacks.
    """

    build: Callable[[], Any]
    train: Examples
    validation: Examples | None
    data_digest: str
    facts: dict[str, Any] = field(default_factory=dict)
    vectorizer: Path | None = None
    callbacks: Sequence[Any] = ()
