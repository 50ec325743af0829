"""Runs mpirun for a launch script, or orted for mpirun on another host, and ends all that they start.

Decides: what a signal means to the ranks, when their launcher hangs, the exit code and the final message. Never: how
many ranks run, or where; `single_node.sh` and `multi_node.sh` do.

    $ python -m distrain.launchers.mpirun mpirun -n 2 distrain train ...     # exits with the code of the job
    $ python -m distrain.launchers.mpirun orted --daemonize ...              # as mpirun's orte_launch_agent

    Event                               Reaction
    SIGTERM, SIGINT, SIGHUP, SIGUSR1    SIGUSR1 to mpirun, which relays it: the ranks save, and exit with 42
    a second SIGINT                     mpirun kills the ranks at once
    mpirun or orted is killed           its ranks are killed
    mpirun or orted outlives its ranks  it is killed, because it waits for a host that no longer answers
    this process is killed              mpirun gets SIGTERM from the kernel; after 10 s all processes left are killed
    the ranks of a host do not start    orted is killed and mpirun informed, which ends the job

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
from distrain.launchers.processes import detach_standard_streams, kill_session, mpi_ranks, session_members
from distrain.launchers.supervisor import (
    GO_ON,
    POLL_SECONDS,
    StderrRelay,
    accepts_connection,
    exit_code_of,
    polls,
    say,
    start,
    write_stderr,
)

REPEAT_SECONDS = 5.0  # mpirun loses a signal that arrives before it has started the ranks
HURRY_SECONDS = 10.0  # mpirun takes about 2 x odls_base_sigkill_timeout to kill ranks that ignore signals
HANG_SECONDS = 10.0  # mpirun and orted end within one second of their last rank
GUARD_SECONDS = 1.0  # between two looks at the parent process
START_SECONDS = 60.0  # no rank starts before all hosts have answered mpirun

_RULE = b"-" * 74  # mpirun writes this line above and below its own messages
# Messages about ranks that ended. The ranks have usually said why, and these would hide it.
_RANK_REPORT = re.compile(rb"Primary job|mpirun (detected|noticed|has exited)|lost communication with a remote")
_KILLED = re.compile(rb"process\s+rank\s+(\d+)\s.*?node\s+(\S+)\s+exited\s+on\s+signal\s+(\d+)", re.DOTALL)
_NOISE = b"mpirun: Forwarding signal"


def run_job(command: Sequence[str]) -> int:
    """Run mpirun with the ranks.

    Returns:
        Exit code of the ranks; 5 when a rank or mpirun was killed or lost.

    Raises:
        StopRequested: A signal ended the ranks before they could save.
        KeyboardInterrupt: A second SIGINT killed the ranks.
    """
    stop = listen_for_stop()  # before any process starts, so that no signal is missed
    reports: list[bytes] = []
    relay = StderrRelay(lambda lines: messages(lines, reports))
    mpirun = start(command, signal_at_death=signal.SIGTERM, stderr=relay, start_new_session=True)
    guard = _start_guard(mpirun.pid)
    relay.begin()
    try:
        watch(mpirun, stop, lambda: relay.has_final_message or bool(reports))
    except KeyboardInterrupt:
        ignore_stop()
        mpirun.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            mpirun.wait(HURRY_SECONDS)
        if mpirun.returncode not in (0, StopRequested.exit_code):
            raise
    finally:
        kill_session(mpirun.pid)
        with contextlib.suppress(ProcessLookupError, ChildProcessError):  # somebody has killed the guard
            os.kill(guard, signal.SIGKILL)
            os.waitpid(guard, 0)
        relay.end()
    return conclude(mpirun.returncode, stop, b"".join(reports), has_final_message=relay.has_final_message)


def watch(mpirun: subprocess.Popen[bytes], stop: StopRequest, has_failed: Callable[[], bool]) -> None:
    """Relay a request to stop until mpirun ends; kill an mpirun that hangs after `has_failed`.

    Without a message of a failure, an mpirun without local ranks may have ranks on other hosts.
    """
    is_sent = False
    repeat_at = 0.0
    last_busy = time.monotonic()
    for _ in polls([mpirun]):
        now = time.monotonic()
        if stop.signal_name and not is_sent:
            is_sent = any(mpi_ranks(mpirun.pid))  # False for ranks on other hosts: then the signal is repeated
            if is_sent or now > repeat_at:
                mpirun.send_signal(signal.SIGUSR1)
                repeat_at = now + REPEAT_SECONDS
        if not has_failed() or any(mpi_ranks(mpirun.pid)):
            last_busy = now
        elif now - last_busy > HANG_SECONDS:
            mpirun.kill()


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


def run_agent(command: Sequence[str]) -> int:
    """Run orted, and return as soon as its ranks have started; a forked process goes on watching orted.

    Returns:
        0 when the ranks have started; 1 when orted ended before, or started no rank in 60 s, which ends the job.
    """
    reading, writing = os.pipe()
    if os.fork():
        os.close(writing)
        return 0 if os.read(reading, 1) else 1
    os.setsid()
    relay = StderrRelay()
    foreground = [word for word in command if word != "--daemonize"]
    orted = start(
        foreground, signal_at_death=signal.SIGTERM, stdout=subprocess.DEVNULL, stderr=relay, start_new_session=True
    )
    relay.begin()
    if _await_ranks(orted):
        os.write(writing, b"1")
        os.close(writing)
        detach_standard_streams()  # ssh waits for the end of these streams
    addresses = mpirun_addresses(" ".join(command))
    while orted.poll() is None:
        if addresses and not any(mpi_ranks(orted.pid)) and not any(map(accepts_connection, addresses)):
            orted.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            orted.wait(HANG_SECONDS / 2)
    kill_session(orted.pid)
    return 0


def _await_ranks(orted: subprocess.Popen[bytes]) -> bool:
    """Return whether orted has started ranks; kill orted when it takes too long."""
    deadline = time.monotonic() + START_SECONDS
    for _ in polls([orted]):
        if any(mpi_ranks(orted.pid)):
            return True
        if time.monotonic() > deadline:
            say(
                "error",
                f"{os.uname().nodename} cannot connect to the mpirun that starts ranks here, or another host does not "
                f"answer mpirun; waited {START_SECONDS:g} s. Open the ports between the hosts, or name the network "
                "that joins them with --interface.",
            )
            orted.kill()
    return False


def mpirun_addresses(command: str) -> list[tuple[str, int]]:
    """Return where mpirun listens, from an argument of orted: "1576.0;tcp://10.0.0.1,10.1.0.1:38857"."""
    found = re.search(r"orte_hnp_uri [^ ]*?;tcp://([0-9.,]+):(\d+)", command)
    return [(address, int(found[2])) for address in found[1].split(",")] if found else []


if __name__ == "__main__":
    run = run_agent if sys.argv[2:3] == ["--daemonize"] else run_job
    sys.exit(exit_code_of(lambda: run(sys.argv[1:])))
