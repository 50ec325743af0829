"""What goes wrong on one rank ends the whole job quickly and clearly; a request to stop to one rank stops all alike.

Real launchers, real processes, real signals. The programs that are launched are programs/failure_*.py.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from launching import end, needs_horovod, needs_mpi, run_ranks, start_ranks

from distrain.data.dataset_index import open_dataset
from distrain.data.dataset_writer import DatasetWriter
from distrain.data.shuffle import epoch_order
from distrain.runs.checkpoint import list_checkpoints, load_checkpoint

PROGRAMS = Path(__file__).parent / "programs"
BOUND_SECONDS = 60  # from a failure to the end of the last process
LONGEST_SECONDS = 240  # of a launch
NUM_ROWS = 331
GLOBAL_BATCH = 66  # 6 steps an epoch; the last of one example, so that all ranks but one have nothing to do
STEPS_PER_EPOCH = 6

pytestmark = pytest.mark.timeout(2 * LONGEST_SECONDS)


def event(rank: int, occasion: str, number: int, what: str) -> dict[str, Any]:
    """What happens to a rank; see programs/failure_events.py."""
    return {"rank": rank, "occasion": occasion, "number": number, "what": what}


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prepared text, whose test rows are the training rows: evaluation takes several steps."""
    folder = tmp_path_factory.mktemp("text")
    text = folder / "train.csv"
    for words in (
        ["synth", "--out", folder, "--rows", NUM_ROWS, "--seed", 3],
        ["prepare", "--train", text, "--test", text, "--out", folder / "data", "--vectorizer", "ngram", "--top-k", 500],
    ):
        subprocess.run([sys.executable, "-m", "distrain", *map(str, words)], check=True, capture_output=True)
    return folder / "data"


# ----------------------------------------------------------------------------------------------------------------------
# Requests to stop, and what else all ranks agree on: many runs in one launch.

STOPS = {
    "while it starts": ([event(1, "start", 0, "SIGTERM")], 1, "SIGTERM to rank 1"),
    "in a step": ([event(0, "step", 3, "SIGINT")], 3, "SIGINT to rank 0"),
    "while the chief saves slowly": (
        [event(0, "save", 4, "pause"), event(1, "step", 5, "SIGTERM")],
        5,
        "SIGTERM to rank 1",
    ),
    "in evaluation": ([event(1, "evaluation", 0, "SIGUSR1")], 6, "SIGUSR1 to rank 1"),
    "to two ranks": (
        [event(0, "step", 9, "SIGTERM"), event(1, "step", 9, "SIGUSR1")],
        9,
        "SIGTERM to rank 0, SIGUSR1 to rank 1",
    ),
    "to the chief while it saves": ([event(0, "save", 16, "SIGTERM")], 17, "SIGTERM to rank 0"),
    "in the last evaluation": ([event(0, "evaluation", 2, "SIGINT")], 18, "SIGINT to rank 0"),
}
NOT_FINITE_POSITION = 3 * GLOBAL_BATCH + 36  # step 4; rank 1 of 2 and of 3 reads it


