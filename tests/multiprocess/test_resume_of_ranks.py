"""A run that was interrupted within an epoch resumes at any number of ranks; see conftest.py for the runs."""

from __future__ import annotations

import json

import pytest
from launching import needs_horovod, needs_mpi
from rank_runs import MPIRUN, PARAMETERS, distance
from ranks_data import EPOCHS, examples_of_case, examples_of_text

pytestmark = [pytest.mark.timeout(900), needs_mpi]

OTHERS = [
    pytest.param("", "single", 1, id="single"),
    pytest.param("mpirun", "mpi", 3, id="mpirun-mpi-3"),
    pytest.param("mpirun", "horovod", 3, id="mpirun-horovod-3", marks=needs_horovod),
]


@pytest.fixture
def ranks(launched, launcher, strategy, size):
    return launched(launcher, strategy, size)


@pytest.fixture
def two(launched):
    return launched("mpirun", "mpi", 2)


def first_positions(ranks, run, epoch):
    calls = [call for facts in ranks.facts(run) for call in facts["fed"]]
    return [call["first_position"] for call in calls if (call["purpose"], call["epoch"]) == ("train", epoch)]


def events(folder, run, kind):
    lines = (folder / "runs" / run / "metrics.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["event"] == kind]


@pytest.mark.parametrize(PARAMETERS, MPIRUN)
def test_a_signal_to_one_rank_stops_all_at_the_same_step(ranks):
    """The last rank receives the signal after step 8; all ranks learn of the signal with step 9."""
    assert [facts["code"] for facts in ranks.facts("stopped")] == [42] * ranks.size
    (stop, *_) = events(ranks.folder, "stopped", "stop")
    assert (stop["step"], stop["reason"]) == (9, f"SIGTERM to rank {ranks.size - 1} received")
    for rank in range(ranks.size):
        assert len([c for c in ranks.facts("stopped")[rank]["fed"] if c["purpose"] == "train"]) == 9


@pytest.mark.parametrize(PARAMETERS, MPIRUN)
def test_the_same_ranks_end_bitwise_as_without_interruption(ranks):
    for rank in range(ranks.size):
        again, whole = (ranks.weights(run, rank=rank) for run in ("again", "ngram"))
        assert all(a.tobytes() == b.tobytes() for a, b in zip(again, whole, strict=True))
    assert ranks.facts("again")[0]["metrics"] == ranks.facts("ngram")[0]["metrics"]


@pytest.mark.parametrize(PARAMETERS, OTHERS)
def test_each_example_is_fed_once_over_both_parts(ranks, two, text):
    rows = examples_of_text(text["ngram"], "train")
    before = [two.fed("left", "train", epoch=epoch) for epoch in range(EPOCHS)]
    after = [ranks.fed("moved", "train", epoch=epoch) for epoch in range(EPOCHS)]
    assert [part.total() for part in before] == [331, 3 * 66, 0]
    assert [part.total() for part in after] == [0, 331 - 3 * 66, 331]
    assert [a + b for a, b in zip(before, after, strict=True)] == [rows] * EPOCHS


@pytest.mark.parametrize(PARAMETERS, OTHERS)
def test_another_number_of_ranks_ends_where_one_process_does(ranks, alone):
    assert distance(ranks.weights("moved"), alone.weights("ngram")) <= 1e-5
    assert ranks.facts("moved")[0]["metrics"] == [
        pytest.approx(epoch, rel=0, abs=1e-6) for epoch in alone.facts("ngram")[0]["metrics"]
    ]


@pytest.mark.parametrize(PARAMETERS, OTHERS[1:])
def test_a_global_batch_that_does_not_divide_is_told_and_each_example_fed_once(ranks, two):
    chief, *others = [facts["said"] for facts in ranks.facts("moved-8")]
    wanted = "--global-batch-size 8 does not divide by 3 replicas; using the nearest, 3 x 3 = 9."
    assert wanted in chief
    assert chief.count("\n") == 1
    assert others == ["", ""]
    rows = examples_of_case("weighted", "train")
    before, after = two.fed("left-8", "train", epoch=1), ranks.fed("moved-8", "train", epoch=1)
    assert before
    assert after
    assert before + after == rows
    assert ranks.fed("moved-8", "train", epoch=2) == rows
    starts = sorted(first_positions(ranks, "moved-8", 1))
    assert starts[:4] == [24, 27, 30, 33]  # three steps of 8 in the first part, then batches of 3
