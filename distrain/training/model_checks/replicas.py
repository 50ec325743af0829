"""A model made ready for replicas, and what the user is told of layers that divide a batch otherwise than one device.

Decides: the order of these checks, and that the chief warns. Never: what a check finds.

    task = fitted_to_replicas(task, probe, distribution, accumulation_steps=2)      # on all ranks
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from distrain.cluster.error_relay import run_on_all_ranks
from distrain.data.examples import Examples
from distrain.training.model_checks.batch_states import batch_states, dependence_on_replicas
from distrain.training.model_checks.batch_statistics import share_batch_statistics
from distrain.training.steps.task import TrainableModel

if TYPE_CHECKING:
    from distrain.distribution.base import Distribution

_LOG = logging.getLogger(__name__)


def fitted_to_replicas(
    task: TrainableModel, probe: Examples, distribution: Distribution, *, accumulation_steps: int
) -> TrainableModel:
    """Return the model with metrics beside the states of its layers, and with statistics of whole batches.

    Args:
        task: the model.
        probe: a few examples; see `shares.probe_of`.
        distribution: the replicas that train the model.
        accumulation_steps: microbatches of each replica in a step.

    Raises:
        ConfigurationError: replicas cannot train a layer exactly.
    """
    group, in_turn = distribution.group, accumulation_steps * distribution.replicas_per_device
    states = run_on_all_ranks(group, partial(batch_states, task, probe))
    task = replace(task, metrics=task.metrics.beside(states))
    depends = partial(dependence_on_replicas, states, task, probe, num_replicas=distribution.num_replicas)
    warnings = [run_on_all_ranks(group, partial(depends, accumulation_steps=in_turn))]
    share = partial(share_batch_statistics, task.model, distribution, in_turn)  # the layers then need all replicas
    warnings.append(run_on_all_ranks(group, share))
    if group.is_chief:
        for warning in filter(None, warnings):
            _LOG.warning(warning)
    return task