@pytest.fixture(scope="session")
def not_finite(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same data with one value that is infinite."""
    folder = tmp_path_factory.mktemp("not_finite") / "data"
    folder.mkdir()
    dataset = open_dataset(data)
    writer = DatasetWriter(folder, kind=dataset.kind, num_features=dataset.num_features, classes=dataset.classes)
    for name, part in dataset.parts.items():
        rows = part.read(0, part.num_rows)
        if name == "train":
            order = epoch_order(part.num_rows, seed=0, epoch=0)
            (example,) = order.examples(range(NOT_FINITE_POSITION, NOT_FINITE_POSITION + 1))
            rows = rows._replace(values=np.array(rows.values))
            rows.values[rows.row_splits[example]] = np.inf
        writer.write(name, [rows])
    writer.finish(vectorizer=None)
    return folder


@dataclass(frozen=True)
class Agreed:
    """How the attempts of each run of one launch ended, per rank: `attempts[name][rank][number]`."""

    attempts: dict[str, list[list[dict[str, Any]]]]

    def same(self, run: str, number: int) -> dict[str, Any]:
        """How an attempt ended, which must be the same on all ranks."""
        first, *others = [of_rank[number] for of_rank in self.attempts[run]]
        assert all(other == first for other in others), (first, others)
        return first


@pytest.fixture(
    scope="session",
    params=[
        pytest.param(("mpirun", "mpi", 2), marks=needs_mpi, id="mpirun, mpi, 2"),
        pytest.param(("horovodrun --gloo", "horovod", 3), marks=needs_horovod, id="horovodrun --gloo, 3"),
    ],
)
def agreed(
    request: pytest.FixtureRequest, data: Path, not_finite: Path, tmp_path_factory: pytest.TempPathFactory
) -> Agreed:
    """All runs that end by agreement, under one launcher."""
    launcher, strategy, num_ranks = request.param
    folder = tmp_path_factory.mktemp("agreed")
    for rank in range(num_ranks):
        shutil.copytree(data, folder / f"data.{rank}")
    settings = {
        "data": str(data),
        "strategy": strategy,
        "global_batch_size": GLOBAL_BATCH,
        "epochs": 3,
        "patience": 0,
        "checkpoint_every": 4,
        "jit_compile": False,
    }
    each_step = {**settings, "checkpoint_every": 1}
    runs = [
        {"name": "whole", "settings": settings, "attempts": [[]]},
        {"name": "stopped", "settings": settings, "attempts": [*(events for events, _, _ in STOPS.values()), []]},
        {
            "name": "not finite",
            "settings": {**each_step, "data": str(not_finite), "jit_compile": True, "dropout": 0.0},
            "attempts": [[]],
        },
        {
            "name": "damaged",
            "settings": {**each_step, "data": str(folder / "data.{rank}")},
            "attempts": [[event(1, "step", STEPS_PER_EPOCH, "damage")]],  # all batches of the epoch are there by then
        },
    ]
    command = [sys.executable, str(PROGRAMS / "failure_stops.py"), str(folder), json.dumps(runs)]
    done = run_ranks(launcher, num_ranks, command, timeout=LONGEST_SECONDS)
    assert done.returncode == 0, done.stderr
    names = [run["name"] for run in runs]
    return Agreed(
        {
            name: [json.loads((folder / f"{name}.{rank}.json").read_text()) for rank in range(num_ranks)]
            for name in names
        }
    )


@pytest.mark.parametrize("occasion", STOPS)
def test_a_request_to_stop_to_any_rank_stops_all_at_one_step_which_is_saved(agreed, occasion):
    _, step, by = STOPS[occasion]
    ended = agreed.same("stopped", list(STOPS).index(occasion))
    assert ended["code"] == 42
    assert ended["message"].startswith(f"Stopped by {by} at step {step}, with everything saved.")
    assert ended["reporting_rank"] == 0  # so one rank prints it
    assert (ended["checkpoint"], ended["global_step"]) == (f"step-{step:08d}", step)
    epoch_is_trained = step % STEPS_PER_EPOCH == 0
    assert ended["position"] == (NUM_ROWS if epoch_is_trained else step % STEPS_PER_EPOCH * GLOBAL_BATCH)
    assert ended["holds_checkpoint"]  # on every rank, bitwise


def test_training_that_was_stopped_again_and_again_ends_with_the_same_weights(agreed):
    whole, stopped = agreed.same("whole", 0), agreed.same("stopped", len(STOPS))
    assert (whole["code"], stopped["code"]) == (0, 0)
    assert stopped["global_step"] == whole["global_step"] == 3 * STEPS_PER_EPOCH
    assert stopped["digest"] == whole["digest"]


def test_a_loss_that_is_not_finite_on_one_rank_stops_all_before_the_update(agreed):
    ended = agreed.same("not finite", 0)
    assert ended["code"] == 6
    assert re.search(r"at step 4 \(epoch 1\) on rank 1\.", ended["message"])
    assert ended["reporting_rank"] == 0
    assert ended["checkpoint"] == "step-00000003"
    assert ended["holds_checkpoint"]  # the weights of step 3, on every rank


def test_data_that_is_damaged_on_one_rank_while_training_stops_all_before_the_update(agreed):
    ended = agreed.same("damaged", 0)
    assert ended["code"] == 3
    assert re.match(r"step 7: .*data\.1/train-00000\.columns\.npy is damaged", ended["message"])
    assert ended["reporting_rank"] == 1
    assert ended["checkpoint"] == "step-00000006"
    assert ended["holds_checkpoint"]


# ----------------------------------------------------------------------------------------------------------------------
# `distrain train` itself, once per launch.


@dataclass(frozen=True)
class Ended:
    """How a launch ended.

    Attributes:
        code: of the launcher.
        stderr: of launcher and ranks.
        seconds: from what happened to the end of the last process.
        codes: how each rank ended, where that was noted: minus the signal's number for a signal.
        left: processes that were still there after 60 s.
        run: the run directory.
    """

    code: int
    stderr: str
    seconds: float
    codes: dict[int, int]
    left: list[int]
    run: Path

    def messages(self) -> list[str]:
        """What distrain said at its end."""
        return re.findall(r"^(?:\[\d+\]<stderr>:)?(distrain: (?:error|stopped): .*)$", self.stderr, re.MULTILINE)

    def checkpoints(self) -> list[int]:
        """The steps that are saved, whole."""
        return [load_checkpoint(path).state["global_step"] for path in list_checkpoints(self.run / "checkpoints")]


def launch(
    launcher: str,
    strategy: str,
    num_ranks: int,
    events: list[dict[str, Any]],
    folder: Path,
    data: str,
    *,
    send: signal.Signals | None = None,
    to_group: bool = False,
    notes_codes: bool = True,
) -> Ended:
    """Train until it ends.

    Args:
        launcher: one of `launching.LAUNCHERS`.
        strategy: "mpi" or "horovod".
        num_ranks: more than cores, if need be.
        events: what happens to the ranks.
        folder: for the run directory and notes.
        data: its path; "{rank}" in it becomes each rank's number.
        send: a signal to the launcher once something has happened to a rank.
        to_group: to its whole process group instead, as Ctrl-C does.
        notes_codes: put a process above each rank that notes how it ends.
    """
    mark = uuid4().hex
    folder.mkdir(exist_ok=True)
    for path in folder.glob("*.[0-9]"):
        path.unlink()
    options = {
        "--data": data,
        "--run": str(folder / "run"),
        "--strategy": strategy,
        "--global-batch-size": str(GLOBAL_BATCH),
        "--epochs": "3",
        "--patience": "0",
        "--checkpoint-every": "2",
    }
    words = [word for option in options.items() for word in option]
    program = [sys.executable, str(PROGRAMS / "failure_train.py"), str(folder), json.dumps(events)]
    env = {"DISTRAIN_TEST_MARK": mark, **({"DISTRAIN_TEST_CODES": "1"} if notes_codes else {})}
    process = start_ranks(launcher, num_ranks, [*program, *words, "--no-jit"], env=env)

    def happened() -> list[float]:
        return [float(path.read_text() or "inf") for path in folder.glob("event.*")]

    try:
        while send and not happened() and process.poll() is None:
            time.sleep(0.02)
        if send and process.poll() is None:
            (os.killpg if to_group else os.kill)(process.pid, send)
        _, stderr = process.communicate(timeout=LONGEST_SECONDS)
        since = min(happened(), default=time.monotonic())
        while processes_of(mark) and time.monotonic() < since + BOUND_SECONDS:
            time.sleep(0.1)
        seconds = time.monotonic() - since
        left = processes_of(mark)
    finally:
        end(process)
        for pid in processes_of(mark):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    codes = {int(path.suffix[1:]): int(path.read_text()) for path in folder.glob("code.*")}
    return Ended(process.returncode, stderr, seconds, codes, left, folder / "run")


def processes_of(mark: str) -> list[int]:
    """The processes that have this mark in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark.encode() in (path / "environ").read_bytes():
                found.append(int(path.name))
    return found


def check_failed(ended: Ended, launcher: str, code: int, message: str) -> None:
    """A job ends as a failure should: soon, with a code, with one message, with nothing left."""
    assert ended.seconds < BOUND_SECONDS
    assert ended.code == (code if launcher == "mpirun" else 1)  # horovodrun makes 1 of every failure
    assert len(ended.messages()) == 1, ended.stderr
    assert re.match(message, ended.messages()[0]), ended.messages()
    assert ended.left == []


LOST = (
    r"distrain: error: rank {rank} \(.+\) was lost after step 4: {reason}\. "
    r"Start the same command again: training goes on from the last checkpoint\."
)


@pytest.mark.parametrize(
    ("launcher", "strategy", "num_ranks", "lost"),
    [
        pytest.param("mpirun", "mpi", 3, 1, marks=needs_mpi),
        pytest.param("mpirun", "horovod", 2, 0, marks=needs_horovod),
        pytest.param("horovodrun --gloo", "horovod", 2, 1, marks=needs_horovod),
        pytest.param("horovodrun --gloo", "horovod", 3, 0, marks=needs_horovod),
    ],
)
def test_a_rank_that_is_killed_ends_the_job(tmp_path, data, launcher, strategy, num_ranks, lost):
    ended = launch(launcher, strategy, num_ranks, [event(lost, "step", 5, "SIGKILL")], tmp_path, str(data))
    check_failed(ended, launcher, 128 + signal.SIGKILL, LOST.format(rank=lost, reason="its process ended"))
    assert ended.codes.pop(lost) == -signal.SIGKILL
    assert set(ended.codes.values()) == {5}
    assert ended.checkpoints() == [2, 4]


@pytest.fixture(scope="module")
def stopped_meanwhile(tmp_path_factory, data):
    """Jobs in which a rank is stopped, by launcher: under way while other tests run, as it takes half a minute."""

    def run(launcher: str, strategy: str) -> Ended:
        folder = tmp_path_factory.mktemp(strategy)
        return launch(launcher, strategy, 2, [event(1, "step", 5, "SIGSTOP")], folder, str(data))

    with ThreadPoolExecutor() as pool:
        ways = {"mpirun": "mpi", "horovodrun --gloo": "horovod"}
        yield {launcher: pool.submit(run, launcher, strategy) for launcher, strategy in ways.items()}


@needs_mpi
def test_an_error_on_one_rank_ends_the_job_with_its_code(stopped_meanwhile, tmp_path, data):
    ended = launch("mpirun", "mpi", 2, [event(1, "step", 5, "error")], tmp_path, str(data))
    check_failed(ended, "mpirun", 2, r"distrain: error: rank 1: A made-up error\. .*\b1\b.* after step 4\b")
    assert ended.codes == {0: 2, 1: 2}


@needs_horovod
def test_a_defect_on_one_rank_ends_the_job_with_a_traceback(tmp_path, data):
    ended = launch("mpirun", "horovod", 2, [event(0, "step", 5, "exception")], tmp_path, str(data))
    assert ended.seconds < BOUND_SECONDS
    assert ended.code == 1
    assert ended.codes == {0: 1, 1: 1}
    assert ended.left == []
    assert ended.stderr.count("Traceback") == ended.stderr.count("RuntimeError: A made-up exception.") == 1
    assert re.search(r"^This was rank 0 of 2 after step 4; all other ranks exit too\.$", ended.stderr, re.M)


@needs_mpi
def test_data_that_is_damaged_on_one_rank_is_an_error_at_start(tmp_path, data):
    for rank in range(2):
        shutil.copytree(data, tmp_path / f"data.{rank}")
    path = tmp_path / "data.1" / "train-00000.columns.npy"
    path.write_bytes(path.read_bytes()[:-4] + b"\1\0\0\0")
    ended = launch("mpirun", "mpi", 2, [], tmp_path / "job", str(tmp_path / "data.{rank}"))
    check_failed(ended, "mpirun", 3, rf"distrain: error: rank 1: {path} was changed")
    assert ended.codes == {0: 3, 1: 3}


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """A file system of 2 MiB in `folder`."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"no file system can be mounted here, which takes root's rights: {mounted.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@needs_mpi
def test_a_full_disk_ends_the_job_and_leaves_the_checkpoints_before(tmp_path, data):
    with small_disk(tmp_path / "run"):  # of the launch
        ended = launch("mpirun", "mpi", 2, [event(0, "step", 5, "fill")], tmp_path, str(data))
        check_failed(ended, "mpirun", 4, r"distrain: error: rank 0: .*No space left on device")
        assert ended.codes == {0: 4, 1: 4}
        assert ended.checkpoints() == [2, 4]


def check_stopped(ended: Ended, code: int, by: str) -> int:
    """A job ends as it should when asked to stop: with one message, everything saved; gives the step."""
    assert ended.seconds < BOUND_SECONDS
    assert ended.code == code, ended.stderr
    (message,) = ended.messages()
    found = re.fullmatch(
        rf"distrain: stopped: rank 0: Stopped by {by} at step (\d+), with everything saved\. "
        r"Run the same command again to go on\.",
        message,
    )
    assert found, message
    assert ended.checkpoints()[-1] == int(found[1])
    assert ended.left == []
    return int(found[1])


@pytest.mark.parametrize(
    ("launcher", "strategy", "happens", "step", "by"),
    [
        pytest.param("mpirun", "horovod", event(1, "step", 5, "SIGTERM"), 5, "SIGTERM to rank 1", marks=needs_horovod),
        pytest.param(
            "horovodrun --gloo",
            "horovod",
            event(1, "evaluation", 0, "SIGINT"),
            6,
            "SIGINT to rank 1",
            marks=needs_horovod,
        ),
    ],
)
def test_all_ranks_leave_with_42(tmp_path, data, launcher, strategy, happens, step, by):
    ended = launch(launcher, strategy, 2, [happens], tmp_path, str(data))
    assert check_stopped(ended, 42 if launcher == "mpirun" else 1, by) == step
    assert ended.codes == {0: 42, 1: 42}


@needs_mpi
def test_mpirun_passes_sigusr1_on_and_the_same_command_goes_on(tmp_path, data):
    events = [event(0, "step", 5, "pause")]
    ended = launch("mpirun", "mpi", 2, events, tmp_path, str(data), send=signal.SIGUSR1)
    step = check_stopped(ended, 42, "SIGUSR1 to rank 0, SIGUSR1 to rank 1")
    assert ended.codes == {0: 42, 1: 42}
    assert step < 3 * STEPS_PER_EPOCH

    again = launch("mpirun", "mpi", 2, [], tmp_path, str(data))
    assert again.code == 0, again.stderr
    assert again.codes == {0: 0, 1: 0}
    summary = json.loads((again.run / "summary.json").read_text())
    assert (summary["global_steps"], summary["examples_trained"]) == (3 * STEPS_PER_EPOCH, 3 * NUM_ROWS)


@needs_horovod
@pytest.mark.parametrize("ctrl_c", [False, True], ids=["SIGTERM", "Ctrl-C"])
def test_horovodrun_turns_a_request_to_stop_into_sigterm(tmp_path, data, ctrl_c):
    """It gives its ranks 5 s, and returns 1 whatever they return."""
    number = signal.SIGINT if ctrl_c else signal.SIGTERM
    words = ("horovodrun --gloo", "horovod", 2, [event(0, "step", 5, "pause")], tmp_path, str(data))
    ended = launch(*words, send=number, to_group=ctrl_c, notes_codes=False)
    check_stopped(ended, 1, "SIGTERM to rank 0, SIGTERM to rank 1")


@needs_mpi
@needs_horovod
def test_a_rank_that_is_stopped_ends_the_job(stopped_meanwhile):
    for launcher, job in stopped_meanwhile.items():
        ended = job.result()
        reason = r"no sign of life for 31 s; it is stopped or its network is down"
        check_failed(ended, launcher, 5, LOST.format(rank=1, reason=reason))
        assert ended.codes[0] == 5
