"""single_node.sh with a real mpirun and real signals: exit codes, final messages, and no process left behind.

mpirun takes seconds to end a job in which a rank failed. Jobs of one test run at the same time for that reason.
"""

from __future__ import annotations

import importlib.util
import os
import pty
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from run_files import distance, last_step, summary
from stand_in_ranks import Job, final_messages, make_training_tree, make_tree
from waiting import wait_until

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1)

# Leaves without a farewell, which mpirun calls an error whatever the exit code.
LEAVING_RANK = f"""#!{sys.executable}
import json, os, time
from pathlib import Path
from mpi4py import MPI

notes, rank = Path(os.environ["NOTES"]), MPI.COMM_WORLD.rank
(notes / f"{{rank}}.part").write_text(json.dumps({{"pid": os.getpid(), "parent": os.getppid()}}))
(notes / f"{{rank}}.part").rename(notes / f"{{rank}}.json")
while not (notes / "leave").exists():
    time.sleep(0.02)
os._exit(int(os.environ["CODE"]) if rank else 0)
"""


def test_the_job_exits_with_the_code_of_the_ranks_after_their_message(start):
    jobs = {
        (code, fails): start(CODE=str(code), FAILS=str(fails), WORK="0.5") for code, fails in ((1, 0), (3, 1), (42, 0))
    }
    for (code, fails), job in jobs.items():
        ended, _, err = job.end()
        assert ended == code
        assert final_messages(err)[0] == f"distrain: error: rank {fails}: failed with {code}"
        assert "mpirun" not in err  # its report would hide the message of the rank


def test_each_signal_to_the_script_makes_all_ranks_stop(start):
    jobs = {number: start() for number in STOP_SIGNALS}
    for number, job in jobs.items():
        job.ranks()
        job.process.send_signal(number)
    for number, job in jobs.items():
        code, _, err = job.end()
        assert (number, code) == (number, 42)
        assert final_messages(err) == ["distrain: stopped: rank 0: on SIGUSR1"]
        assert [job.received(rank)[0] for rank in (0, 1)] == ["SIGUSR1", "SIGUSR1"]


@pytest.mark.parametrize("wait_for_mpirun", [False, True])
def test_a_signal_while_the_job_starts_is_not_lost(start, wait_for_mpirun):
    jobs = [start(WORK="300") for _ in range(5 if wait_for_mpirun else 1)]
    waiting = set(jobs)

    def are_signalled() -> bool:
        for job in [*waiting]:
            if not wait_for_mpirun or any(map(is_listening_mpirun, job.processes())):
                job.process.terminate()
                waiting.remove(job)
        return not waiting

    wait_until(are_signalled)
    for job in jobs:
        code, _, err = job.end()
        assert code in (42, -signal.SIGTERM), err  # -SIGTERM: the shell had started no process yet


