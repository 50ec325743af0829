"""The job that all ranks train: equal settings, data and software on each of them.

Decides: what the ranks must agree on before they train. Never: touches the run directory, or builds a model.

    job = agree_on_job(distribution, open_job, config)
"""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Callable
from importlib.metadata import version
from typing import TYPE_CHECKING

from distrain import __version__
from distrain.cluster.agreement import check_alike, code_digest
from distrain.cluster.error_relay import run_on_all_ranks
from distrain.config import TrainConfig, settings_of
from distrain.files import folder_digest
from distrain.training.jobs.job import TrainingJob
from distrain.training.run_length import warn_of_batches, warn_of_warmup

if TYPE_CHECKING:
    from distrain.distribution.base import Distribution

_LOG = logging.getLogger(__name__)


def agree_on_job(distribution: Distribution, open_job: Callable[[], TrainingJob], config: TrainConfig) -> TrainingJob:
    """Open the job on all ranks, and check that settings, data and software are equal on all of them.

    Raises:
        RankError: the ranks differ; the message names the first difference.
        DistrainError: opening failed on some rank; all ranks raise that rank's error.
    """
    job = run_on_all_ranks(distribution.group, open_job)
    settings = {
        setting.name: str(getattr(config, setting.name))
        for setting in settings_of(TrainConfig)
        if not setting.may_differ  # each host has its own paths and devices
    }
    described = {
        "distrain's version": __version__,
        "distrain's code": code_digest(),
        "the data": job.data_digest,
        "the data's description": json.dumps(job.metadata, sort_keys=True),
        "the vocabulary": folder_digest(job.vectorizer) if job.vectorizer else "",
        "the strategy": f"{distribution.name}, {distribution.version}",
        "Python's version": platform.python_version(),
        **{f"{package}'s version": version(package) for package in ("keras", "numpy", "scipy")},
        "TensorFlow's version": _tensorflow_version(),
        "TensorFlow's build": _tensorflow_build(),
    }
    check_alike(distribution.group, {**settings, **described})
    if distribution.group.is_chief:
        for warn in (warn_of_batches, warn_of_warmup):
            warn(config, job.train.num_examples, distribution.num_replicas)
        if config.compression != "none" and distribution.group.size == 1:
            _LOG.warning(f"--compression {config.compression} has no effect: nothing travels between processes.")
    return job


def _tensorflow_version() -> str:
    import tensorflow as tf

    return str(tf.__version__)


def _tensorflow_build() -> str:
    """Return what the installed TensorFlow computes on, such as "2.21.0 for CUDA 12.5.1"."""
    from distrain.distribution.usable_gpus import tensorflow_build

    return tensorflow_build()
