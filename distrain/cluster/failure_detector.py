"""The failure detector of a run of many processes: a rank that fails or is lost ends the whole job, with one message.

Decides: who was lost, what is said about it, and with which code this process leaves. Never: how ranks are connected
(`heartbeat_wire.py`), or what a failing rank says about its own failure.

    with watching(group) as watch:
        for step in range(1, 101):
            train()
            watch.at_step(step)

Collectives wait for ever, or for a vague time, when a peer is gone. So each rank beats once a second over a TCP
connection of its own to rank 0, from a thread of its own, and rank 0 beats back. A busy main thread does no harm; only
code that holds the interpreter's lock for longer than `silence_seconds` looks like a stopped process.

What happens                        Who speaks           Exit code
a rank's process ends               rank 0, after 0.3 s  5
a rank falls silent                 rank 0               5
rank 0's process ends or is silent  the lowest rank      5
an error leaves the context         the failing rank     the error's
`failed(code)`                      its caller           code

All others leave with the same code and say nothing. Rank 0 decides, so of several failures only the first is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from distrain.cluster.heartbeat import Frame, Kind, Link, meet
from distrain.cluster.process_group import ProcessGroup
from distrain.errors import DistrainError, RankError, StopRequested

Leave = Callable[[int, str | None], None]

BEAT_SECONDS = 1.0
SILENCE_SECONDS = 30.0
GRACE_SECONDS = 0.3  # from a broken connection to the verdict; mpirun ends all ranks about 1 s after the first
SPEAK_SECONDS = 3.0  # a failing rank has so long to speak and end before the others leave
ANSWER_SECONDS = 6.0  # `failed` waits for rank 0 at most so long
LAST_SECONDS = 20.0  # then a failed process is ended: its clean-up may wait for ranks that are gone
ECHO_SECONDS = 3.0  # an error that may come from a lost peer waits so long for the verdict
GOODBYE_SECONDS = 2.0
# Where rank 0 is lost, rank 1 speaks. Rank 2 does so this much later, if the launcher has not ended it by then
# (horovodrun takes 5 s), and all others after two turns: a minute at most from the loss, whoever is left.
TURN_SECONDS, MAX_TURNS = 6.0, 2
PATIENCE_SECONDS = 2.0  # others give rank 0 more time than it gives them: of a cut connection it speaks first


def leave_process(code: int, message: str | None) -> None:
    """End this process at once, whatever its main thread is doing; says the message, if any, on standard error."""

    def speak() -> None:
        with contextlib.suppress(OSError, ValueError):  # nobody reads
            if message is not None and sys.__stderr__ is not None:  # not a live display's, which may be locked
                new_line = "\n" if sys.__stderr__.isatty() else ""
                print(f"{new_line}distrain: error: {message}", file=sys.__stderr__, flush=True)
            if sys.stdout is not None:
                sys.stdout.flush()

    # Neither the main thread, which may hold a stream's lock, nor a reader that has stopped may keep it alive.
    speaker = threading.Thread(target=speak, daemon=True)
    speaker.start()
    speaker.join(2.0)
    os._exit(code)


class Watch:
    """What a rank tells the others. This one is of a run of one process, and tells nobody."""

    _step = -1

    def at_step(self, step: int) -> None:
        """All ranks have taken part in this step; costs next to nothing."""
        self._step = step

    def failed(self, code: int) -> None:
        """Tell all others that this process is about to leave with `code`, 1..255; they leave with it too, silently.

        Returns once rank 0 knows, and after 6 s in any case; then 20 s are left to say why and to end. Does not return
        where another rank has failed before: then this process leaves as that one wants.
        """


@contextlib.contextmanager
def watching(
    group: ProcessGroup,
    *,
    leave: Leave = leave_process,
    silence_seconds: float = SILENCE_SECONDS,
) -> Iterator[Watch]:
    """Watch all ranks of a run, and be watched. Every rank enters, and leaves after a barrier.

    An error that leaves the context reaches the other ranks as `failed`, with its exit code (1 for a traceback). If it
    may be the echo of another rank's end, as collectives break when a peer is gone, the verdict is awaited before.
    The error gets a note with rank and step. `StopRequested` is no failure: it is agreed.

    Args:
        group: all ranks; used twice at the start.
        leave: ends this process: (exit code, message for standard error or None). Called in a thread of its own.
        silence_seconds: without a sign of life for so long, a rank counts as lost.

    Raises:
        RankError: a rank could not connect; raised on all alike.
    """
    rank, size = group.rank, group.size
    if size == 1:
        yield Watch()
        return
    links = meet(group)
    watcher = _Watcher(rank, links, leave, silence_seconds)
    watcher.start()
    try:
        yield watcher
    except BaseException as error:
        if code := _exit_code(error):
            if _may_be_an_echo(error):
                watcher.await_verdict()
            watcher.failed(code)
            error.add_note(f"This was rank {rank} of {size} {watcher.where()}; all other ranks are told to leave.")
        raise
    finally:
        watcher.stop()


def _exit_code(error: BaseException) -> int:
    if isinstance(error, StopRequested):
        return 0
    if isinstance(error, SystemExit):
        return error.code & 0xFF if isinstance(error.code, int) else int(error.code is not None)
    return error.exit_code if isinstance(error, DistrainError) else 1


def _may_be_an_echo(error: BaseException) -> bool:
    """Whether the end of another rank may have raised it."""
    return isinstance(error, RankError) or (isinstance(error, Exception) and not isinstance(error, DistrainError))


@dataclass(frozen=True)
class _Ending:
    """How this process is going to leave."""

    code: int
    message: str | None  # None where another rank speaks; then the end is settled
    rank: int  # that was lost, or whose end is awaited
    timer: asyncio.TimerHandle


class _Watcher(Watch):
    """A watch with a thread, whose event loop runs whatever begins with an underscore."""

    def __init__(self, rank: int, links: dict[int, Link], leave: Leave, silence_seconds: float) -> None:
        self._rank = rank
        self._links = links
        self._leave = leave
        self._silence_seconds = silence_seconds
        self._ending: _Ending | None = None
        self._is_parting = False
        self._has_failed = False
        self._may_speak = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def failed(self, code: int) -> None:
        """See `Watch.failed`."""
        if self._has_failed:
            return
        self._has_failed = True
        self._loop.call_soon_threadsafe(self._fail, code)
        self._may_speak.wait(ANSWER_SECONDS)

    def await_verdict(self) -> None:
        """Give rank 0 time to find out whom the run has lost; returns at once after `failed`."""
        self._may_speak.wait(ECHO_SECONDS)

    def where(self, step: int = -1) -> str:
        """How far training has come: at least to that step, as all ranks take part in each."""
        step = max(step, self._step)
        return f"after step {step}" if step >= 0 else "before its first step"

    def stop(self) -> None:
        """Say goodbye; after a failure not, as then the others wait for the end of this process."""
        if self._has_failed:
            return
        self._loop.call_soon_threadsafe(self._part)
        self._thread.join(GOODBYE_SECONDS + 1)
        if not self._thread.is_alive():
            self._loop.close()

    def _run(self) -> None:
        for link in self._links.values():
            self._loop.add_reader(link, self._hear, link)
        self._beat()
        self._loop.run_forever()
        for link in self._links.values():
            link.close()

    def _beat(self) -> None:
        self._loop.call_later(BEAT_SECONDS, self._beat)
        for link in self._links.values():
            link.send(Frame(Kind.BEAT, step=self._step))
            # Counted in own beats: a rank that was stopped itself accuses nobody when it goes on.
            silence = link.silent_beats * BEAT_SECONDS
            if silence > self._silence_seconds + (PATIENCE_SECONDS if self._rank else 0):
                self._lose(link, f"no sign of life for {silence:g} s; it is stopped or its network is down")
            link.silent_beats += 1

    def _hear(self, link: Link) -> None:
        for frame in link.receive():
            link.silent_beats = 0
            if frame.kind is Kind.BEAT:
                link.step = frame.step
            elif frame.kind is Kind.GOODBYE:
                link.send(Frame(Kind.GOODBYE))
                self._drop(link)
                return
            else:
                self._obey(link, frame)
        if not link.is_open:
            self._drop(link)
            self._lose(link, "its process ended")
            if self._ending and self._ending.message is None and self._ending.rank == link.rank:
                self._end_in(0, self._ending.code, None, link.rank)

    def _obey(self, link: Link, frame: Frame) -> None:
        """Leave as another rank wants, unless the end is settled. A failure explains a loss that is still weighed."""
        if self._may_speak.is_set() or (self._ending and self._ending.message is None):
            return
        if frame.kind is Kind.FAILED and self._rank == 0:
            link.send(frame)
        elif frame.kind is Kind.FAILED:  # rank 0's answer
            self._allow_speaking()
            return
        self._end_in(SPEAK_SECONDS, frame.code, None, link.rank)

    def _lose(self, link: Link, reason: str) -> None:
        """Weigh the loss of a rank, unless something else is about to end this process."""
        if self._ending or self._is_parting or self._may_speak.is_set():
            return
        message = (
            f"rank {link.rank} ({link.host}) was lost {self.where(link.step)}: {reason}. "
            "Start the same command again: training goes on from the last checkpoint."
        )
        turns = min(max(self._rank - 1, 0), MAX_TURNS)
        self._end_in(GRACE_SECONDS + turns * TURN_SECONDS, RankError.exit_code, message, link.rank)

    def _fail(self, code: int) -> None:
        """What the main thread asks for in `failed`."""
        self._loop.call_later(LAST_SECONDS, self._leave, code, None)
        if self._rank > 0 and self._links:
            self._links[0].send(Frame(Kind.FAILED, code))
        elif self._ending is None:
            self._tell_all(Frame(Kind.LEAVE, code))
            self._allow_speaking()

    def _allow_speaking(self) -> None:
        if self._ending:
            self._ending.timer.cancel()
        self._may_speak.set()

    def _end_in(self, seconds: float, code: int, message: str | None, rank: int) -> None:
        if self._ending:
            self._ending.timer.cancel()
        timer = self._loop.call_later(seconds, self._end, code, message)
        self._ending = _Ending(code, message, rank, timer)

    def _end(self, code: int, message: str | None) -> None:
        self._tell_all(Frame(Kind.LEAVE, code))
        self._loop.stop()
        self._leave(code, message)

    def _part(self) -> None:
        """What the main thread asks for in `stop`."""
        self._is_parting = True
        self._tell_all(Frame(Kind.GOODBYE))
        self._loop.call_later(GOODBYE_SECONDS if self._links else 0, self._loop.stop)

    def _tell_all(self, frame: Frame) -> None:
        for link in self._links.values():
            link.send(frame)

    def _drop(self, link: Link) -> None:
        self._loop.remove_reader(link)
        del self._links[link.rank]
        link.close()
        if self._is_parting and not self._links:
            self._loop.stop()
