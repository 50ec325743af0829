"""Ends that all ranks agree on: requests to stop, a loss that is not finite, damaged data; many runs in one launch.

The launched program is programs/failure_stops.py.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from launching import needs_horovod, needs_mpi, run_ranks
from preloaded import preloaded_python
from training_jobs import GLOBAL_BATCH, MAX_SECONDS, NUM_ROWS, PROGRAMS, STEPS_PER_EPOCH, event

from distrain.data.prepared.dataset_index import open_dataset
from distrain.data.prepared.dataset_writer import DatasetWriter
from distrain.data.shuffle import epoch_order

pytestmark = pytest.mark.timeout(2 * MAX_SECONDS)

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
    "to the chief while it saves": ([event(0, "save", 12, "SIGTERM")], (13, 14), "SIGTERM to rank 0"),
    "in the last evaluation": ([event(0, "evaluation", 2, "SIGINT")], 18, "SIGINT to rank 0"),
}
NOT_FINITE_POSITION = 3 * GLOBAL_BATCH + 36  # step 4; rank 1 of 2 and of 3 reads it


@pytest.fixture(scope="session")
def not_finite(long_evaluation: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same data with one infinite value."""
    folder = tmp_path_factory.mktemp("not_finite") / "data"
    folder.mkdir()
    dataset = open_dataset(long_evaluation)
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
class AgreedEnds:
    """How the runs of one launch ended.

    Attributes:
        attempts: by the name of a run, for each rank the ends of the run's attempts.
    """

    attempts: dict[str, list[list[dict[str, Any]]]]

    def end_of(self, run: str, number: int) -> dict[str, Any]:
        """Return how an attempt ended, after a check that all ranks ended alike."""
        first, *others = [of_rank[number] for of_rank in self.attempts[run]]
        if first["code"] == 6:  # rank 0 alone looks at the examples, because rank 0 prints the message
            others = [{**other, "message": first["message"]} for other in others]
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
    request: pytest.FixtureRequest, long_evaluation: Path, not_finite: Path, tmp_path_factory: pytest.TempPathFactory
) -> AgreedEnds:
    """All runs of one launch."""
    launcher, strategy, num_ranks = request.param
    folder = tmp_path_factory.mktemp("agreed")
    for rank in range(num_ranks):
        shutil.copytree(long_evaluation, folder / f"data.{rank}")
    settings = {
        "data": str(long_evaluation),
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
            "attempts": [[event(1, "step", STEPS_PER_EPOCH, "damage")]],  # the first epoch is read
        },
    ]
    command = [*preloaded_python(), str(PROGRAMS / "failure_stops.py"), str(folder), json.dumps(runs)]
    done = run_ranks(launcher, num_ranks, command, timeout=MAX_SECONDS)
    assert done.returncode == 0, done.stderr
    names = [run["name"] for run in runs]
    return AgreedEnds(
        {
            name: [json.loads((folder / f"{name}.{rank}.json").read_text()) for rank in range(num_ranks)]
            for name in names
        }
    )


@pytest.mark.parametrize("occasion", STOPS)
def test_a_request_to_stop_any_rank_stops_all_ranks_at_one_saved_step(agreed, occasion):
    _, step, by = STOPS[occasion]
    ended = agreed.end_of("stopped", list(STOPS).index(occasion))
    assert ended["code"] == 42
    if isinstance(step, tuple):  # the thread that saves does not wait for steps
        assert ended["global_step"] in step
        step = ended["global_step"]
    assert ended["message"].startswith(f"Stopped by {by} at step {step}, with everything saved.")
    assert ended["reporting_rank"] == 0  # so one rank prints it
    assert (ended["checkpoint"], ended["global_step"]) == (f"step-{step:08d}", step)
    epoch_is_trained = step % STEPS_PER_EPOCH == 0
    assert ended["position"] == (NUM_ROWS if epoch_is_trained else step % STEPS_PER_EPOCH * GLOBAL_BATCH)
    assert ended["holds_checkpoint"]  # on every rank, bitwise


def test_training_that_was_stopped_again_and_again_ends_with_the_same_weights(agreed):
    whole, stopped = agreed.end_of("whole", 0), agreed.end_of("stopped", len(STOPS))
    assert (whole["code"], stopped["code"]) == (0, 0)
    assert stopped["global_step"] == whole["global_step"] == 3 * STEPS_PER_EPOCH
    assert stopped["digest"] == whole["digest"]


def test_a_loss_that_is_not_finite_on_one_rank_stops_all_before_the_update(agreed, not_finite):
    ended = agreed.end_of("not finite", 0)
    assert ended["code"] == 6
    order = epoch_order(open_dataset(not_finite).parts["train"].num_rows, seed=0, epoch=0)
    (example,) = order.examples(range(NOT_FINITE_POSITION, NOT_FINITE_POSITION + 1))
    found = f"where the data of example {example} is not finite"
    assert f"at step 4 (epoch 1) on rank 1, {found}." in ended["message"]
    assert ended["reporting_rank"] == 0
    assert ended["checkpoint"] == "step-00000003"
    assert ended["holds_checkpoint"]  # the weights of step 3, on every rank


def test_data_that_is_damaged_on_one_rank_while_training_stops_all_before_the_update(agreed):
    ended = agreed.end_of("damaged", 0)
    assert ended["code"] == 3
    assert re.match(r"step 7: .*data\.1/train-00000\.columns\.npy is damaged", ended["message"])
    assert ended["reporting_rank"] == 1
    assert ended["checkpoint"] == "step-00000006"
    assert ended["holds_checkpoint"]
