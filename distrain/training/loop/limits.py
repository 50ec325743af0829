"""Ends a run at `--max-steps`, or at `--max-time` by the chief's clock.

Decides: at which step a limit is reached, on all ranks alike. Never: evaluates or saves.

    limits = Limits(config, group, progress.global_step, state.get("run_seconds", 0.0))
    TrainingLoop(..., after_step=[limits.after_step], after_epoch=[limits.after_epoch])

Ranks agree on the time by a collective of its own, at most `CHECK_SECONDS` apart: most steps need none.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from distrain.training.loop.events import Decision, StepEvent

if TYPE_CHECKING:
    from distrain.cluster.process_group import ProcessGroup
    from distrain.config import TrainConfig

CHECK_SECONDS = 1.0  # a limit in minutes may be exceeded by this much, while fast steps share one check


class Limits:
    """The limits of a run.

    Args:
        config: the settings.
        group: the processes.
        global_step: steps trained before this process.
        seconds: time of training and validation before this process.
        clock: returns seconds.

    Attributes:
        reached: the option whose limit is reached; empty before.
    """

    def __init__(
        self,
        config: TrainConfig,
        group: ProcessGroup,
        global_step: int,
        seconds: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.reached = ""
        self._max_steps, self._max_time = config.max_steps, config.max_time
        self._group = group
        self._clock = clock
        self._began, self._first_step = clock() - seconds, global_step
        self._seconds_before = seconds
        self._step = self._next_check = global_step

    def seconds(self) -> float:
        """Return the time of training and validation, those before a resume included."""
        return self._clock() - self._began

    def before_epoch(self, epoch: int) -> Decision:
        """Finish if a resumed run is beyond its steps already."""
        return self._decide(is_over=False)

    def after_step(self, event: StepEvent) -> Decision:
        """Finish after the last step, or at the first check after the time is over."""
        self._step = event.progress.global_step
        is_due = self._max_time is not None and self._step >= self._next_check
        return self._decide(is_over=is_due and self._is_time_over())

    def after_epoch(self, event: StepEvent) -> Decision:
        """Finish at the end of an epoch whose validation took the rest of the time."""
        return self._decide(is_over=self._max_time is not None and not self.reached and self._is_time_over())

    def _decide(self, *, is_over: bool) -> Decision:
        if self._max_steps is not None and self._step >= self._max_steps:
            self.reached = "--max-steps"
        elif is_over:
            self.reached = "--max-time"
        return Decision.FINISH if self.reached else Decision.GO_ON

    def _is_time_over(self) -> bool:
        """Take the chief's word on all ranks, and its step of the next check."""
        assert self._max_time is not None
        seconds = self.seconds()
        left = self._max_time - seconds
        seconds_per_step = (seconds - self._seconds_before) / max(1, self._step - self._first_step)
        steps = int(min(CHECK_SECONDS, left / 2) / max(seconds_per_step, 1e-6))
        words = self._group.broadcast(json.dumps([left <= 0, self._step + max(1, steps)]).encode())
        is_over, self._next_check = json.loads(words)
        return bool(is_over)
