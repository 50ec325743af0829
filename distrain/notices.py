"""What a process tells all others with each step: that it was asked to stop, or that it cannot go on.

Decides: what is said and heard, and what follows from it at the same step on every process. Never: adds a collective
to a step; the notices travel with its sums.

    notices = Notices(distribution, stop)
    train_step = notices.around(compiled_step, shares_per_process=1)
    batches = notices.guarded(batches, [idle_batch(sample, 0)])    # an error in it ends the run on all processes alike
    run_epochs(..., train_step=train_step, after_step=[..., notices.action])
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

from distrain import agreement
from distrain.batch import Batch, notices
from distrain.progress import Decision, Moment, Sums


class StopRequest(Protocol):
    """Whether somebody asked this process to stop."""

    signal_name: str | None


class Notices:
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
        self._where = f"step {global_step + 1}: "
        self._stops = False
        self._diverged = ""

    def around(self, step: Callable[[list[Batch]], Any], *, shares_per_process: int) -> Callable[[list[Batch]], Sums]:
        """The step, telling and hearing; gives its sums.

        Args:
            step: of `step.py`.
            shares_per_process: batches that each process feeds, by which the number of one tells the rank.

        Raises (the function does):
            DistrainError: a process failed; on every process alike.
        """

        def run(batches: list[Batch]) -> Sums:
            outcome = step(self._told(batches))
            self._stops |= outcome.num_stops > 0
            if outcome.num_failures:
                agreement.together(self._distribution, self._fail, where=self._where)
            if outcome.num_diverged and self._distribution.num_processes > 1:
                rank = outcome.diverged // shares_per_process
                self._diverged = f" on rank {rank}" if outcome.num_diverged == 1 else " on several ranks"
            return outcome.sums

        return run

    @contextmanager
    def guarded(
        self, batches: AbstractContextManager[Iterator[list[Batch]]], idle: list[Batch]
    ) -> Iterator[Iterator[list[Batch]]]:
        """The same batches; when making one fails, `idle` ones for the step in which all others are told."""
        with batches as steps:
            yield steps if self._distribution.num_processes == 1 else self._guarded(steps, idle)

    def stop_is_agreed(self) -> bool:
        """Whether all processes know that one was asked to stop."""
        return self._stops

    def where_diverged(self) -> str:
        """Where the loss was not finite, as in " on rank 1"; empty where there is one process."""
        return self._diverged

    def action(self, moment: Moment) -> Decision:
        """Stop here if that is agreed, unless training is complete anyway."""
        self._where = f"step {moment.progress.global_step + 1}: "
        return Decision.STOP if self._stops and moment.decision is Decision.GO_ON else Decision.GO_ON

    def stopped_by(self) -> str:
        """Who asked to stop, as in "SIGTERM to rank 1". All processes must call this."""
        names = [name.decode() for name in self._distribution.exchange((self._stop.signal_name or "").encode())]
        if len(names) == 1:
            return names[0]
        return ", ".join(f"{name} to rank {rank}" for rank, name in enumerate(names) if name)

    def _told(self, batches: list[Batch]) -> list[Batch]:
        stop, failed = self._stop.signal_name is not None, self._failure is not None
        if not (stop or failed):
            return batches
        return [
            batch._replace(notices=notices(int(batch.notices[2]) - 1, stop=stop, failed=failed)) for batch in batches
        ]

    def _guarded(self, steps: Iterator[list[Batch]], idle: list[Batch]) -> Iterator[list[Batch]]:
        try:
            yield from steps
        except Exception as error:
            self._failure = error
            yield idle

    def _fail(self) -> None:
        if self._failure is not None:
            raise self._failure
