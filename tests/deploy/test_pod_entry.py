"""The entry of a pod: real processes and signals, and stand-in ranks that exit as the test asks."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from free_ports import free_port
from waiting import BOUND, wait_until

from distrain.launchers.processes import handles

ROOT = Path(__file__).parents[2]

# Python runs this module before all others. In a rank it stands in for `distrain train`.
STAND_IN = """
import json, os, signal, sys, time
from pathlib import Path

def run(rank, notes, plan):
    received = []
    with (notes / f"{rank}.starts").open("a") as starts:
        print(os.environ["DISTRAIN_RENDEZVOUS"], file=starts)
    if len((notes / f"{rank}.starts").read_text().splitlines()) > 1:
        plan = {**plan, **plan.get("again", {})}
    (notes / f"{rank}.began").write_text(str(os.getpid()))
    while plan.get("starts_with") and not Path(plan["starts_with"]).exists():
        time.sleep(0.01)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, lambda number, frame: received.append(signal.Signals(number).name))
    if plan.get("leaves_orphan") and os.fork() == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    note = {"pid": os.getpid(), "parent": os.getppid(), "arguments": sys.orig_argv[1:], "group": os.getpgrp()}
    (notes / f"{rank}.part").write_text(json.dumps(note))
    (notes / f"{rank}.part").rename(notes / f"{rank}.json")
    print(f"progress of {rank}", flush=True)
    after = plan.get("after")
    while not received and not (after and Path(after).exists()):
        time.sleep(0.01)
    (notes / f"{rank}.received").write_text(" ".join(received))
    if plan.get("says"):
        print(plan["says"], file=sys.stderr, flush=True)
    if plan.get("signal"):
        os.kill(os.getpid(), plan["signal"])
    return 42 if received else plan["code"]

if "DISTRAIN_LOCAL_RANK" in os.environ:
    rank = int(os.environ["DISTRAIN_LOCAL_RANK"])
    code = run(rank, Path(os.environ["NOTES"]), json.loads(os.environ["PLANS"])[rank])
    sys.stdout.flush()
    os._exit(code)
