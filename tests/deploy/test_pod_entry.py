"""The entry of a pod: real processes and signals, and stand-in ranks that leave as they are told."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BOUND = 60  # seconds in which anything here ends

# Python runs it before all else: in a rank it stands in for `distrain train`.
STAND_IN = """
import json, os, signal, sys, time
from pathlib import Path

def run(rank, place, told):
    heard = []
    (place / f"{rank}.began").write_text(str(os.getpid()))
    while told.get("starts_with") and not Path(told["starts_with"]).exists():
        time.sleep(0.01)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, lambda number, frame: heard.append(signal.Signals(number).name))
    if told.get("leaves_orphan") and os.fork() == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    note = {"pid": os.getpid(), "parent": os.getppid(), "arguments": sys.orig_argv[1:], "group": os.getpgrp()}
    (place / f"{rank}.part").write_text(json.dumps(note))
    (place / f"{rank}.part").rename(place / f"{rank}.json")
    print(f"progress of {rank}", flush=True)
    after = told.get("after")
    while not heard and not (after and Path(after).exists()):
        time.sleep(0.01)
    (place / f"{rank}.heard").write_text(" ".join(heard))
    if told.get("says"):
        print(told["says"], file=sys.stderr, flush=True)
    if told.get("signal"):
        os.kill(os.getpid(), told["signal"])
    return 42 if heard else told["code"]

if "DISTRAIN_LOCAL_RANK" in os.environ:
    rank = int(os.environ["DISTRAIN_LOCAL_RANK"])
    code = run(rank, Path(os.environ["PLACE"]), json.loads(os.environ["TOLD"])[rank])
    sys.stdout.flush()
    os._exit(code)
