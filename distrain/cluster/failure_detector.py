"""The failure detector of a run: a rank that fails or is lost ends the whole job, with one message.

Decides: whether a rank was lost, what the message says, and with which code this process exits. Never: how ranks
connect (`heartbeat.py`), or what a failing rank says about its own failure.

    with detect_failures(group) as detector:
        for step in range(1, 101):
            train()
            detector.at_step(step)

Without a failure detector, collectives wait for a lost peer forever or for an unknown time. Each rank therefore sends a
beat to rank 0 once a second, and rank 0 sends beats back. The beats have a thread and TCP connections of their own, so
a busy main thread does not delay them. Only code that holds the interpreter's lock for longer than `silence_seconds`
looks like a stopped process.

    What happens                        Who prints           Exit code
    a rank's process ends               rank 0, after 0.3 s  5
    a rank is silent                    rank 0               5
    rank 0's process ends or is silent  the lowest rank      5
    an error leaves the context         the failing rank     the error's
    `fail(code)`                        its caller           code

All other ranks exit with the same code and print nothing. Rank 0 decides, so that only the first of several failures is
reported.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from distrain.cluster.exit_process import exit_process
from distrain.cluster.heartbeat import Frame, Kind, RankConnection, connect_ranks
from distrain.cluster.process_group import ProcessGroup
from distrain.errors import DistrainError, RankError, StopRequested

Exit = Callable[[int, str | None], None]  # called with exit code and message

BEAT_SECONDS = 1.0
SILENCE_SECONDS = 30.0
GRACE_SECONDS = 0.3  # from a broken connection to the verdict; mpirun ends all ranks about 1 s after the first
PRINT_SECONDS = 3.0  # a failing rank has this long to print and end before the other ranks exit
ANSWER_SECONDS = 6.0  # `fail` waits this long for rank 0 at most
EXIT_SECONDS = 20.0  # then a failed process is ended, because its cleanup may wait for lost ranks
VERDICT_SECONDS = 3.0  # an error that a lost peer may have caused waits this long for the verdict
GOODBYE_SECONDS = 2.0
# When rank 0 is lost, rank 1 prints. Rank 2 prints this much later, unless the launcher has ended it by then
# (horovodrun takes 5 s), and all other ranks after two turns. All ranks thus exit within a minute of the loss.
TURN_SECONDS, MAX_TURNS = 6.0, 2
PATIENCE_SECONDS = 2.0  # added to the silence of rank 0, so that rank 0 prints first when a network is cut


class FailureDetector:
    """What a rank reports to the other ranks. This base class serves a single process, which has no peers."""

    _step = -1

    def at_step(self, step: int) -> None:
        """Note that all ranks took part in this step; costs next to nothing."""
        self._step = step

    def fail(self, code: int) -> None:
        """Make all other ranks exit without a message, because this process is about to exit.

        Returns once rank 0 has answered, or after 6 s. This process then has 20 s to print its error and exit. If
        another rank failed before, `fail` does not return and this process exits with that rank's code.

        Args:
            code: exit code of all ranks, 1..255.
        """


@contextlib.contextmanager
def detect_failures(
    group: ProcessGroup,
    *,
    exit_process: Exit = exit_process,
    silence_seconds: float = SILENCE_SECONDS,
) -> Iterator[FailureDetector]:
    """Run the failure detector inside the context. Every rank enters, and leaves after a barrier.

    An error that leaves the context calls `fail` with its exit code (1 for a traceback). Collectives also raise errors
    when a peer is lost; such an error first waits for the verdict about a lost rank. The error gets a note with rank
    and step. `StopRequested` is no failure, because all ranks agreed to stop.

    Args:
        group: all ranks; they exchange bytes twice at the start.
        exit_process: ends this process; called in another thread than the main thread.
        silence_seconds: a rank without a sign of life for this long is lost.

    Raises:
        RankError: a rank could not connect. All ranks raise this error.
    """
    if group.size == 1:
        yield FailureDetector()
        return
    detector = _HeartbeatDetector(group.rank, connect_ranks(group), exit_process, silence_seconds)
    detector.start()
    try:
        yield detector
    except BaseException as error:
        if code := _exit_code(error):
            if _may_follow_a_loss(error):
                detector.await_verdict()
            detector.fail(code)
            where = detector.progress()
            error.add_note(f"This was rank {group.rank} of {group.size} {where}; all other ranks exit too.")
        raise
    finally:
        detector.stop()


def _exit_code(error: BaseException) -> int:
    if isinstance(error, StopRequested):
        return 0
    if isinstance(error, SystemExit):
        return error.code & 0xFF if isinstance(error.code, int) else int(error.code is not None)
    return error.exit_code if isinstance(error, DistrainError) else 1


def _may_follow_a_loss(error: BaseException) -> bool:
    """Return whether the loss of another rank may have caused the error."""
    return isinstance(error, RankError) or (isinstance(error, Exception) and not isinstance(error, DistrainError))


@dataclass(frozen=True)
class _Verdict:
    """How this process is going to exit.

    Attributes:
        code: exit code.
        message: printed by this process; None if another rank prints, and then the verdict is final.
        rank: the lost rank, or the rank that prints.
        timer: exits when it expires.
    """

    code: int
    message: str | None
    rank: int
    timer: asyncio.TimerHandle


class _HeartbeatDetector(FailureDetector):
    """A failure detector with a thread, whose event loop runs `_run` and everything that `_run` schedules."""

    def __init__(self, rank: int, links: dict[int, RankConnection], exit_process: Exit, silence_seconds: float) -> None:
        self._rank = rank
        self._links = links
        self._exit_process = exit_process
        self._silence_seconds = silence_seconds
        self._verdict: _Verdict | None = None
        self._is_parting = False
        self._has_failed = False
        self._may_print = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def fail(self, code: int) -> None:
        """See `FailureDetector.fail`."""
        if self._has_failed:
            return
        self._has_failed = True
        self._loop.call_soon_threadsafe(self._send_failure, code)
        self._may_print.wait(ANSWER_SECONDS)

    def await_verdict(self) -> None:
        """Give rank 0 time to detect a lost rank; returns at once after `fail`."""
        self._may_print.wait(VERDICT_SECONDS)

    def progress(self, step: int = -1) -> str:
        """Return how far training has come, as in "after step 17": a step of any rank is a step of all ranks."""
        step = max(step, self._step)
        return f"after step {step}" if step >= 0 else "before its first step"

    def stop(self) -> None:
        """Say goodbye to the peers, unless this process failed: then the peers wait for its end."""
        if self._has_failed:
            return
        self._loop.call_soon_threadsafe(self._part)
        self._thread.join(GOODBYE_SECONDS + 1)
        if not self._thread.is_alive():
            self._loop.close()

    def _run(self) -> None:
        for link in self._links.values():
            self._loop.add_reader(link, self._receive, link)
        self._beat()
        self._loop.run_forever()
        for link in self._links.values():
            link.close()

    def _beat(self) -> None:
        self._loop.call_later(BEAT_SECONDS, self._beat)
        for link in self._links.values():
            link.send(Frame(Kind.BEAT, step=self._step))
            # Own beats measure the silence, so that a process that was stopped itself finds no peer silent.
            silence = link.silent_beats * BEAT_SECONDS
            if silence > self._silence_seconds + (PATIENCE_SECONDS if self._rank else 0):
                self._judge_lost(link, f"no sign of life for {silence:g} s; it is stopped or its network is down")
            link.silent_beats += 1

    def _receive(self, link: RankConnection) -> None:
        for frame in link.receive():
            link.silent_beats = 0
            if frame.kind is Kind.BEAT:
                link.step = frame.step
            elif frame.kind is Kind.GOODBYE:
                link.send(Frame(Kind.GOODBYE))
                self._remove(link)
                return
            else:
                self._follow(link, frame)
        if not link.is_open:
            self._remove(link)
            self._judge_lost(link, "its process ended")
            if self._verdict and self._verdict.message is None and self._verdict.rank == link.rank:
                self._exit_in(0, self._verdict.code, None, link.rank)

    def _follow(self, link: RankConnection, frame: Frame) -> None:
        """Exit as another rank asks, unless the verdict is final. A failure explains a loss that is not yet final."""
        if self._may_print.is_set() or (self._verdict and self._verdict.message is None):
            return
        if frame.kind is Kind.FAILED and self._rank == 0:
            link.send(frame)
        elif frame.kind is Kind.FAILED:  # the answer of rank 0
            self._allow_printing()
            return
        self._exit_in(PRINT_SECONDS, frame.code, None, link.rank)

    def _judge_lost(self, link: RankConnection, reason: str) -> None:
        """Schedule the exit for a lost rank, unless another verdict stands."""
        if self._verdict or self._is_parting or self._may_print.is_set():
            return
        message = (
            f"rank {link.rank} ({link.host}) was lost {self.progress(link.step)}: {reason}. "
            "Start the same command again: training goes on from the last checkpoint."
        )
        turns = min(max(self._rank - 1, 0), MAX_TURNS)
        self._exit_in(GRACE_SECONDS + turns * TURN_SECONDS, RankError.exit_code, message, link.rank)

    def _send_failure(self, code: int) -> None:
        """Run the part of `fail` that belongs to this thread."""
        self._loop.call_later(EXIT_SECONDS, self._exit_process, code, None)
        if self._rank > 0 and self._links:
            self._links[0].send(Frame(Kind.FAILED, code))
        elif self._verdict is None:
            self._send_all(Frame(Kind.LEAVE, code))
            self._allow_printing()

    def _allow_printing(self) -> None:
        if self._verdict:
            self._verdict.timer.cancel()
        self._may_print.set()

    def _exit_in(self, seconds: float, code: int, message: str | None, rank: int) -> None:
        if self._verdict:
            self._verdict.timer.cancel()
        timer = self._loop.call_later(seconds, self._exit, code, message)
        self._verdict = _Verdict(code, message, rank, timer)

    def _exit(self, code: int, message: str | None) -> None:
        self._send_all(Frame(Kind.LEAVE, code))
        self._loop.stop()
        self._exit_process(code, message)

    def _part(self) -> None:
        """Run the part of `stop` that belongs to this thread."""
        self._is_parting = True
        self._send_all(Frame(Kind.GOODBYE))
        self._loop.call_later(GOODBYE_SECONDS if self._links else 0, self._loop.stop)

    def _send_all(self, frame: Frame) -> None:
        for link in self._links.values():
            link.send(frame)

    def _remove(self, link: RankConnection) -> None:
        self._loop.remove_reader(link)
        del self._links[link.rank]
        link.close()
        if self._is_parting and not self._links:
            self._loop.stop()
