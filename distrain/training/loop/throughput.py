"""How fast a process trains, and how long its start took.

Decides: which steps count. Never: reports rates while training lasts; the reporter does.

    throughput = Throughput()
    run_epochs(TrainingLoop(..., after_step=[throughput]), progress)
    throughput.samples_per_second()
"""

from __future__ import annotations

from collections.abc import Callable

from distrain.reporting.boot_clock import boot_clock
from distrain.reporting.reporter import Reporter
from distrain.training.loop.events import StepEvent


class Throughput:
    """Measures samples per second over the steps of this process, without the first call, which compiles."""

    def __init__(self) -> None:
        self._num_calls = 0
        self._num_examples = 0
        self._seconds = 0.0

    def __call__(self, event: StepEvent) -> None:
        """Count the examples and seconds of the new steps."""
        self._num_calls += 1
        if self._num_calls > 1:
            self._num_examples += event.num_examples
            self._seconds += event.seconds

    def samples_per_second(self) -> float | None:
        """Return examples over all replicas per second of training, or None before the second call."""
        return self._num_examples / self._seconds if self._seconds > 0 else None


class StartupTime:
    """Measures and reports the time from the start of the command to the end of the first step.

    Args:
        report: receives the time as a note.
        started_at: when the command started, on the clock.
        clock: measures intervals in seconds.
    """

    def __init__(self, report: Reporter, *, started_at: float, clock: Callable[[], float] = boot_clock) -> None:
        self._report = report
        self._started_at = started_at
        self._clock = clock
        self.seconds: float | None = None

    def __call__(self, event: StepEvent) -> None:
        """Report the first step; ignore all later steps."""
        if self.seconds is None:
            self.seconds = self._clock() - self._started_at
            self._report.note(f"first step after {self.seconds:.1f} s")