"""
JOINED = {"JOB_COMPLETION_INDEX": "0", "DISTRAIN_NUM_PODS": "1", "DISTRAIN_RENDEZVOUS": "127.0.0.1:29400"}


class Started:
    """A pod's entry that was started, with two stand-in ranks."""

    def __init__(self, place: Path, told: list[dict], *, before: tuple[str, ...], program: list[str], **variables: str):
        (place / "stand_in").mkdir()
        (place / "stand_in" / "sitecustomize.py").write_text(STAND_IN)
        self.place = place
        left_out = ("DISTRAIN_", "HOROVOD_", "OMPI_", "PMI_", "SLURM_", "JOB_COMPLETION_INDEX")
        env = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        env |= {"PYTHONPATH": f"{place / 'stand_in'}:{ROOT}", "PLACE": str(place), "TOLD": json.dumps(told)}
        self.process = subprocess.Popen(
            [*before, sys.executable, *program, "--data", str(place / "data"), "--run", str(place / "run")],
            env={**env, **JOINED, "DISTRAIN_RANKS_PER_POD": str(len(told)), **variables},
            cwd=place,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._num_ranks = len(told)

    def ranks(self) -> list[dict]:
        """What the ranks noted when they had started; process numbers are those that they see."""
        notes = [self.place / f"{rank}.json" for rank in range(self._num_ranks)]
        wait_until(lambda: all(note.exists() for note in notes))
        return [json.loads(note.read_text()) for note in notes]

    def heard(self, rank: int) -> str:
        """The signals that a rank heard."""
        return (self.place / f"{rank}.heard").read_text()

    def allow(self, name: str) -> None:
        """Let happen what waits for it."""
        (self.place / name).touch()

    def end(self) -> tuple[int, str, list[str]]:
        """Exit code, standard output and lines of standard error."""
        out, err = self.process.communicate(timeout=BOUND)
        return self.process.returncode, out, err.splitlines()


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def is_alive(pid: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """`start([what each rank shall do])`; what still runs after the test is killed."""
    started = []

    def begin(told, *, before=(), program=("-m", "distrain.pod"), **variables) -> Started:
        started.append(Started(tmp_path, told, before=before, program=list(program), **variables))
        return started[-1]

    yield begin
    for pod in started:
        for path in tmp_path.glob("*.began"):
            if not pod.process.args[0].endswith("unshare") and is_alive(int(path.read_text())):
                os.kill(int(path.read_text()), signal.SIGKILL)
        pod.process.kill()
        pod.process.communicate()


DONE = {"code": 0, "after": "go"}


def fails(code: int, says: str = "", **more: object) -> dict:
    return {"code": code, "after": "go", "says": says, **more}


@pytest.mark.parametrize(
    ("told", "code", "last"),
    [
        ([DONE, DONE], 0, ""),
        ([fails(3, "distrain: error: rank 0: a shard is damaged"), fails(3)], 3, "rank 0: a shard is damaged"),
        ([fails(5), fails(6, "distrain: error: rank 1: not finite")], 6, "rank 1"),
        ([fails(2, "distrain train: error: unrecognized arguments"), fails(2)], 2, "unrecognized arguments"),
        (
            [fails(4), fails(4)],
            4,
            "distrain: error: pod 0: its ranks exited with code 4; the messages above",
        ),
        ([fails(42), fails(42)], 42, "distrain: stopped: pod 0: a rank in another pod asked all ranks to stop"),
        (
            [fails(1, "ZeroDivisionError"), fails(5)],
            1,
            "distrain: error: pod 0: its ranks exited with code 1; the mess",
        ),
        ([fails(5), fails(0, signal=9)], 5, "rank 1 was killed by signal 9 (Killed). Perhaps it ran out of memory"),
        ([fails(0, signal=6), fails(5)], 5, "rank 0 was killed by signal 6 (Aborted). Start again: training goes on"),
        ([fails(0, signal=40), fails(42)], 42, "distrain: stopped"),
    ],
)
def test_the_exit_code_and_the_last_word(start, told, code, last):
    pod = start(told)
    for rank, note in enumerate(pod.ranks()):
        assert note["arguments"][:4] == ["-m", "distrain", "train", "--data"], rank
        assert note["group"] == note["pid"]
    pod.allow("go")
    returned, out, err = pod.end()
    assert returned == code
    assert sorted(out.splitlines()) == ["progress of 0", "progress of 1"]
    assert last in (err or [""])[-1]
    assert sum(line.startswith("distrain") for line in err) == (code != 0)


def test_a_rank_that_stays_when_another_has_failed_is_killed(start):
    program = (
        "-c",
        "import sys; from distrain.launchers import pod; pod.ENDING_SECONDS = 0.5; sys.exit(pod.main(sys.argv[1:]))",
    )
    pod = start([fails(3, "distrain: error: rank 0: no"), {"code": 0}], program=program)
    pid = pod.ranks()[1]["pid"]
    pod.allow("go")
    code, _, err = pod.end()
    assert code == 3
    assert err[-1].startswith("distrain: warning: pod 0: rank 1 was killed, because it still ran 0.5 s after")
    assert not is_alive(pid)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_reaches_every_rank_as_soon_as_it_listens(start, name):
    """Nobody is killed by it, however early it comes; the pod's own group may get it too, as by Ctrl-C."""
    pod = start([{"code": 0}, {"code": 0, "starts_with": "listen"}])
    wait_until(lambda: (pod.place / "0.json").exists() and (pod.place / "1.began").exists())
    os.killpg(pod.process.pid, signal.Signals[name])
    wait_until(lambda: (pod.place / "0.heard").exists())
    assert is_alive(int((pod.place / "1.began").read_text()))
    pod.allow("listen")
    code, _, err = pod.end()
    assert (code, pod.heard(0), pod.heard(1)) == (42, name, name)
    assert err[-1].startswith("distrain: stopped: pod 0: ")


def test_a_second_interrupt_kills_the_ranks(start):
    pod = start([{"code": 0, "starts_with": "never"}, {"code": 0, "starts_with": "never"}])
    wait_until(lambda: len(list(pod.place.glob("*.began"))) == 2)
    pids = [int(path.read_text()) for path in pod.place.glob("*.began")]
    while pod.process.poll() is None:  # two that come together are one
        pod.process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            pod.process.wait(1)
    code, _, err = pod.end()
    assert code == 130
    assert err[-1].startswith("distrain: interrupted: pod 0: a second SIGINT killed the ranks.")
    wait_until(lambda: not any(map(is_alive, pids)))


def test_no_rank_outlives_it(start):
    pod = start([DONE, DONE])
    pids = [note["pid"] for note in pod.ranks()]
    pod.process.kill()
    wait_until(lambda: not any(map(is_alive, pids)))


def unshare() -> list[str]:
    """A command that makes the next one process number 1 of a namespace of its own."""
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed: apt-get install util-linux")
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("process namespaces need root with CAP_SYS_ADMIN")
    return command


def test_as_process_number_1_it_hears_signals_and_reaps(start):
    pod = start([{"code": 0, "leaves_orphan": True}, {"code": 0}], before=tuple(unshare()))
    assert [note["parent"] for note in pod.ranks()] == [1, 1]
    children = Path(f"/proc/{pod.process.pid}/task/{pod.process.pid}/children")
    first = int(children.read_text())
    own = Path(f"/proc/{first}/task/{first}/children")
    wait_until(lambda: len(own.read_text().split()) == 2)  # the ranks; what one of them left has been reaped
    os.kill(first, signal.SIGTERM)  # from outside, as a kubelet does
    code, _, err = pod.end()
    assert (code, pod.heard(0), pod.heard(1)) == (42, "SIGTERM", "SIGTERM")
    assert err[-1].startswith("distrain: stopped: pod 0: ")


@pytest.mark.parametrize(
    ("variables", "more", "words"),
    [
        ({"DISTRAIN_NUM_PODS": ""}, [], "error: pod 0: this is no pod of an Indexed Job: JOB_COMPLETION_INDEX and"),
        ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}, [], "or another launcher's variables are"),
        ({"JOB_COMPLETION_INDEX": ""}, [], "error: JOB_COMPLETION_INDEX is not set"),
        ({"JOB_COMPLETION_INDEX": "3"}, [], "JOB_COMPLETION_INDEX=3, but DISTRAIN_NUM_PODS=3"),
        ({"DISTRAIN_RENDEZVOUS": "here"}, [], "DISTRAIN_RENDEZVOUS='here' is not HOST:PORT"),
        ({"DISTRAIN_RENDEZVOUS_SECONDS": "soon"}, [], "DISTRAIN_RENDEZVOUS_SECONDS='soon'"),
        ({}, ["--strategy", "mpi"], "--strategy mpi cannot connect 6 ranks in an Indexed Job"),
        ({}, ["--strategy", "mirrored"], "--strategy mirrored cannot connect 6 ranks"),
        ({}, ["--epochs", "0"], "--epochs is 0, but it must be at least 1."),
        ({}, ["--no-such"], "distrain: error: unrecognized arguments: --no-such"),
    ],
)
def test_a_wrong_command_is_told_once_and_before_anything_waits(start, variables, more, words):
    pytest.importorskip("horovod")
    given = {"DISTRAIN_NUM_PODS": "3", **variables}
    pod = start([DONE, DONE], program=("-m", "distrain.pod", *more), **given)
    code, out, err = pod.end()
    assert (code, out) == (2, "")
    assert words in err[-1]
    assert sum("error:" in line for line in err) == 1
    assert not list(pod.place.glob("*.began"))