def is_listening_mpirun(pid: int) -> bool:
    """Return whether a process is an mpirun that handles SIGUSR1; before it has started ranks, it loses the signal."""
    try:
        if b"mpirun" not in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]:
            return False
        caught = re.search(r"SigCgt:\s+(\w+)", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return False
    return bool(caught and int(caught[1], 16) & 1 << signal.SIGUSR1 - 1)


def on_terminal(start: Callable[..., Job], **environment: str) -> tuple[Job, int]:
    """Start a job in the foreground of a new terminal; return the job and the other end of the terminal."""
    ours, theirs = pty.openpty()

    def take_terminal() -> None:
        os.setsid()
        os.close(os.open(os.ttyname(0), os.O_RDWR))  # the first terminal that a session's leader opens

    job = start(options={"stdin": theirs, "preexec_fn": take_terminal}, **environment)
    os.close(theirs)
    return job, ours


def test_control_c_in_a_terminal_saves_and_a_second_one_kills(start):
    saves, saving_terminal = on_terminal(start)
    ignores, ignoring_terminal = on_terminal(start, MODE="ignoring")
    for job, terminal in ((saves, saving_terminal), (ignores, ignoring_terminal)):
        job.ranks()
        os.write(terminal, b"\x03")
    wait_until(lambda: ignores.received(0))  # two signals that come together would be one
    assert ignores.process.poll() is None
    os.write(ignoring_terminal, b"\x03")
    assert saves.end()[0] == 42
    assert [saves.received(rank)[0] for rank in (0, 1)] == ["SIGUSR1", "SIGUSR1"]
    code, _, err = ignores.end()
    assert code == 130
    assert err.splitlines()[-1].startswith("distrain: interrupted: a second SIGINT killed the ranks.")
    for terminal in (saving_terminal, ignoring_terminal):
        os.close(terminal)


def test_lost_processes_are_named_and_leave_no_rank(start):
    """A rank without handlers is stopped, a rank is killed, and mpirun itself is killed."""
    unprepared, rank_killed, mpirun_killed = (start(MODE=mode) for mode in ("unprepared", "ignoring", "ignoring"))
    unprepared.ranks()
    unprepared.process.terminate()
    os.kill(rank_killed.ranks()[1]["pid"], signal.SIGKILL)
    os.kill(mpirun_killed.ranks()[0]["parent"], signal.SIGKILL)
    for job, expected, pattern in (
        (unprepared, 42, "SIGTERM came before training"),
        (rank_killed, 5, r"rank 1 on \S+ was killed by signal 9"),
        (mpirun_killed, 5, "mpirun was killed by signal 9"),
    ):
        code, _, err = job.end()
        assert code == expected, err
        (message,) = final_messages(err)
        assert re.search(pattern, message)


@pytest.mark.parametrize("code", [0, 3])
def test_ranks_that_mpirun_did_not_see_end_well_have_ended_well(code, start, tmp_path):
    job = start(tree=make_tree(tmp_path / "leaving", distrain=LEAVING_RANK), CODE=str(code))
    ranks = job.ranks()
    mpirun = ranks[0]["parent"]
    os.kill(mpirun, signal.SIGSTOP)
    (job.notes / "leave").touch()
    wait_until(lambda: all(is_ended(rank["pid"]) for rank in ranks))
    looks = sleeps(supervisor := parent(mpirun))
    wait_until(lambda: sleeps(supervisor) > looks + 2)
    os.kill(mpirun, signal.SIGCONT)
    ended, _, err = job.end()
    assert (ended == 0, err == "") == (code == 0, code == 0), (ended, err)


def test_a_lost_rank_is_started_again_as_often_as_allowed(start):
    """One job loses a rank once, one fails at each start, one has wrong data, and one is asked to stop."""
    loses, fails, wrong, stops = (
        start("--restarts", "2", **settings)
        for settings in ({"MODE": ""}, {"CODE": "5", "WORK": "0.2"}, {"CODE": "3", "WORK": "0.2"}, {})
    )
    lost = loses.ranks()[1]["pid"]
    folders = stops.folders()
    assert [folder.is_dir() for folder in folders] == [True, True]
    stops.process.terminate()
    os.kill(lost, signal.SIGKILL)
    wait_until(lambda: loses.ranks()[1]["pid"] != lost)
    loses.process.terminate()
    for job, code, restarts in ((loses, 42, 1), (fails, 5, 2), (wrong, 3, 0), (stops, 42, 0)):
        ended, _, err = job.end()
        assert (ended, err.count("from the last checkpoint.\n")) == (code, restarts), err
        assert [f"restart {n} of 2" in err for n in (1, 2)] == [n <= restarts for n in (1, 2)]
    assert not any(folder.exists() for folder in folders)


def test_no_rank_outlives_a_script_that_is_killed(start):
    jobs = [start(MODE=mode) for mode in ("", "ignoring")]
    for job in jobs:
        job.ranks()
        job.process.kill()
        job.process.wait()
    for job in jobs:
        wait_until(lambda job=job: job.processes() == set(), 30)  # without a signal they would run for 60 s


@pytest.mark.parametrize("strategy", ["horovod", "mpi"])
def test_a_stopped_training_goes_on_to_the_weights_of_one_process(strategy, long_reference, start, tmp_path):
    if strategy == "horovod" and importlib.util.find_spec("horovod") is None:
        pytest.skip("Horovod is not built: ./launch/install_horovod.sh")
    reference, run = long_reference, tmp_path / "a run"
    arguments = ["-n", "2", "--data", str(reference.data), "--run", str(run), *reference.settings]
    arguments += ["--strategy", strategy]
    settings = {
        "tree": make_training_tree(tmp_path / "training"),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "OMPI_MCA_odls_base_sigkill_timeout": "2",
    }
    job = start(*arguments, **settings)
    wait_until(lambda: last_step(run) > reference.steps_per_epoch, 240)
    job.process.terminate()
    code, out, err = job.end()
    assert code == 42, err
    assert len(final_messages(err)) == 1
    assert "\x1b" not in out
    assert reference.steps_per_epoch < last_step(run) < reference.epochs * reference.steps_per_epoch

    code, _, err = start(*arguments, **settings).end(timeout=240)
    assert code == 0, err
    assert summary(run)["num_replicas"] == 2
    assert distance(run, reference.run) <= 1e-5
    assert abs(summary(run)["validation_loss"] - summary(reference.run)["validation_loss"]) <= 1e-6


def is_ended(pid: int) -> bool:
    """Return whether a process has ended and was not reaped."""
    return status(pid, "State").startswith("Z")


def parent(pid: int) -> int:
    return int(status(pid, "PPid"))


def sleeps(pid: int) -> int:
    """Return how often a process has slept."""
    return int(status(pid, "voluntary_ctxt_switches"))


def status(pid: int, name: str) -> str:
    """Return a line of /proc/PID/status."""
    (found,) = re.findall(rf"^{name}:\s*(.*)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return found
