"""What mpirun and the ranks write, and the exit code and final message that follow; no rank is started."""

from __future__ import annotations

import itertools
import signal

import pytest

from distrain.cluster.signals import StopRequest
from distrain.launchers import mpi_agent, mpirun
from distrain.launchers.mpi_agent import mpirun_addresses
from distrain.launchers.mpirun import conclude, messages, watch
from distrain.launchers.supervisor import HANG_SECONDS, exit_code_of

RULE = b"-" * 74 + b"\n"
KILLED = (
    RULE
    + b"mpirun noticed that process rank 1 with PID 0 on node n1 exited on signal 9 (Killed).\n"
    + b"\n"
    + RULE.rstrip()
    + b"\n"
)
NO_HOST = RULE + b"ssh: Could not resolve hostname n7\n" + RULE


def test_reports_on_ended_ranks_are_held_back_and_all_other_messages_are_shown():
    reports: list[bytes] = []
    lines = [b"before\n", *KILLED.splitlines(True), b"mpirun: Forwarding signal 10 to job\n"]
    lines += [*NO_HOST.splitlines(True), b"after\n", RULE, b"cut off\n"]
    shown = list(messages(iter(lines), reports))
    assert shown == [b"before\n", NO_HOST, b"after\n", RULE + b"cut off\n"]
    assert reports == [KILLED]


@pytest.mark.parametrize(
    ("code", "asked_by", "reports", "ended", "message"),
    [
        (0, None, b"", 0, ""),
        (42, "SIGTERM", b"", 42, "error: the ranks ended with exit code 42; the messages above say why."),
        (-signal.SIGUSR1, "SIGTERM", b"", 42, "stopped: SIGTERM came before training."),
        (128 + signal.SIGUSR1, "SIGHUP", b"", 42, "stopped: SIGHUP came before training."),
        (-signal.SIGUSR1, None, b"", 5, "error: mpirun was killed by signal 10, and its ranks with it."),
        (137, None, KILLED, 5, "error: rank 1 on n1 was killed by signal 9. Start again"),
        (137, None, b"", 5, "error: a rank or a host was lost. Start again"),
        (3, None, b"", 3, "error: the ranks ended with exit code 3;"),
    ],
)
@pytest.mark.parametrize("has_final_message", [False, True])
def test_the_exit_code_and_the_final_message(code, asked_by, reports, ended, message, has_final_message, capfd):
    stop = StopRequest()
    stop.signal_name = asked_by
    found = exit_code_of(lambda: conclude(code, stop, reports, has_final_message=has_final_message))
    written = capfd.readouterr().err
    assert found == ended
    if has_final_message or not message:
        assert written == ""  # the ranks have said what happened
    else:
        assert written.startswith(reports.decode() + f"distrain: {message}")


def test_the_addresses_of_mpirun_are_in_the_command_of_its_agent():
    command = "orted --daemonize -mca ess env -mca orte_hnp_uri 1576.0;tcp://10.0.0.1,10.1.0.1:38857 -mca plm rsh"
    assert mpirun_addresses(command) == [("10.0.0.1", 38857), ("10.1.0.1", 38857)]
    assert mpirun_addresses("orted --daemonize") == []


class FakeMpirun:
    """Notes the number of the poll at which mpirun gets each signal."""

    pid = 7

    def __init__(self) -> None:
        self.polls = 0
        self.signals: list[tuple[int, signal.Signals]] = []

    def send_signal(self, number: signal.Signals) -> None:
        self.signals.append((self.polls, number))

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self) -> None:
        pass


@pytest.fixture
def watched(monkeypatch) -> FakeMpirun:
    """A fake mpirun that is polled once a second for 30 s; its ranks run from poll 3 to poll 15."""
    fake = FakeMpirun()

    def polls(processes: list[FakeMpirun]):
        for fake.polls in range(1, 31):
            yield

    monkeypatch.setattr(mpirun, "polls", polls)
    monkeypatch.setattr(mpirun, "mpi_ranks", lambda pid: [8] if 3 <= fake.polls <= 15 else [])
    monkeypatch.setattr(mpirun.time, "monotonic", itertools.count(100.0).__next__)
    return fake


def test_a_request_to_stop_is_repeated_when_the_ranks_have_started(watched):
    """A signal before the start of the ranks is lost, but ranks on other hosts may have started."""
    watch(watched, StopRequest("SIGTERM"), lambda: False)
    assert watched.signals == [(1, signal.SIGUSR1), (3, signal.SIGUSR1)]


def test_an_mpirun_that_outlives_failed_ranks_is_killed(watched):
    watch(watched, StopRequest(), lambda: watched.polls >= 14)
    assert watched.signals == [(15 + HANG_SECONDS + 1, signal.SIGKILL)]


def test_an_mpirun_that_outlives_its_ranks_on_one_host_is_killed_without_a_failure(watched):
    assert watch(watched, StopRequest(), lambda: False) is None
    assert watched.signals == []  # it may have ranks on other hosts
    assert watch(watched, StopRequest(), lambda: False, num_ranks=1) == 0
    assert watched.signals == [(15 + HANG_SECONDS + 1, signal.SIGKILL)]


def test_strangers_are_evicted_while_an_agent_waits_for_its_ranks(monkeypatch):
    found, evicted = iter([[], [], [8]]), []
    monkeypatch.setattr(mpi_agent, "polls", lambda processes: range(3))
    monkeypatch.setattr(mpi_agent, "mpi_ranks", lambda pid: next(found))
    assert mpi_agent._await_ranks(FakeMpirun(), lambda: evicted.append(1))
    assert len(evicted) == 3
