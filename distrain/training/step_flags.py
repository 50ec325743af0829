"""What a process tells all others with each step: that it was asked to stop, or that it cannot go on.

Decides: what is said and heard, and what follows from it at the same step on every process. Never: adds a collective
to a step; the notices travel with its sums.

    notices = Notices(distribution, stop)
    train_steps = notices.around_steps(compiled_steps, shares_per_process=1)
    batches = notices.guarded(batches, [idle_batch(sample, 0)])    # an error in it ends the run on all processes alike
    run_epochs(..., train_steps=train_steps, after_step=[..., notices.action])
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from distrain.batch import Batch, step_flags
from distrain.cluster import agreement
from distrain.runs.progress import Sums
from distrain.training.events import Decision, StepEvent


class StopRequest(Protocol):
    """Whether somebody asked this process to stop."""

    signal_name: str | None


class StepFlags:
    """What this process tells with each step, and what it has heard.

    Args:
        distribution: the processes.
        stop: whether this one was asked to stop.
        global_step: steps trained so far.
    """

    def __init__(self, distribution: agreement.Processes, stop: StopRequest, *, global_step: int = 0) -> None:
        self._distribution = distribution
        self._stop = stop
        self._failure: Exception | None = None
        self._global_step = global_step
        self._stops = False
        self._diverged = ""

    def around(
        self, step: Callable[[list[Batch]], Any], *, microbatches_per_process: int
    ) -> Callable[[list[Batch]], Sums]:
        """The evaluation step, telling and hearing; gives its sums.

        Args:
            step: of `step.py`.
            microbatches_per_process: batches that each process feeds, by which the number of one tells the rank.

        Raises (the function does):
            DistrainError: a process failed; on every process alike.
        """
        return lambda batches: self._heard(step(self._told(batches)), microbatches_per_process, place=0)

    def around_steps(
        self, steps: Callable[[list[list[Batch]]], list[Any]], *, microbatches_per_process: int
    ) -> Callable[[list[list[Batch]]], list[Sums]]:
        """The same for the training steps, of which several may be taken in a call."""

        def run(group: list[list[Batch]]) -> list[Sums]:
            outcomes = steps([self._told(batches) for batches in group])
            return [
                self._heard(outcome, microbatches_per_process, place=place) for place, outcome in enumerate(outcomes)
            ]

        return run

    @contextmanager
    def with_failure_batches(
        self, batches: AbstractContextManager[Iterator[list[Batch]]], idle: list[Batch]
    ) -> Iterator[Iterator[list[Batch]]]:
        """The same batches; when making one fails, `idle` ones for the steps in which all others are told."""
        with batches as steps:
            yield steps if self._distribution.num_processes == 1 else self._with_failure_batches(steps, idle)

    def stop_is_agreed(self) -> bool:
        """Whether all processes know that one was asked to stop."""
        return self._stops

    def where_diverged(self) -> str:
        """Where the loss was not finite, as in " on rank 1"; empty where there is one process."""
        return self._diverged

    def action(self, event: StepEvent) -> Decision:
        """Stop here if that is agreed, unless training is complete anyway."""
        self._global_step = event.progress.global_step
        return Decision.STOP if self._stops and event.decision is Decision.GO_ON else Decision.GO_ON

    def stopped_by(self) -> str:
        """Who asked to stop, as in "SIGTERM to rank 1". All processes must call this."""
        names = [name.decode() for name in self._distribution.all_gather_bytes((self._stop.signal_name or "").encode())]
        if len(names) == 1:
            return names[0]
        return ", ".join(f"{name} to rank {rank}" for rank, name in enumerate(names) if name)

    def _told(self, batches: list[Batch]) -> list[Batch]:
        return _telling(batches, stop=True) if self._stop.signal_name is not None else batches

    def _heard(self, outcome: Any, microbatches_per_process: int, *, place: int) -> Sums:
        """Note what the others told with the step at this place of a call."""
        self._stops |= outcome.num_stops > 0
        if outcome.num_failures:
            agreement.run_on_all_ranks(self._distribution, self._fail, where=f"step {self._global_step + place + 1}: ")
        if outcome.num_diverged and self._distribution.num_processes > 1 and not self._diverged:
            rank = outcome.diverged // microbatches_per_process
            self._diverged = f" on rank {rank}" if outcome.num_diverged == 1 else " on several ranks"
        sums: Sums = outcome.sums
        return sums

    def _with_failure_batches(self, steps: Iterator[list[Batch]], idle: list[Batch]) -> Iterator[list[Batch]]:
        try:
            yield from steps
        except Exception as error:
            self._failure = error
            while True:  # the others may have begun several steps
                yield _telling(idle, failed=True)

    def _fail(self) -> None:
        if self._failure is not None:
            raise self._failure


def _telling(batches: list[Batch], *, stop: bool = False, failed: bool = False) -> list[Batch]:
    """The same batches with these notices, besides what they tell already."""
    told = []
    for batch in batches:
        was_stop, was_failed, replica = batch.step_flags
        own = step_flags(int(replica) - 1, stop=stop or bool(was_stop), failed=failed or bool(was_failed))
        told.append(batch._replace(step_flags=own))
    return told