def test_one_rank_alone_needs_no_rendezvous_and_any_strategy_does(start):
    pod = start([DONE], program=("-m", "distrain.pod", "--strategy", "mirrored"), DISTRAIN_RENDEZVOUS="")
    pod.ranks()
    pod.allow("go")
    assert pod.end() == (0, "progress of 0\n", [])


@pytest.mark.parametrize("index", ["0", "1"])
def test_a_drain_while_other_pods_are_missing(start, index):
    pod = start([DONE], JOB_COMPLETION_INDEX=index, DISTRAIN_NUM_PODS="2", DISTRAIN_RENDEZVOUS="nowhere.invalid:29400")
    wait_until(lambda: listens(pod.process.pid))
    pod.process.send_signal(signal.SIGTERM)
    code, _, err = pod.end()
    assert code == 42
    said = "Stopped before all pods had started: nothing was trained. Start again to train."
    assert err == [f"distrain: stopped: pod {index}: {said}"]


def listens(pid: int) -> bool:
    caught = Path(f"/proc/{pid}/status").read_text().partition("SigCgt:")[2].split()[0]
    return bool(int(caught, 16) >> (signal.SIGUSR1 - 1) & 1)


def test_no_tensorflow_in_this_process():
    program = "import sys, distrain.launchers.pod, distrain.cli.main; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
