"""single_node.sh: real mpirun, real signals, and stand-in ranks that leave as they are told; then real training."""

from __future__ import annotations

import importlib.util
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAMS = Path(sys.executable).parent
BOUND = 60  # seconds in which a job ends, whatever happens to it

# Behaves like a rank: notes that it is there, works, and leaves with 42 where it is asked to stop.
RANK = f"""#!{sys.executable}
import json, os, signal, sys, time
from pathlib import Path

rank = int(os.environ["OMPI_COMM_WORLD_RANK"])
arguments = sys.argv[1:]
place = Path(os.environ["PLACE"])
heard = []
mode = os.environ.get("MODE", "")

def say(kind, what):
    if rank == 0 or kind == "error":
        print(f"distrain: {{kind}}: rank {{rank}}: {{what}}", file=sys.stderr, flush=True)

for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP):
    if mode == "deaf":
        signal.signal(number, signal.SIG_IGN)
    elif mode != "unprepared":
        signal.signal(number, lambda number, frame: heard.append(signal.Signals(number).name))
note = {{"pid": os.getpid(), "parent": os.getppid(), "arguments": arguments, "tty": os.environ.get("TTY_COMPATIBLE")}}
note["cores"] = sorted(os.sched_getaffinity(0))
(place / f"{{rank}}.part").write_text(json.dumps(note))
(place / f"{{rank}}.part").rename(place / f"{{rank}}.json")
end = time.monotonic() + float(os.environ.get("WORK", "60"))
while time.monotonic() < end and not heard:
    time.sleep(0.02)
(place / f"{{rank}}.heard").write_text(" ".join(heard))
if heard:
    say("stopped", f"on {{heard[0]}}")
    sys.exit(42)
code = int(os.environ.get("CODE", "0"))
if rank == int(os.environ.get("FAILS", "1")) and code:
    say("error", f"left with {{code}}")
    sys.exit(code)
if code:
    time.sleep(60)
print(f"rank {{rank}} is done")
"""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A checkout with a space in its name, whose `distrain` is the stand-in."""
    tree = tmp_path / "check out"
    shutil.copytree(REPOSITORY / "launch", tree / "launch")
    programs = tree / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "mpirun").symlink_to(PROGRAMS / "mpirun")
    for name, script in {"distrain": RANK, "python3": f'#!/bin/sh\nexec "{sys.executable}" "$@"\n'}.items():
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    (tmp_path / "place").mkdir()
    return tree


class Job:
    """A launch script, started; `processes` are all that carry its mark."""

    def __init__(self, tree: Path, *arguments: str, environment: dict[str, str], **settings: object) -> None:
        self.place = tree.parent / "place"
        self._mark = f"LAUNCH_MARK={uuid.uuid4()}".encode()
        name, value = self._mark.decode().split("=")
        everything = {**os.environ, name: value, "PLACE": str(self.place), **environment}
        command = [str(tree / "launch" / "single_node.sh"), *arguments]
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **settings}
        self.process = subprocess.Popen(command, env=everything, text=True, cwd=tree.parent, **pipes)

    def processes(self) -> set[int]:
        """Those that live."""
        found = set()
        for path in Path("/proc").glob("[0-9]*"):
            try:
                if self._mark in (path / "environ").read_bytes().split(b"\0") and int(path.name) != os.getpid():
                    found.add(int(path.name))
            except OSError:  # it has just ended
                continue
        return found

    def ranks(self, count: int = 2) -> list[dict]:
        """What the ranks noted when they had started."""
        notes = [self.place / f"{rank}.json" for rank in range(count)]
        wait_until(lambda: all(note.exists() for note in notes))
        return [json.loads(note.read_text()) for note in notes]

    def heard(self, rank: int) -> str:
        """The signals that a rank heard."""
        return (self.place / f"{rank}.heard").read_text()

    def end(self, timeout: float = BOUND) -> tuple[int, str, str]:
        """Exit code, standard output and standard error; nothing is left then."""
        out, err = self.process.communicate(timeout=timeout)
        assert self.processes() == set()
        return self.process.returncode, out, err


def wait_until(condition: Callable[[], bool], seconds: float = BOUND) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.fixture
def start(tree: Path) -> Iterator[Callable[..., Job]]:
    """`start(*arguments, CODE="3")` starts single_node.sh; what is left of it at the end is killed."""
    jobs = []

    def begin(*arguments: str, tree: Path = tree, settings: dict[str, object] | None = None, **environment: str) -> Job:
        jobs.append(Job(tree, *arguments, environment=environment, **(settings or {})))
        return jobs[-1]

    yield begin
    for job in jobs:
        for pid in job.processes():
            os.kill(pid, signal.SIGKILL)
        job.process.communicate()


def last_words(err: str) -> list[str]:
    """The lines that tell the end; the last line of all is one."""
    lines = err.splitlines()
    assert lines
    assert lines[-1].startswith("distrain: "), err
    return [line for line in lines if line.startswith(("distrain: error", "distrain: stopped"))]


def test_arguments_reach_every_rank_as_they_were_given(start):
    arguments = ["--data", "two words", "", "*", "$HOME", "--", "x'\"\\", "--run=räder"]
    job = start(*arguments[:3], "-n", "3", *arguments[3:], WORK="0")
    assert [note["arguments"] for note in job.ranks(3)] == [["train", *arguments]] * 3
    code, out, err = job.end()
    assert (code, err) == (0, "")
    assert sorted(out.splitlines()) == [f"rank {rank} is done" for rank in range(3)]


def test_without_gpus_there_are_two_ranks_and_no_live_bar_in_a_file(start):
    job = start(WORK="0")
    assert [note["tty"] for note in job.ranks(2)] == ["0", "0"]  # mpirun's own terminal is not taken for one
    assert job.end()[0] == 0
    assert len(list(job.place.glob("*.json"))) == 2


@pytest.mark.parametrize(
    ("visible", "count"), [(None, 3), ("0,2", 2), ("GPU-1-1,GPU-1-2,GPU-1-3", 3), ("1,-1,2", 1), ("", 2), ("-1", 2)]
)
def test_one_rank_for_each_visible_gpu(start, tree, visible, count):
    tool = tree.parent / "tools" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\nfor gpu in 0 1 2; do echo "GPU $gpu: made up (UUID: GPU-1-$gpu)"; done\n')
    tool.chmod(0o755)
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    job = start(WORK="0", PATH=f"{tool.parent}:{os.environ['PATH']}", **environment)
    assert job.end()[0] == 0
    notes = [json.loads(path.read_text()) for path in job.place.glob("*.json")]
    assert len(notes) == count
    if visible not in ("", "-1"):  # ranks on GPUs are not bound: which cores are near which GPU was not asked
        assert [note["cores"] for note in notes] == [sorted(os.sched_getaffinity(0))] * count


def num_cores() -> int:
    """Cores, not hardware threads."""
    told = subprocess.run(["lscpu", "--parse=SOCKET,CORE"], capture_output=True, text=True, check=True).stdout
    return len({line for line in told.splitlines() if not line.startswith("#")})


@pytest.mark.skipif(num_cores() < 2, reason="a machine of one core has none to share out")
def test_ranks_on_cpus_share_out_the_cores(start):
    job = start("-n", "2", WORK="0")
    one, two = (set(note["cores"]) for note in job.ranks(2))
    assert job.end()[0] == 0
    assert not one & two
    assert len(one) == len(two) == os.cpu_count() // num_cores() * (num_cores() // 2)


@pytest.mark.parametrize("count", [1, num_cores() + 1])
def test_one_rank_and_more_ranks_than_cores_are_free(start, count):
    job = start("-n", str(count), WORK="0")
    assert [note["cores"] for note in job.ranks(count)] == [sorted(os.sched_getaffinity(0))] * count
    assert job.end()[0] == 0


def test_cores_that_the_script_was_not_given_are_left_to_others(start):
    """Else two jobs that were given a core each, say, would both run on the first."""
    last = max(os.sched_getaffinity(0))
    job = start("-n", "2", WORK="0", settings={"preexec_fn": lambda: os.sched_setaffinity(0, {last})})
    assert [note["cores"] for note in job.ranks(2)] == [[last]] * 2
    assert job.end()[0] == 0


@pytest.mark.parametrize("arguments", [["-n"], ["-n", "0"], ["--data", "d", "-n", "two"], ["-n", "1000"]])
def test_a_wrong_number_of_ranks_is_refused(start, arguments):
    code, out, err = start(*arguments).end()
    assert (code, out) == (2, "")
    assert "it must be a number of processes" in err
    assert "Usage: launch/single_node.sh" in err


@pytest.mark.parametrize(("code", "fails"), [(1, 0), (3, 1), (42, 0)])
def test_the_exit_code_of_the_ranks_is_returned_and_their_word_is_the_last(start, code, fails):
    ended, _, err = start(CODE=str(code), FAILS=str(fails), WORK="0.5").end()
    assert ended == code
    assert last_words(err)[0] == f"distrain: error: rank {fails}: left with {code}"
    assert "mpirun" not in err  # its own account would bury this


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_to_the_script_asks_all_ranks_to_stop(start, number):
    job = start()
    job.ranks()
    job.process.send_signal(number)
    code, _, err = job.end()
    assert code == 42
    assert last_words(err) == ["distrain: stopped: rank 0: on SIGUSR1"]
    assert [job.heard(rank).split()[0] for rank in (0, 1)] == ["SIGUSR1", "SIGUSR1"]


def test_ranks_that_are_not_yet_prepared_to_stop_have_nothing_to_save(start):
    job = start(MODE="unprepared")
    job.ranks()
    job.process.terminate()
    code, _, err = job.end()
    assert code == 42
    assert len(last_words(err)) == 1
    assert "SIGTERM came before training" in err


@pytest.mark.parametrize("moment", ["script", *["mpirun"] * 5])
def test_a_signal_while_the_job_starts_is_not_lost(start, moment):
    job = start(WORK="300")
    wait_until(lambda: moment == "script" or any(map(is_listening_mpirun, job.processes())))
    job.process.terminate()
    code, _, err = job.end()
    assert code in (42, -signal.SIGTERM), err  # the latter before there was anything to be stopped


def is_listening_mpirun(pid: int) -> bool:
    """Whether a process is an mpirun that takes SIGUSR1; without ranks to pass it on to, it loses it."""
    try:
        if b"mpirun" not in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]:
            return False
        caught = re.search(r"SigCgt:\s+(\w+)", Path(f"/proc/{pid}/status").read_text())
    except OSError:
        return False
    return bool(caught and int(caught[1], 16) & 1 << signal.SIGUSR1 - 1)


def on_terminal(start, **environment: str) -> tuple[Job, int]:
    """A job on a terminal of its own, as its foreground, and the other end of the terminal."""
    ours, theirs = pty.openpty()

    def take_terminal() -> None:
        os.setsid()
        os.close(os.open(os.ttyname(0), os.O_RDWR))  # the first terminal that a session's leader opens

    settings = {"stdin": theirs, "preexec_fn": take_terminal}
    job = start(settings=settings, **environment)
    os.close(theirs)
    return job, ours


def test_control_c_in_a_terminal_lets_the_ranks_save(start):
    job, terminal = on_terminal(start)
    job.ranks()
    os.write(terminal, b"\x03")
    assert job.end()[0] == 42
    assert [job.heard(rank).split()[0] for rank in (0, 1)] == ["SIGUSR1", "SIGUSR1"]
    os.close(terminal)


def test_a_second_control_c_ends_ranks_that_do_not_listen(start):
    job, terminal = on_terminal(start, MODE="deaf")
    job.ranks()
    os.write(terminal, b"\x03")
    time.sleep(1)
    assert job.process.poll() is None
    os.write(terminal, b"\x03")
    code, _, err = job.end()
    assert code == 130
    assert err.splitlines()[-1].startswith("distrain: interrupted: a second SIGINT killed the ranks.")
    os.close(terminal)


def test_a_rank_that_is_killed_ends_the_job_and_is_named(start):
    job = start(MODE="deaf")
    os.kill(job.ranks()[1]["pid"], signal.SIGKILL)
    code, _, err = job.end()
    assert code == 5
    assert len(last_words(err)) == 1
    assert "rank 1 on " in last_words(err)[0]
    assert "was killed by signal 9" in last_words(err)[0]


def test_no_rank_outlives_an_mpirun_that_is_killed(start):
    job = start(MODE="deaf")
    os.kill(job.ranks()[0]["parent"], signal.SIGKILL)
    code, _, err = job.end()
    assert code == 5
    assert "mpirun was killed by signal 9" in last_words(err)[0]


@pytest.mark.parametrize("mode", ["", "deaf"])
def test_no_rank_outlives_a_script_that_is_killed(start, mode):
    job = start(MODE=mode)
    job.ranks()
    job.process.kill()
    job.process.wait()
    wait_until(lambda: job.processes() == set(), seconds=30)  # by themselves they would end after 60


def without(tree: Path, program: str) -> dict[str, object]:
    """Settings of a machine without that program in .venv, and with little on PATH."""
    (tree / ".venv" / "bin" / program).unlink()
    tools = tree.parent / "tools"
    tools.mkdir(exist_ok=True)
    for name in ("bash", "dirname", "cat", "id", "grep", "env"):
        (tools / name).symlink_to(shutil.which(name))
    return {"PATH": str(tools)}


@pytest.mark.parametrize(
    ("program", "cure"), [("distrain", "./launch/quickstart.sh"), ("mpirun", "pip install 'distrain[mpi]'")]
)
def test_a_missing_program_is_named_with_its_cure(start, tree, program, cure):
    code, out, err = start(**without(tree, program)).end()
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert program in err
    assert cure in err


def test_programs_on_path_serve_where_there_is_no_environment(start, tree):
    programs = tree / ".venv" / "bin"
    programs.rename(tree.parent / "installed")
    job = start(WORK="0", PATH=f"{tree.parent / 'installed'}:{os.environ['PATH']}")
    assert job.end()[0] == 0
    assert len(job.ranks()) == 2


def test_another_mpi_is_refused(start, tree):
    program = tree / ".venv" / "bin" / "mpirun"
    program.unlink()
    program.write_text("#!/bin/sh\necho 'HYDRA build details:'\n")
    program.chmod(0o755)
    code, _, err = start().end()
    assert code == 2
    assert "is not Open MPI's" in err


SETTINGS = ("--epochs", "12", "--patience", "0", "--global-batch-size", "64")  # 6 steps an epoch


@pytest.fixture(scope="module")
def uninterrupted(distrain, text, tmp_path_factory) -> Path:
    """A run in one process."""
    run = tmp_path_factory.mktemp("launch") / "one"
    done = distrain("train", "--data", text["ngram"], "--run", run, *SETTINGS, "--strategy", "single")
    assert done.returncode == 0, done.stderr
    return run


@pytest.mark.parametrize("strategy", ["horovod", "mpi"])
def test_a_training_that_is_asked_to_stop_goes_on_and_ends_as_if_nothing_had_been(
    strategy, text, uninterrupted, difference, start, tmp_path
):
    if strategy == "horovod" and importlib.util.find_spec("horovod") is None:
        pytest.skip("Horovod is not built: ./launch/install_horovod.sh")
    run = tmp_path / "a run"
    arguments = ["-n", "2", "--data", str(text["ngram"]), "--run", str(run), *SETTINGS, "--strategy", strategy]
    settings = {"tree": installed(tmp_path / "real"), "TF_CPP_MIN_LOG_LEVEL": "3"}
    job = start(*arguments, **settings)
    wait_until(lambda: any(event["step"] > 6 for event in events(run)), seconds=240)  # in the second epoch
    job.process.terminate()
    code, out, err = job.end()
    assert code == 42, err
    assert len(last_words(err)) == 1
    assert "\x1b" not in out
    assert 6 < events(run)[-1]["step"] < 72

    code, _, err = start(*arguments, **settings).end(timeout=240)
    assert code == 0, err
    assert json.loads((run / "summary.json").read_text())["num_replicas"] == 2
    apart = difference(uninterrupted, run)
    assert apart.weights <= 1e-5
    assert apart.validation_loss <= 1e-6


def installed(tree: Path) -> Path:
    """A checkout whose environment is the one of these tests."""
    shutil.copytree(REPOSITORY / "launch", tree / "launch")
    (tree / ".venv").symlink_to(PROGRAMS.parent)
    return tree


def events(run: Path) -> list[dict]:
    """What the run has noted so far."""
    path = run / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]
