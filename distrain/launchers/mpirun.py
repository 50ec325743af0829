"""Runs mpirun for a launch script, and ends all that mpirun starts; `mpi_agent.py` does so on other hosts.

Decides: what a signal means to the ranks, when their launcher hangs, the exit code and the final message. Never: how
many ranks run, or where; `single_node.sh` and `multi_node.sh` do.

    $ python -m distrain.launchers.mpirun mpirun -n 2 distrain train ...     # exits with the code of the job
    $ python -m distrain.launchers.mpirun --one-host --restarts 3 mpirun -n 2 distrain train ...

    Event                               Reaction
    SIGTERM, SIGINT, SIGHUP, SIGUSR1    SIGUSR1 to mpirun, which relays it: the ranks save, and exit with 42
    a second SIGINT                     mpirun kills the ranks at once
    mpirun is killed                    its ranks are killed
    mpirun outlives its ranks           it is killed, because it waits for a host that no longer answers
    mpirun misses how its ranks ended   their exit codes count, if all ranks are on this host
    this process is killed              mpirun gets SIGTERM from the kernel; after 10 s all processes left are killed
    a rank is lost, or crashes          with --restarts, the job starts again, from its last checkpoint
    a stranger's connection blocks it   the connection is shut down (connections.py)

mpirun runs in a session of its own, so that Ctrl-C in a terminal reaches this process alone. Open MPI would kill the
ranks one second after Ctrl-C.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence

from distrain.cluster.signals import STOP_SIGNALS, StopRequest, ignore_stop, listen_for_stop
from distrain.errors import RankError, StopRequested
from distrain.launchers.connections import StrangerEviction, bind_to_loopback
from distrain.launchers.job_folders import job_folders, remove_remains
from distrain.launchers.processes import (
    detach_standard_streams,
    exit_codes,
    handles,
    kill_session,
    mpi_ranks,
    session_members,
)
from distrain.launchers.supervisor import (
    FINAL_CODES,
    GO_ON,
    HANG_SECONDS,
    POLL_SECONDS,
    StderrRelay,
    exit_code_of,
    polls,
    run_with_restarts,
    say,
    send_once,
    start,
    write_stderr,
)

REPEAT_SECONDS = 5.0  # mpirun loses a signal that arrives before it has started the ranks
HURRY_SECONDS = 10.0  # mpirun takes about 2 x odls_base_sigkill_timeout to kill ranks that ignore signals
GUARD_SECONDS = 1.0  # between two looks at the parent process

_RULE = b"-" * 74  # mpirun writes this line above and below its own messages
# Messages about ranks that ended. The ranks have usually said why, and these would hide it.
_RANK_REPORT = re.compile(rb"Primary job|mpirun (detected|noticed|has exited)|lost communication with a remote")
_KILLED = re.compile(rb"process\s+rank\s+(\d+)\s.*?node\s+(\S+)\s+exited\s+on\s+signal\s+(\d+)", re.DOTALL)
_NOISE = b"mpirun: Forwarding signal"


def run_jobs(arguments: Sequence[str]) -> int:
    """Run mpirun with the ranks, and again after the loss of a rank.

    Args:
        arguments: `--one-host` if all ranks run on this host, `--restarts` and a number, then the command of mpirun.

    Returns:
        Exit code of the last job.
    """
    stop = listen_for_stop()  # before any process starts, so that no signal is missed
    words = list(arguments)
    is_one_host = words[0] == "--one-host"
    del words[: int(is_one_host)]
    restarts = 0
    if words[0] == "--restarts":
        restarts = int(words[1])
        del words[:2]
    return run_with_restarts(
        lambda: run_job(words, stop, is_one_host=is_one_host),
        restarts,
        lambda code: code not in FINAL_CODES and not stop.signal_name,
    )


def run_job(command: Sequence[str], stop: StopRequest, *, is_one_host: bool) -> int:
    """Run mpirun with the ranks.

    Returns:
        Exit code of the ranks; 5 when a rank or mpirun was killed or lost.

    Raises:
        StopRequested: A signal ended the ranks before they could save.
        KeyboardInterrupt: A second SIGINT killed the ranks.
    """
    reports: list[bytes] = []
    relay = StderrRelay(lambda lines: messages(lines, reports))
    remove_remains()
    with contextlib.ExitStack() as stack:
        program, *rest = command
        options, num_ranks = [], None
        if is_one_host:  # a job of single_node.sh, which gives -n to mpirun
            num_ranks = int(rest[rest.index("-n") + 1])
            options = stack.enter_context(job_folders(num_ranks))
        mpirun = start([program, *options, *rest], signal_at_death=signal.SIGTERM, stderr=relay, start_new_session=True)
        guard = _start_guard(mpirun.pid)
        relay.begin()
        try:
            code = watch(mpirun, stop, lambda: relay.has_final_message or bool(reports), num_ranks)
        except KeyboardInterrupt:
            ignore_stop()
            mpirun.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                mpirun.wait(HURRY_SECONDS)
            if mpirun.returncode not in (0, StopRequested.exit_code):
                raise
            code = None
        finally:
            kill_session(mpirun.pid)
            with contextlib.suppress(ProcessLookupError, ChildProcessError):  # somebody has killed the guard
                os.kill(guard, signal.SIGKILL)
                os.waitpid(guard, 0)
            relay.end()
    remove_remains()
    if code is None:
        code = mpirun.returncode
    elif relay.has_stopped:
        code = StopRequested.exit_code
    return conclude(code, stop, b"".join(reports), has_final_message=relay.has_final_message)


def watch(
    mpirun: subprocess.Popen[bytes], stop: StopRequest, has_failed: Callable[[], bool], num_ranks: int | None = None
) -> int | None:
    """Relay a request to stop until mpirun ends; kill an mpirun that hangs after its ranks.

    Without a message of a failure, an mpirun without local ranks may have ranks on other hosts.

    Args:
        mpirun: the started program.
        stop: the request to stop.
        has_failed: returns whether a message has said that a rank failed.
        num_ranks: ranks of the job if all run on this host.

    Returns:
        None if mpirun knows the exit code of the ranks; else this code: mpirun hung, or was held up at their end.
        Open MPI's ranks wait 2 s for an answer to their farewell; mpirun calls an end without it an error.
    """
    evict = StrangerEviction(mpirun.pid)
    relayed: set[int] = set()  # ranks that got the signal from this process, because mpirun relayed nothing
    ranks: set[int] = set()
    is_sent = has_succeeded = False
    repeat_at = 0.0
    last_busy = time.monotonic()
    for _ in polls([mpirun]):
        now = time.monotonic()
        evict()
        running = set(mpi_ranks(mpirun.pid))
        if num_ranks and not ranks:
            bind_to_loopback(mpirun.pid)
        ranks |= running
        if num_ranks and not running:
            has_succeeded = has_succeeded or exit_codes(ranks) == [0] * num_ranks
        if stop.signal_name and not is_sent:
            is_sent = bool(running)  # False for ranks on other hosts: then the signal is repeated
            if is_sent or now > repeat_at:
                mpirun.send_signal(signal.SIGUSR1)
                repeat_at = now + REPEAT_SECONDS
        elif is_sent and now > repeat_at:
            send_once(signal.SIGUSR1, [pid for pid in running if handles(pid, signal.SIGUSR1)], relayed)
        if running or not (has_failed() or (num_ranks and ranks)):
            last_busy = now
        elif now - last_busy > HANG_SECONDS:
            code = max([*exit_codes(ranks), RankError.exit_code if has_failed() else 0])
            mpirun.kill()
            mpirun.wait()
            return code
    return 0 if has_succeeded else None


def _start_guard(session: int) -> int:
    """Fork a process that kills a session when this process is killed, and return its process id.

    The kernel sends mpirun SIGTERM in that case, but mpirun leaves ranks behind that ignore signals.
    """
    supervisor = os.getpid()
    guard = os.fork()
    if guard == 0:
        try:
            os.setsid()
            detach_standard_streams()
            for number in STOP_SIGNALS:
                signal.signal(number, signal.SIG_IGN)
            while os.getppid() == supervisor:
                time.sleep(GUARD_SECONDS)
            deadline = time.monotonic() + HURRY_SECONDS
            while session_members(session) and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
            kill_session(session)
        finally:
            os._exit(0)  # the guard never returns to the caller's code
    return guard


def messages(lines: Iterator[bytes], reports: list[bytes]) -> Iterator[bytes]:
    """Yield lines and mpirun's framed messages; drop its noise, and move its reports on ended ranks to `reports`."""
    framed = b""
    for line in lines:
        is_rule = line.rstrip() == _RULE
        if framed or is_rule:
            framed += line
            if is_rule and framed != line:
                if _RANK_REPORT.search(framed):
                    reports.append(framed)
                else:
                    yield framed
                framed = b""
        elif not line.startswith(_NOISE):
            yield line
    yield framed


def conclude(code: int, stop: StopRequest, reports: bytes, *, has_final_message: bool) -> int:
    """Return the exit code of the job, after a final message where the ranks have written none."""
    if stop.signal_name and code in (-signal.SIGUSR1, 128 + signal.SIGUSR1):
        if has_final_message:
            return StopRequested.exit_code
        raise StopRequested(f"{stop.signal_name} came before training. Start the same command again to train.")
    job_code = RankError.exit_code if code < 0 or code > 128 else code
    if job_code and not has_final_message:
        write_stderr(reports)
        if code < 0:
            what = f"mpirun was killed by signal {-code}, and its ranks with it. {GO_ON}"
        elif killed := _KILLED.search(reports):
            rank, host, number = (word.decode() for word in killed.groups())
            what = f"rank {rank} on {host} was killed by signal {number}. {GO_ON}"
        elif job_code == RankError.exit_code:
            what = f"a rank or a host was lost. {GO_ON}"
        else:
            what = f"the ranks ended with exit code {code}; the messages above say why."
        say("error", what)
    return job_code


if __name__ == "__main__":
    sys.exit(exit_code_of(lambda: run_jobs(sys.argv[1:])))
