"""Flags that each process sends with a step: it received a request to stop, or it failed.

Decides: what all processes do at the same step when a flag arrives. Never: adds a collective to a step; the flags are
summed together with the gradients.

    step_flags = StepFlags(distribution.group, stop)
    train_steps = step_flags.around_steps(compiled_steps)
    batches = step_flags.with_failure_batches(batches, [idle_batch(sample, 0)])
    TrainingLoop(..., train_steps=train_steps, after_step=[..., step_flags.action])
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING

from distrain.batch import Batch, step_flags
from distrain.cluster.error_relay import run_on_all_ranks
from distrain.cluster.process_group import ProcessGroup
from distrain.cluster.signals import StopRequest
from distrain.runs.progress import Sums
from distrain.training.loop.events import Decision, NotFinite, StepEvent
from distrain.training.steps.finite import BAD_LOSS

if TYPE_CHECKING:
    from distrain.training.steps.outcome import Outcome


class StepFlags:
    """Sends this process's flags with each step, and acts on the flags of all processes.

    Args:
        group: the processes.
        stop: whether this process received a request to stop.
        global_step: steps trained so far.
    """

    def __init__(self, group: ProcessGroup, stop: StopRequest, *, global_step: int = 0) -> None:
        self._group = group
        self._stop = stop
        self._failure: Exception | None = None
        self._global_step = global_step
        self._stop_is_agreed = False
        self._bad_evaluation: tuple[int, ...] = ()

    def around(self, step: Callable[[list[Batch]], Outcome]) -> Callable[[list[Batch]], Sums]:
        """Return a function that evaluates one step with flags and returns its sums.

        Args:
            step: the compiled evaluation step.

        Raises (the function does):
            DistrainError: a process failed; all processes raise its error.
        """

        def run(batches: list[Batch]) -> Sums:
            outcome = step(self._with_stop(batches))
            self._receive(outcome, index=0)
            self._bad_evaluation = self._bad_evaluation or _bad_devices(outcome)
            return outcome.sums

        return run

    def around_steps(
        self, steps: Callable[[list[list[Batch]]], Iterable[Outcome]], *, reads_late: bool = False
    ) -> Callable[[list[list[Batch]]], Iterable[Sums | NotFinite]]:
        """Return a function that trains the steps of one call with flags; see `around`.

        For a step that is not finite, the function gives what was not finite in place of the step's sums.

        Args:
            steps: the compiled steps.
            reads_late: whether outcomes are read, and flags received, only once the caller iterates over the sums.
        """

        def received(outcomes: Iterable[Outcome]) -> Iterator[Sums | NotFinite]:
            of_steps = list(outcomes)
            for index, outcome in enumerate(of_steps):
                self._receive(outcome, index=index)
            yield from (outcome.sums if outcome.is_finite else _not_finite(outcome) for outcome in of_steps)

        def run(group: list[list[Batch]]) -> Iterable[Sums | NotFinite]:
            sums = received(steps([self._with_stop(batches) for batches in group]))
            return sums if reads_late else list(sums)

        return run

    @contextmanager
    def with_failure_batches(
        self, batches: AbstractContextManager[Iterator[list[Batch]]], empty: list[Batch]
    ) -> Iterator[Iterator[list[Batch]]]:
        """Yield `batches`; after an error in them, yield `empty` with the flag of failure, without end."""
        with batches as steps:
            yield steps if self._group.size == 1 else self._replace_failed(steps, empty)

    def stop_is_agreed(self) -> bool:
        """Return whether all processes know of a request to stop."""
        return self._stop_is_agreed

    def bad_evaluation(self) -> tuple[int, ...]:
        """Return the devices whose share of an evaluated step first had a loss that is not finite."""
        return self._bad_evaluation

    def action(self, event: StepEvent) -> Decision:
        """Stop after an agreed request, unless an earlier action decided more than `GO_ON`."""
        self._global_step = event.progress.global_step
        stops = self._stop_is_agreed and event.decision is Decision.GO_ON
        return Decision.STOP if stops else Decision.GO_ON

    def stopped_by(self) -> str:
        """Return which ranks received which signal, as in "SIGTERM to rank 1". All processes must call this."""
        names = [name.decode() for name in self._group.all_gather_bytes((self._stop.signal_name or "").encode())]
        if len(names) == 1:
            return names[0]
        return ", ".join(f"{name} to rank {rank}" for rank, name in enumerate(names) if name)

    def _with_stop(self, batches: list[Batch]) -> list[Batch]:
        return _with_flags(batches, stop=True) if self._stop.signal_name is not None else batches

    def _receive(self, outcome: Outcome, *, index: int) -> None:
        """Act on the flags of the step at this index within a call."""
        self._stop_is_agreed |= outcome.num_stops > 0
        if outcome.num_failures:
            where = f"step {self._global_step + index + 1}: "
            run_on_all_ranks(self._group, self._raise_failure, where=where)

    def _replace_failed(self, steps: Iterator[list[Batch]], empty: list[Batch]) -> Iterator[list[Batch]]:
        try:
            yield from steps
        except Exception as error:
            self._failure = error
            while True:  # the other processes may already be several steps ahead
                yield _with_flags(empty, failed=True)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


def _bad_devices(outcome: Outcome) -> tuple[int, ...]:
    return tuple(device for device, bad in enumerate(outcome.bad_shares) if bad)


def _not_finite(outcome: Outcome) -> NotFinite:
    what = f"The loss is {float(outcome.sums[0])}" if BAD_LOSS in outcome.bad_shares else "The gradient is not finite"
    return NotFinite(what, _bad_devices(outcome))


def _with_flags(batches: list[Batch], *, stop: bool = False, failed: bool = False) -> list[Batch]:
    """Return the batches with these flags added to their own."""
    flagged = []
    for batch in batches:
        was_stop, was_failed, replica = batch.step_flags
        own = step_flags(int(replica) - 1, stop=stop or bool(was_stop), failed=failed or bool(was_failed))
        flagged.append(batch._replace(step_flags=own))
    return flagged
