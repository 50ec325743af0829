"""Runs mpirun for a launch script, or orted for mpirun on another host, and answers for all that it starts.

Decides: what a signal means to the ranks, when their launcher hangs, the exit code and the last word. Never: how many
ranks there are, or where; `single_node.sh` and `multi_node.sh` do.

    run_ranks.py mpirun -n 2 distrain train ...             # ends with the exit code of the job
    run_ranks.py orted --daemonize ...                      # as mpirun's orte_launch_agent

What happens                            What follows
SIGTERM, SIGINT, SIGHUP, SIGUSR1        SIGUSR1 to mpirun, which passes it on: the ranks save, and leave with 42
a second SIGINT                         mpirun ends the ranks at once
mpirun or orted is killed               their ranks are killed
mpirun or orted outlives its ranks      it is killed: it waits for a host that cannot be reached any more
this process is killed                  mpirun gets SIGTERM from the kernel; after 10 s whatever is left is killed
the ranks of a host do not start        its orted is killed, and mpirun told, which ends the job

mpirun has a session of its own, so that Ctrl-C in a terminal reaches this process alone; Open MPI would kill the ranks
a second later. Needs nothing but Python's standard library and Linux.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import IO

STOPPED, LOST = 42, 5  # see distrain/errors.py
OWN_CODES = {0, 2, 3, 4, 5, 6, STOPPED}

POLL_SECONDS = 0.2
REPEAT_SECONDS = 5.0  # mpirun loses a signal that comes before it has started the ranks
HURRY_SECONDS = 10.0  # mpirun needs about 2 x odls_base_sigkill_timeout to kill ranks that do not listen
HANG_SECONDS = 10.0  # mpirun and orted end within one second of their last rank
START_SECONDS = 60.0  # no rank starts before all hosts have answered to mpirun

_RULE = "-" * 74  # above and below mpirun's own messages
# Those about ranks that have ended. The ranks have said why, as a rule; then these would bury it.
_OBITUARY = re.compile(r"Primary job|mpirun (detected|noticed|has exited)|lost communication with a remote")
_KILLED = re.compile(r"process\s+rank\s+(\d+)\s.*?node\s+(\S+)\s+exited\s+on\s+signal\s+(\d+)", re.DOTALL)
_NOISE = re.compile(r"mpirun: Forwarding signal")
_LAST_WORD = re.compile(r"distrain: (error|stopped|interrupted)|distrain \w+: error")
_GO_ON = "Start the same command again: training goes on from the last checkpoint."


class Words:
    """Passes on what mpirun and the ranks write to standard error; keeps mpirun's obituaries.

    Attributes:
        obituaries: mpirun's messages about ranks that have ended; each is several lines.
        has_last_word: whether a rank has said what happened.
    """

    def __init__(self, mpirun: subprocess.Popen[str]) -> None:
        assert mpirun.stderr
        self.obituaries: list[str] = []
        self.has_last_word = False
        self._thread = threading.Thread(target=self._pass_on, args=(mpirun.stderr,), daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Wait for the end of the stream: all who could write to it are gone."""
        self._thread.join(5.0)

    def _pass_on(self, stream: IO[str]) -> None:
        for text in _messages(stream):
            if _RULE in text and _OBITUARY.search(text):
                self.obituaries.append(text)
            elif not _NOISE.match(text):
                self.has_last_word = self.has_last_word or bool(_LAST_WORD.match(text))
                _say(text)


def _messages(stream: IO[str]) -> Iterator[str]:
    """Lines; a message of mpirun between two rules is one."""
    framed: list[str] = []
    for line in stream:
        is_rule = line.rstrip() == _RULE
        if framed or is_rule:
            framed.append(line)
            if not is_rule or len(framed) == 1:
                continue
            line = "".join(framed)
            framed = []
        yield line
    yield from framed


class Stop:
    """Turns the signals to this process into what mpirun understands."""

    def __init__(self) -> None:
        self.asked: signal.Signals | None = None
        self.hurried: signal.Signals | None = None
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
            signal.signal(number, self._hear)
        self._is_told = False  # not known where all ranks are on other hosts
        self._repeat_at = self._kill_at = 0.0

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            self.hurried = signal.Signals(number)
        self.asked = self.asked or signal.Signals(number)

    def act(self, process: subprocess.Popen[str]) -> None:
        """Send what is due."""
        now = time.monotonic()
        if self.hurried and not self._kill_at:
            process.terminate()
            self._kill_at = now + HURRY_SECONDS
        elif self.hurried and now > self._kill_at:
            process.kill()
        elif self.asked and not self._is_told:
            has_ranks = _ranks(process.pid)
            if has_ranks or now > self._repeat_at:
                process.send_signal(signal.SIGUSR1)
                self._is_told = has_ranks
                self._repeat_at = now + REPEAT_SECONDS


def run_job(command: Sequence[str]) -> int:
    """Run mpirun with the ranks.

    Returns:
        The exit code of the job: that of the ranks; 42 where it was stopped before they could save; 5 where a rank, or
        mpirun itself, was killed or lost; 130 after a second SIGINT.
    """
    stop = Stop()  # before there is anything that could be missed
    process = _start(command, stdout=None)
    release = _guard(process.pid)
    words = Words(process)
    idle_since = None
    while process.poll() is None:
        stop.act(process)
        # Without a word of failure, ranks on other hosts may still be at work.
        is_idle = (words.has_last_word or words.obituaries) and not _ranks(process.pid)
        idle_since = (idle_since or time.monotonic()) if is_idle else None
        if idle_since and time.monotonic() - idle_since > HANG_SECONDS:
            process.kill()
        time.sleep(POLL_SECONDS)
    _kill_session(process.pid)
    release()
    words.end()
    return _conclude(process.returncode, stop, words)


