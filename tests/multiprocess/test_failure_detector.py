"""Real processes that are killed, stopped, cut off and fail: the whole job ends with one exit code and one message.

Tests wait for events, not for a time. A process that misses its deadline shows as a timeout of the test.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from threads_as_processes import FunctionGroup

from distrain.cluster.failure_detector import detect_failures

pytestmark = pytest.mark.timeout(60)

HERE = Path(__file__).parent
PROGRAM = HERE / "programs" / "detector_rank.py"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(HERE.parents[1]), "PYTHONUNBUFFERED": ""}
HOST = socket.gethostname()
CURE = "Start the same command again: training goes on from the last checkpoint.\n"


class Job:
    """The ranks of a run, each in a process of its own."""

    def __init__(self, folder, size, silence, prefixes):
        self.folder = folder
        self.ranks = []
        for rank in range(size):
            command = [*prefixes.get(rank, ()), sys.executable, PROGRAM, rank, size, folder, silence]
            with (folder / f"stderr-{rank}").open("wb") as stderr:
                process = subprocess.Popen(
                    list(map(str, command)), stdout=subprocess.PIPE, stderr=stderr, text=True, env=ENVIRONMENT
                )
            self.ranks.append(process)

    def expect(self, rank, line):
        """Wait for the next line of a rank, which must be `line`."""
        assert self.ranks[rank].stdout.readline() == f"{line}\n", self.stderr(rank)

    def command(self, rank, name, number=0):
        """Send a command to a rank; the program lists the commands."""
        tmp_path = self.folder / f"part-{rank}"
        tmp_path.write_text(f"{name} {number}")
        tmp_path.rename(self.folder / f"command-{rank}")

    def all_at_step(self, step):
        for rank in range(len(self.ranks)):
            self.command(rank, "step", step)
        for rank in range(len(self.ranks)):
            self.expect(rank, "did step")

    def send(self, number, *ranks):
        for rank in ranks:
            self.ranks[rank].send_signal(number)

    def codes(self):
        """Wait for the end of all ranks; return their exit codes."""
        return [process.wait() for process in self.ranks]

    def stderr(self, rank):
        return (self.folder / f"stderr-{rank}").read_text()

    def errors(self):
        """Return the standard error of each rank."""
        return [self.stderr(rank) for rank in range(len(self.ranks))]

    def end(self):
        for process in self.ranks:
            process.kill()
            process.wait()
            process.stdout.close()


@pytest.fixture
def start(tmp_path):
    """`start(size)` starts a job and waits until the failure detector runs on all ranks."""
    jobs = []

    def start_job(size=3, *, silence=1.5, prefixes=None):
        folder = tmp_path / str(len(jobs))
        folder.mkdir()
        job = Job(folder, size, silence, prefixes or {})
        jobs.append(job)
        for rank in range(size):
            job.expect(rank, "detecting")
        return job

    yield start_job
    for job in jobs:
        job.end()


def lost(rank, where, why):
    return f"distrain: error: rank {rank} ({HOST}) was lost {where}: {why}. {CURE}"


def silent_for(seconds):
    return f"no sign of life for {seconds} s; it is stopped or its network is down"


@pytest.mark.parametrize(("step", "where"), [(17, "after step 17"), (None, "before its first step")])
def test_a_killed_rank_ends_all(start, step, where):
    job = start()
    if step is not None:
        job.all_at_step(step)
    job.send(signal.SIGKILL, 2)
    assert job.codes() == [5, 5, -9]
    assert job.errors() == [lost(2, where, "its process ended"), "", ""]


def test_of_several_killed_ranks_one_is_named(start):
    job = start(4)
    job.send(signal.SIGKILL, 1, 3)
    assert job.codes() == [5, -9, 5, -9]
    assert job.errors()[0].count("was lost") == 1
    assert job.errors()[1:] == ["", "", ""]


def test_a_stopped_rank_ends_all_and_itself_once_it_goes_on(start):
    job = start()
    job.all_at_step(3)
    job.send(signal.SIGSTOP, 1)
    assert [job.ranks[0].wait(), job.ranks[2].wait()] == [5, 5]
    assert job.ranks[1].poll() is None
    job.send(signal.SIGCONT, 1)
    assert job.codes() == [5, 5, 5]
    assert job.errors() == [lost(1, "after step 3", silent_for(2)), "", ""]


def test_if_rank_0_is_killed_the_next_rank_prints(start):
    job = start()
    job.all_at_step(8)
    job.send(signal.SIGKILL, 0)
    assert job.ranks[1].wait() == 5
    job.send(signal.SIGKILL, 2)  # as a launcher does when the first rank has exited
    assert job.codes() == [-9, 5, -9]
    assert job.errors() == ["", lost(0, "after step 8", "its process ended"), ""]


def test_if_rank_0_is_stopped_all_exit_and_rank_0_too_once_it_goes_on(start):
    job = start()
    job.send(signal.SIGSTOP, 0)
    assert [job.ranks[1].wait(), job.ranks[2].wait()] == [5, 5]  # without a launcher, too
    job.send(signal.SIGCONT, 0)
    assert job.codes() == [5, 5, 5]
    message = lost(0, "before its first step", silent_for(2.5))
    assert job.errors() == ["", message, message]


def test_a_job_that_is_stopped_as_a_whole_goes_on(start):
    job = start()
    job.send(signal.SIGSTOP, 0, 1, 2)
    threading.Event().wait(3)  # longer than the silence
    job.send(signal.SIGCONT, 0, 1, 2)
    for rank in range(3):
        job.command(rank, "end")
    assert job.codes() == [0, 0, 0]
    assert job.errors() == ["", "", ""]


def test_a_busy_main_thread_is_no_silence(start):
    job = start()
    for rank, name in enumerate(("sleep", "sleep", "busy")):
        job.command(rank, name, 3)  # longer than the silence
    for rank, name in enumerate(("sleep", "sleep", "busy")):
        job.expect(rank, f"did {name}")
        job.command(rank, "end")
    assert job.codes() == [0, 0, 0]
    assert job.errors() == ["", "", ""]


@pytest.mark.parametrize("rank", [0, 1])
def test_a_failure_reaches_all_ranks(start, rank):
    job = start()
    job.command(rank, "fail", 3)
    assert job.codes() == [3, 3, 3]
    assert "".join(job.errors()) == f"rank {rank} failed by itself\n"


def test_of_simultaneous_failures_one_is_printed(start):
    job = start()
    for rank in range(3):
        job.command(rank, "fail", 6)
    assert job.codes() == [6, 6, 6]
    assert len("".join(job.errors()).splitlines()) == 1


def test_a_failed_rank_that_never_exits_is_ended(start):
    job = start()
    job.command(1, "hang", 4)
    assert job.codes() == [4, 4, 4]
    assert job.errors() == ["", "rank 1 failed by itself\n", ""]


@pytest.mark.parametrize(("rank", "command", "code"), [(0, "data 0", 3), (2, "data 0", 3), (1, "exit 9", 9)])
def test_an_error_that_leaves_the_context_reaches_all(start, rank, command, code):
    job = start()
    job.all_at_step(4)
    job.command(rank, *command.split())
    assert job.codes() == [code] * 3
    note = f"This was rank {rank} of 3 after step 4; all other ranks exit too."
    printed = f"distrain: error: shard 7 is damaged {note}\n" if code == 3 else ""
    assert job.errors()[rank] == printed
    assert "".join(job.errors()) == printed


def test_a_traceback_reaches_all_and_names_rank_and_step(start):
    job = start()
    job.all_at_step(4)
    job.command(1, "value")
    assert job.codes() == [1, 1, 1]
    assert job.errors()[::2] == ["", ""]
    end = "ValueError: a defect\nThis was rank 1 of 3 after step 4; all other ranks exit too.\n"
    assert job.errors()[1].endswith(end)


def test_an_error_that_follows_a_loss_is_not_printed(start):
    """Collectives raise errors when a peer is lost, often before the verdict of rank 0."""
    job = start()
    job.send(signal.SIGKILL, 2)
    job.command(0, "value")
    job.command(1, "value")
    assert job.codes() == [5, 5, -9]
    assert job.errors() == [lost(2, "before its first step", "its process ended"), "", ""]


def test_a_main_thread_that_blocks_on_a_full_pipe_does_not_keep_its_process(start):
    job = start()
    for rank in (0, 1):
        job.command(rank, "write", 10**5)  # a pipe holds less, so that the main thread blocks with the stream's lock
        job.expect(rank, "writes")
    job.send(signal.SIGKILL, 2)
    assert job.codes() == [5, 5, -9]
    assert job.errors() == [lost(2, "before its first step", "its process ended"), "", ""]


@pytest.mark.parametrize("seconds", [(0, 0.5, 1), (1, 0, 0.5)])
def test_ranks_end_in_any_order(start, seconds):
    job = start()
    for rank, delay in enumerate(seconds):
        job.command(rank, "end", delay)
    assert job.codes() == [0, 0, 0]
    assert job.errors() == ["", "", ""]


def test_a_request_to_stop_is_no_failure(start):
    job = start()
    job.command(0, "stop")
    assert job.ranks[0].wait() == 42
    for rank in (1, 2):
        job.command(rank, "end", 0.5)
    assert job.codes() == [42, 0, 0]


def test_a_single_process_exchanges_nothing():
    def all_gather_bytes(content):
        raise AssertionError("nothing is exchanged")

    before = threading.active_count()
    with detect_failures(FunctionGroup(0, 1, all_gather_bytes)) as detector:
        detector.at_step(1)
        detector.fail(3)
        assert threading.active_count() == before


@pytest.fixture
def two_networks():
    """Yield the names of two connected network namespaces, and a function that cuts the connection."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("network namespaces need root and the ip command")
    names = [f"heartbeat{os.getpid()}{side}" for side in "ab"]

    def ip(*words, check=True):
        return subprocess.run(["ip", *words], capture_output=True, text=True, check=check)

    try:
        made = ip("netns", "add", names[0], check=False)
        if made.returncode:
            pytest.skip(f"network namespaces cannot be made here: {made.stderr.strip()}")
        ip("netns", "add", names[1])
        ip("-n", names[0], "link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", names[1])
        for number, name in enumerate(names, 1):
            ip("-n", name, "link", "set", "lo", "up")
            ip("-n", name, "address", "add", f"10.199.77.{number}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
        yield *names, lambda: ip("-n", names[0], "link", "set", "cable", "down")
    finally:
        for name in names:
            ip("netns", "delete", name, check=False)


def test_a_cut_network_ends_both_sides(start, two_networks):
    near, far, cut = two_networks
    prefixes = {rank: ("ip", "netns", "exec", far if rank == 1 else near) for rank in range(3)}
    job = start(prefixes=prefixes)
    job.all_at_step(21)
    cut()
    assert job.codes() == [5, 5, 5]
    sides = [lost(1, "after step 21", silent_for(2)), lost(0, "after step 21", silent_for(2.5)), ""]
    assert job.errors() == sides
