"""The frame around all ranks of a job: connected, watched by the failure detector, and ended together.

Decides: which rank tells of an error, and that no rank leaves before the chief. Never: trains.

    result = on_ranks(config, lambda distribution, stop, at_step: ...)
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, TypeVar

from distrain.cluster.signals import StopRequest, stop_requests
from distrain.cluster.world import find_world
from distrain.config import TrainConfig
from distrain.errors import DistrainError
from distrain.reporting.logs import log_of_run

if TYPE_CHECKING:
    from distrain.distribution.base import Distribution

Result = TypeVar("Result")


def on_ranks(
    config: TrainConfig,
    work: Callable[[Distribution, StopRequest, Callable[[int], None]], Result],
    *,
    stop: StopRequest | None = None,
) -> Result:
    """Connect this process with all other processes of the job, call `work`, and return its result.

    Args:
        config: the settings, which choose the distribution.
        work: receives the distribution, requests to stop, and a function to call with each global step.
        stop: whether this process received a request to stop; default: listen to signals while `work` lasts.

    Raises:
        DistrainError: as `work`; or the ranks cannot be joined.
    """
    from distrain.cluster.failure_detector import detect_failures
    from distrain.distribution.choose import choose

    failure: DistrainError | None = None
    with stop_requests() if stop is None else nullcontext(stop) as stop, log_of_run(find_world(os.environ).rank):
        distribution = choose(config, os.environ)
        with detect_failures(distribution.group) as detector:
            try:
                result = work(distribution, stop, detector.at_step)
            except DistrainError as error:
                # Without a reporting rank this rank alone raised the error; the failure detector ends the others.
                if error.reporting_rank is None:
                    raise
                failure = error
            distribution.group.barrier()  # no rank leaves before the chief has written everything
    if failure is not None:
        raise failure
    return result