def run_daemon(command: Sequence[str]) -> int:
    """Run orted, in the background from when its ranks have started.

    Returns:
        0 when they have; 1 when orted has ended before, or no rank came in 60 s: this ends the job.
    """
    started, starting = os.pipe()
    if os.fork():
        os.close(starting)
        return 0 if os.read(started, 1) else 1
    os.setsid()
    process = _start([argument for argument in command if argument != "--daemonize"], stdout=subprocess.DEVNULL)
    Words(process)
    if _await_ranks(process):
        os.write(starting, b"1")
        os.close(starting)
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):  # so that ssh ends
            os.dup2(null, standard)
    addresses = _mpirun_addresses(command)
    while process.poll() is None:
        if addresses and not _ranks(process.pid) and not any(map(_answers, addresses)):
            process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(HANG_SECONDS / 2)
    _kill_session(process.pid)
    os._exit(0)


def _await_ranks(orted: subprocess.Popen[str]) -> bool:
    deadline = time.monotonic() + START_SECONDS
    while orted.poll() is None:
        if _ranks(orted.pid):
            return True
        if time.monotonic() > deadline:
            _say(
                f"distrain: error: {os.uname().nodename} finds no way back to the mpirun that wants ranks here, or "
                f"another host does not answer it; waited {START_SECONDS:g} s. Open the ports between the hosts, or "
                "name the network that joins them with --interface.\n"
            )
            orted.kill()
        time.sleep(POLL_SECONDS)
    return False


def _mpirun_addresses(command: Sequence[str]) -> list[tuple[str, int]]:
    """Where mpirun listens, out of orted's arguments: "1576.0;tcp://10.0.0.1,10.1.0.1:38857"."""
    found = re.search(r"orte_hnp_uri [^ ]*?;tcp://([0-9.,]+):(\d+)", " ".join(command))
    return [(address, int(found[2])) for address in found[1].split(",")] if found else []


def _answers(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=HANG_SECONDS / 2).close()
    except OSError:
        return False
    return True


def _start(command: Sequence[str], *, stdout: int | None) -> subprocess.Popen[str]:
    """Start a launcher in a session of its own; it gets SIGTERM when this process is gone."""
    libc = ctypes.CDLL(None)

    def ask_for_signal() -> None:
        libc.prctl(1, int(signal.SIGTERM))  # PR_SET_PDEATHSIG

    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
        preexec_fn=ask_for_signal,
    )


def _ranks(launcher: int) -> bool:
    """Whether a launcher has ranks, which are its children."""
    for children in Path(f"/proc/{launcher}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in children.read_text().split():
                with contextlib.suppress(OSError):
                    if b"\0OMPI_COMM_WORLD_RANK=" in Path(f"/proc/{child}/environ").read_bytes():
                        return True
    return False


def _guard(session: int) -> Callable[[], None]:
    """Start a process that kills what is left of a session when this one is killed; returns what ends it instead.

    mpirun, which the kernel tells of it, leaves ranks behind that do not listen.
    """
    held, holding = os.pipe()
    guard = os.fork()
    if guard == 0:
        try:
            os.close(holding)
            _keep_guard(session, held)
        finally:  # whatever happens there, nothing of the caller's may happen twice
            os._exit(0)
    os.close(held)

    def release() -> None:
        with contextlib.suppress(OSError):  # somebody has ended it
            os.write(holding, b"1")
        os.close(holding)
        os.waitpid(guard, 0)

    return release


def _keep_guard(session: int, held: int) -> None:
    """Wait for a word that all is well, or for the end of the process that would say it."""
    os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):  # whoever reads them waits for nobody else
        os.dup2(null, standard)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    if not os.read(held, 1):
        deadline = time.monotonic() + HURRY_SECONDS
        while any(_of_session(session)) and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        _kill_session(session)


def _kill_session(session: int) -> None:
    """Kill whatever a launcher has left behind: each rank has a process group of its own, but all have its session."""
    for process in _of_session(session):
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGKILL)


def _of_session(session: int) -> Iterator[int]:
    """The processes of a session that live."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, its_session = stat.read_text().rpartition(")")[2].split()[:4]
            if int(its_session) == session and state != "Z":
                yield int(stat.parent.name)


def _conclude(code: int, stop: Stop, words: Words) -> int:
    if stop.hurried and code not in (0, STOPPED):
        _say(f"distrain: stopped: at once, by a second {stop.hurried.name}. {_GO_ON}\n")
        return 128 + stop.hurried
    if stop.asked and code in (-signal.SIGUSR1, 128 + signal.SIGUSR1):
        if not words.has_last_word:
            _say(f"distrain: stopped: {stop.asked.name} came before training. Start the same command again to train.\n")
        return STOPPED
    if code in OWN_CODES and (code == 0 or words.has_last_word):
        return code
    result = LOST if code < 0 or code > 128 else code
    if not words.has_last_word:
        obituaries = "".join(words.obituaries)
        _say(obituaries)
        killed = _KILLED.search(obituaries)
        if code < 0:
            what = f"mpirun was killed by signal {-code}, and its ranks with it. {_GO_ON}"
        elif killed:
            what = f"rank {killed[1]} on {killed[2]} was killed by signal {killed[3]}. {_GO_ON}"
        elif result == LOST:
            what = f"a rank or a host was lost. {_GO_ON}"
        else:
            what = f"the ranks ended with exit code {code}; what is said above tells why."
        _say(f"distrain: error: {what}\n")
    return result


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # nobody reads any more
        sys.stderr.write(text)
        sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(run_daemon(sys.argv[1:]) if sys.argv[2:3] == ["--daemonize"] else run_job(sys.argv[1:]))