"""
JOINED = {"JOB_COMPLETION_INDEX": "0", "DISTRAIN_NUM_PODS": "1", "DISTRAIN_RENDEZVOUS": "127.0.0.1:29400"}


class Started:
    """A started entry of a pod, with stand-in ranks.

    Args:
        folder: Folder of the test; ranks write their notes there.
        plans: What each rank does.
        before: Words before the command.
        program: Words after Python.
        variables: Variables that differ from `JOINED`.
    """

    def __init__(
        self,
        folder: Path,
        plans: list[dict[str, Any]],
        *,
        before: tuple[str, ...],
        program: tuple[str, ...],
        **variables: str,
    ) -> None:
        (folder / "stand_in").mkdir(parents=True)
        (folder / "stand_in" / "sitecustomize.py").write_text(STAND_IN)
        self.folder = folder
        left_out = ("DISTRAIN_", "HOROVOD_", "OMPI_", "PMI_", "SLURM_", "JOB_COMPLETION_INDEX")
        env = {name: value for name, value in os.environ.items() if not name.startswith(left_out)}
        env |= {"PYTHONPATH": f"{folder / 'stand_in'}:{ROOT}", "NOTES": str(folder), "PLANS": json.dumps(plans)}
        env |= {"TMPDIR": str(folder)}  # a pod has its own
        self.process = subprocess.Popen(
            [*before, sys.executable, *program, "--data", str(folder / "data"), "--run", str(folder / "run")],
            env={**env, **JOINED, "DISTRAIN_RANKS_PER_POD": str(len(plans)), **variables},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._num_ranks = len(plans)

    def ranks(self) -> list[dict[str, Any]]:
        """Wait until the ranks have started, and return their notes; a rank notes process ids as it sees them."""
        notes = [self.folder / f"{rank}.json" for rank in range(self._num_ranks)]
        wait_until(lambda: all(note.exists() for note in notes))
        return [json.loads(note.read_text()) for note in notes]

    def received(self, rank: int) -> str:
        """Return the signals that a rank has handled."""
        return (self.folder / f"{rank}.received").read_text()

    def starts(self, rank: int) -> list[str]:
        """Return the rendezvous of each start of a rank."""
        return (self.folder / f"{rank}.starts").read_text().splitlines()

    def allow(self, name: str) -> None:
        """Let a rank go on that waits for this file."""
        (self.folder / name).touch()

    def end(self) -> tuple[int, str, list[str]]:
        """Wait for the end; return exit code, standard output and lines of standard error."""
        out, err = self.process.communicate(timeout=BOUND)
        return self.process.returncode, out, err.splitlines()


def is_alive(pid: int) -> bool:
    """Return whether a process runs; an ended one that nobody has reaped does not."""
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """`start([plan of each rank])` starts a pod; the end of the test kills what still runs."""
    started: list[Started] = []

    def begin(plans, *, before=(), program=("-m", "distrain.pod"), folder=tmp_path, **variables) -> Started:
        started.append(Started(folder, plans, before=before, program=program, **variables))
        return started[-1]

    yield begin
    for pod in started:
        for path in pod.folder.glob("*.began"):
            if not pod.process.args[0].endswith("unshare") and is_alive(int(path.read_text())):
                os.kill(int(path.read_text()), signal.SIGKILL)
        pod.process.kill()
        pod.process.communicate()


DONE = {"code": 0, "after": "go"}


def fails(code: int, says: str = "", **more: object) -> dict:
    return {"code": code, "after": "go", "says": says, **more}


@pytest.mark.parametrize(
    ("plans", "code", "last"),
    [
        ([DONE, DONE], 0, ""),
        ([fails(3, "distrain: error: rank 0: a shard is damaged"), fails(3)], 3, "rank 0: a shard is damaged"),
        ([fails(5), fails(0, signal=9)], 5, "rank 1 was killed by signal 9 (Killed). Perhaps it ran out of memory"),
    ],
)
def test_the_exit_code_and_the_final_message(start, plans, code, last):
    pod = start(plans)
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
    assert err[-1].startswith("distrain: warning: pod 0: rank 1 was killed, because it still ran long after")
    assert not is_alive(pid)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_reaches_every_rank_as_soon_as_it_handles_signals(start, name):
    """An early signal kills no rank. The whole process group gets it here, as by Ctrl-C."""
    pod = start([{"code": 0}, {"code": 0, "starts_with": "listen"}])
    wait_until(lambda: (pod.folder / "0.json").exists() and (pod.folder / "1.began").exists())
    os.killpg(pod.process.pid, signal.Signals[name])
    wait_until(lambda: (pod.folder / "0.received").exists())
    assert is_alive(int((pod.folder / "1.began").read_text()))
    pod.allow("listen")
    code, _, err = pod.end()
    assert (code, pod.received(0), pod.received(1)) == (42, name, name)
    assert err[-1].startswith("distrain: stopped: pod 0: ")


def test_a_second_interrupt_kills_the_ranks(start):
    pod = start([{"code": 0, "starts_with": "never"}, {"code": 0, "starts_with": "never"}])
    wait_until(lambda: len(list(pod.folder.glob("*.began"))) == 2)
    pids = [int(path.read_text()) for path in pod.folder.glob("*.began")]
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
    """Return the words that make a command process 1 of a new namespace."""
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed: apt-get install util-linux")
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("process namespaces need root with CAP_SYS_ADMIN")
    return command


LOST = fails(5, "distrain: error: rank 1 was lost", again={"code": 0})


@pytest.mark.parametrize(
    ("plans", "code", "num_starts"),
    [
        ([LOST, fails(0, signal=9, again={"signal": None})], 0, 2),
        ([fails(42, "distrain: stopped: rank 1", again={"code": 0}), fails(42, again={"code": 0})], 0, 2),
        ([fails(1, "a traceback", again={"code": 0}), fails(5, again={"code": 0})], 0, 2),
        ([fails(5), fails(0, signal=9)], 5, 3),
        ([fails(5), fails(3, "distrain: error: rank 1: a shard is damaged")], 3, 1),
        ([fails(6, "distrain: error: rank 0: the loss is nan"), fails(6)], 6, 1),
    ],
)
def test_ranks_that_were_lost_or_stopped_elsewhere_start_again(start, plans, code, num_starts):
    pod = start(plans, DISTRAIN_RESTARTS="2")
    pod.allow("go")
    returned, _, err = pod.end()
    assert returned == code
    assert [len(pod.starts(rank)) for rank in (0, 1)] == [num_starts] * 2
    said = [line for line in err if "warning" in line]
    about = "distrain: warning: pod 0: restart {} of 2, from the last checkpoint."
    assert said == [about.format(restart) for restart in range(1, num_starts)]


def test_a_pod_that_is_told_to_stop_starts_nothing_again(start):
    pod = start([{"code": 0}, {"code": 0}], DISTRAIN_RESTARTS="2")
    pod.ranks()
    pod.process.send_signal(signal.SIGTERM)
    code, _, err = pod.end()
    assert code == 42
    assert not any("restart" in line for line in err)
    assert len(pod.starts(0)) == 1


def start_two(start, folder, plans, restarts):
    """Start two pods, which wait only a second for a rank once the run is over elsewhere; return them and the port."""
    port = free_port()
    program = "import sys; from distrain.launchers import pod; pod.OVER_SECONDS = 1; sys.exit(pod.main(sys.argv[1:]))"
    variables = {"DISTRAIN_NUM_PODS": "2", "DISTRAIN_RENDEZVOUS": f"127.0.0.1:{port}", "DISTRAIN_RESTARTS": restarts}
    pods = [
        start(plan, program=("-c", program), folder=folder / str(i), JOB_COMPLETION_INDEX=str(i), **variables)
        for i, plan in enumerate(plans)
    ]
    return pods, port


def test_a_rank_that_hangs_is_killed_as_soon_as_the_run_is_over_elsewhere(start, tmp_path):
    """Pod 0 has lost its rank; the rank of pod 1 ignores all. Both pods keep their place, and go on together."""
    plans = [LOST], [{"code": 0, "again": {"after": "go"}}]
    pods, port = start_two(start, tmp_path, plans, restarts="1")
    hung = pods[1].ranks()[0]["pid"]
    pods[0].ranks()
    os.kill(hung, signal.SIGSTOP)
    pods[1].allow("go")
    pods[0].allow("go")
    wait_until(lambda: not is_alive(hung))
    ended = [pod.end() for pod in pods]
    assert [code for code, *_ in ended] == [0, 0], ended
    assert [pod.starts(0) for pod in pods] == [[f"127.0.0.1:{port + 1}"] * 2] * 2
    said = "distrain: error: pod 1: rank 1 did not end and was killed, though the run is over in the other pods."
    assert any(line.startswith(said) for line in ended[1][2])


def test_a_rank_that_hangs_is_killed_when_another_pod_leaves_for_good(start, tmp_path):
    pods, _ = start_two(start, tmp_path, ([{"code": 0}], [fails(5, "distrain: error: rank 1 was lost")]), restarts="0")
    hung = pods[0].ranks()[0]["pid"]
    pods[1].ranks()
    os.kill(hung, signal.SIGSTOP)
    pods[1].allow("go")
    wait_until(lambda: not is_alive(hung))
    assert [pod.end()[0] for pod in pods] == [5, 5]


def test_as_process_1_it_handles_signals_and_reaps(start):
    pod = start([{"code": 0, "leaves_orphan": True}, {"code": 0}], before=tuple(unshare()))
    assert [note["parent"] for note in pod.ranks()] == [1, 1]
    children = Path(f"/proc/{pod.process.pid}/task/{pod.process.pid}/children")
    first = int(children.read_text())
    own = Path(f"/proc/{first}/task/{first}/children")
    wait_until(lambda: len(own.read_text().split()) == 2)  # two ranks: the orphan of the first has been reaped
    os.kill(first, signal.SIGTERM)  # from outside, as a kubelet does
    code, _, err = pod.end()
    assert (code, pod.received(0), pod.received(1)) == (42, "SIGTERM", "SIGTERM")
    assert err[-1].startswith("distrain: stopped: pod 0: ")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--epochs", "0"], "distrain: error: pod 0: --epochs is 0, but it must be at least 1."),
        (["--no-such"], "distrain: error: unrecognized arguments: --no-such"),
    ],
)
def test_a_wrong_command_is_refused_with_one_message_before_any_rank_starts(start, more, message):
    pod = start([DONE, DONE], program=("-m", "distrain.pod", *more), DISTRAIN_NUM_PODS="3")
    code, out, err = pod.end()
    assert (code, out) == (2, "")
    assert message in err[-1]
    assert sum("error:" in line for line in err) == 1
    assert not list(pod.folder.glob("*.began"))


def test_one_rank_alone_needs_no_rendezvous_and_may_use_any_strategy(start):
    pod = start([DONE], program=("-m", "distrain.pod", "--strategy", "mirrored"), DISTRAIN_RENDEZVOUS="")
    pod.ranks()
    pod.allow("go")
    assert pod.end() == (0, "progress of 0\n", [])


@pytest.mark.parametrize("index", ["0", "1"])
def test_a_drain_while_other_pods_are_missing(start, index):
    pod = start([DONE], JOB_COMPLETION_INDEX=index, DISTRAIN_NUM_PODS="2", DISTRAIN_RENDEZVOUS="nowhere.invalid:29400")
    wait_until(lambda: handles(pod.process.pid, signal.SIGUSR1))
    pod.process.send_signal(signal.SIGTERM)
    code, _, err = pod.end()
    assert code == 42
    said = "Stopped before all pods had started: nothing was trained. Start again to train."
    assert err == [f"distrain: stopped: pod {index}: {said}"]


def test_no_tensorflow_in_this_process():
    program = "import sys, distrain.launchers.pod, distrain.cli.main; sys.exit('tensorflow' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
