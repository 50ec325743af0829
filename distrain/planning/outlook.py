"""What more replicas would give: predictions on 1, 2, 4 ... replicas of one run.

Decides: which numbers of replicas are compared, and which link carries their sum. Never: prints anything.

    steps = outlook(plan, config, asked, MeasuredStep(0.0031, 128, 0.0025))
    steps[-1].samples_per_second, verdict(steps)
"""

from __future__ import annotations

import contextlib

from distrain.config import PlanConfig, TrainConfig
from distrain.errors import ConfigurationError
from distrain.planning.batch_plan import planned_batch_size
from distrain.planning.links import LINKS, Link, slowest
from distrain.planning.run_plan import RunPlan
from distrain.planning.scale_out import MeasuredStep, ScaledStep, Size, step_on


def outlook(plan: RunPlan, config: TrainConfig, asked: PlanConfig, measured: MeasuredStep) -> list[ScaledStep]:
    """Predict a step on 1, 2, 4 ... and on all replicas; numbers that do not divide the batch are left out.

    Args:
        plan: the plan of all replicas.
        config: settings of the run.
        asked: the number of replicas and their links.
        measured: a step of one replica.
    """
    numbers = [2**power for power in range(asked.replicas.bit_length()) if 2**power < asked.replicas]
    steps = []
    for number in (*numbers, asked.replicas):
        with contextlib.suppress(ConfigurationError):
            # The first layer is nearly all of a shipped model, and its gradient comes last, so nothing hides its sum.
            # Between GPUs it travels whole.
            size = Size(number, planned_batch_size(config, number), plan.all_reduce_bytes, plan.all_reduce_bytes)
            steps.append(step_on(size, measured, link_between(asked, number)))
    return steps


def link_between(asked: PlanConfig, num_replicas: int) -> Link:
    """Return what limits the sum over some of the replicas, which fill one host after the other."""
    if asked.bandwidth_gbs is not None:
        return Link(asked.bandwidth_gbs * 1e9, (asked.latency_ms or 0.0) / 1000)
    assert asked.link is not None
    links = [LINKS[asked.link]]
    if asked.network is not None and num_replicas > asked.replicas // asked.hosts:
        links.append(LINKS[asked.network])
    return slowest(links)
