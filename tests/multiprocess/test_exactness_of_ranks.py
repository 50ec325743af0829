"""N processes train the model of one process; see conftest.py for the runs of each launch."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from launching import needs_horovod
from rank_runs import MPIRUN, PARAMETERS, distance
from ranks_data import DATA, EPOCHS, MOMENTUM, digest_of, examples_of_case, examples_of_text

pytestmark = pytest.mark.timeout(900)

HOROVODRUN = [("horovodrun --gloo", 2), ("horovodrun --gloo", 3), ("horovodrun --mpi", 2)]  # which starts mpirun
LAUNCHES = MPIRUN + [
    pytest.param(launcher, "horovod", size, id=f"{launcher}-{size}", marks=needs_horovod)
    for launcher, size in HOROVODRUN
]
TEXT = ("ngram", "sequence")
CASES = ("weighted", "words", "letters")


@pytest.fixture
def ranks(launched, launcher, strategy, size):
    return launched(launcher, strategy, size)


def assert_alike_on_all_ranks(ranks, run):
    first, *others = ranks.arrays(run)
    assert len(first) >= EPOCHS
    assert len(others) == ranks.size - 1
    for arrays in others:
        assert arrays.keys() == first.keys()
        assert all(arrays[name].tobytes() == first[name].tobytes() for name in first)
    metrics = [facts["metrics"] for facts in ranks.facts(run)]
    assert all(theirs == metrics[0] for theirs in metrics)


def assert_same_metrics(ranks, others, run):
    own, theirs = (each.facts(run)[0]["metrics"] for each in (ranks, others))
    assert len(own) == len(theirs) == EPOCHS
    for epoch, reference in zip(own, theirs, strict=True):
        assert {"loss", "accuracy", "val_loss", "val_accuracy"} == epoch.keys()
        assert epoch == pytest.approx(reference, rel=0, abs=1e-6)


def embedding_sizes(sent):
    """Count the buffers by the numbers of the embedding in them; the model's other layer is dense, from 8 to 3.

    Each tensor is padded to a multiple of 16 numbers.
    """
    sums = min(size for size, _ in sent)  # the step of an evaluation sends its sums alone
    return Counter({size - sums - (32 + 16): count for size, count in sent if size > sums})


@pytest.mark.parametrize(PARAMETERS, LAUNCHES)
class TestText:
    """The shipped models, dropout on, three epochs with a ragged end."""

    @pytest.mark.parametrize("run", TEXT)
    def test_weights_equal_those_of_one_process(self, ranks, alone, run):
        assert distance(ranks.weights(run), alone.weights(run)) <= 1e-5

    @pytest.mark.parametrize("run", TEXT)
    def test_all_ranks_hold_bitwise_the_same(self, ranks, run):
        assert_alike_on_all_ranks(ranks, run)

    @pytest.mark.parametrize("run", TEXT)
    def test_metrics_equal_those_of_one_process(self, ranks, alone, run):
        assert_same_metrics(ranks, alone, run)

    @pytest.mark.parametrize("run", TEXT)
    def test_each_example_is_fed_once_an_epoch(self, ranks, text, run):
        rows = examples_of_text(text[run], "train")
        assert len(rows) == rows.total() == 331  # no two are alike
        for epoch in range(EPOCHS):
            assert ranks.fed(run, "train", epoch=epoch) == rows

    @pytest.mark.parametrize("run", TEXT)
    def test_each_validation_example_counts_once_an_evaluation(self, ranks, text, run):
        rows = examples_of_text(text[run], "test")
        assert ranks.fed(run, "evaluate") == Counter({row: EPOCHS * count for row, count in rows.items()})

    @pytest.mark.parametrize("run", TEXT)
    def test_figures_by_class_count_each_validation_example_once(self, ranks, alone, run):
        found, expected = (
            json.loads((each.folder / "runs" / run / "summary.json").read_text()) for each in (ranks, alone)
        )
        assert found["classes"] == expected["classes"]
        figures = found["classes"].values()
        right = sum(of_class["recall"] * of_class["support"] for of_class in figures)
        assert right / sum(of_class["support"] for of_class in figures) == pytest.approx(found["validation_accuracy"])

    def test_a_rank_without_examples_still_takes_its_step(self, ranks):
        calls = [facts["fed"] for facts in ranks.facts("ngram")]
        ends = [[len(call["examples"]) for call in of_rank if call["purpose"] == "train"][5] for of_rank in calls]
        assert ends == [1] + [0] * (ranks.size - 1)

    def test_only_the_chief_has_a_run_directory(self, ranks):
        assert (ranks.folder / "runs" / "ngram" / "summary.json").is_file()
        assert not (ranks.folder / "not the chief's").exists()

    @pytest.mark.parametrize("run", TEXT)
    def test_nobody_complains(self, ranks, run):
        assert [facts["said"] for facts in ranks.facts(run)] == [""] * ranks.size


@pytest.mark.parametrize(PARAMETERS, MPIRUN)
class TestArrays:
    """A user's models by `distrain.fit`."""

    @pytest.mark.parametrize("case", CASES)
    def test_weights_equal_those_of_one_process(self, ranks, alone, case):
        assert distance(ranks.weights(case), alone.weights(case)) <= 1e-5
        assert_same_metrics(ranks, alone, case)

    @pytest.mark.parametrize("run", [*CASES, "accumulated", "fp16", "normalized"])
    def test_all_ranks_hold_bitwise_the_same(self, ranks, run):
        assert_alike_on_all_ranks(ranks, run)

    @pytest.mark.parametrize("run", [*CASES, "accumulated", "normalized"])
    def test_each_example_is_fed_once_an_epoch(self, ranks, run):
        case = "weighted" if run == "accumulated" else run
        for epoch in range(EPOCHS):
            assert ranks.fed(run, "train", epoch=epoch) == examples_of_case(case, "train")
        validation = examples_of_case(case, "validation")
        assert ranks.fed(run, "evaluate") == Counter({row: EPOCHS * count for row, count in validation.items()})

    def test_weights_equal_those_of_plain_keras(self, ranks, witness):
        assert distance(ranks.weights("weighted"), witness) <= 1e-5

    def test_accumulating_gives_the_model_of_the_same_global_batch(self, ranks, alone):
        train_calls = [call for call in ranks.facts("accumulated")[0]["fed"] if call["purpose"] == "train"]
        assert len(train_calls) == EPOCHS * 2 * 9
        assert distance(ranks.weights("accumulated"), alone.weights("weighted")) <= 1e-5

    def test_four_steps_in_a_call_are_those_steps(self, ranks):
        for own, wanted in zip(ranks.weights("in fours"), ranks.weights("ngram"), strict=True):
            np.testing.assert_array_equal(own, wanted)

    def test_no_step_uses_the_gradient_of_the_next_one(self, ranks, alone):
        """Ranks add up the gradients of one call in the same memory; gradients of "linear" depend on no weights."""
        assert distance(ranks.weights("linear"), alone.weights("linear")) <= 1e-6
        assert_same_metrics(ranks, alone, "linear")
        assert_alike_on_all_ranks(ranks, "linear")

    def test_fp16_gradients_train_nearly_the_same(self, ranks):
        apart = distance(ranks.weights("fp16"), ranks.weights("weighted"))
        assert 1e-7 < apart < 2e-2
        assert "float16" not in {array.dtype.name for array in ranks.weights("fp16")}

    @pytest.mark.parametrize("case", ["words", "letters"])
    def test_rows_of_an_embedding_are_gathered_and_never_summed(self, ranks, case):
        """Whatever the size of the table: Keras' optimizers see each row of the batch by itself."""
        for facts in ranks.facts(case):
            assert embedding_sizes(facts["sent"]) == {0: EPOCHS * 9}

    def test_moving_averages_are_the_mean_of_the_ranks(self, ranks):
        rows, labels = DATA["normalized"]()["train"]
        digests = [digest_of(np.arange(row.size), row, label) for row, label in zip(rows, labels, strict=True)]
        number_of = {digest: number for number, digest in enumerate(digests)}
        calls = [[c for c in facts["fed"] if c["purpose"] == "train"] for facts in ranks.facts("normalized")]
        averages = np.tile([[0.0], [1.0]], (1, 4))
        for epoch in range(EPOCHS):
            of_ranks = []
            for of_rank in calls:
                own = averages
                for call in [call for call in of_rank if call["epoch"] == epoch]:
                    batch = rows[[number_of[example] for example in call["examples"]]].astype(np.float64)
                    own = MOMENTUM * own + (1 - MOMENTUM) * np.stack([batch.mean(axis=0), batch.var(axis=0)])
                of_ranks.append(own)
            assert np.abs(of_ranks[0] - of_ranks[1]).max() > 0.01  # there was something to average
            averages = np.mean(of_ranks, axis=0)
            arrays = ranks.arrays("normalized")[-1]
            found = np.stack([arrays[f"{epoch}/{number}"] for number in (2, 3)])
            np.testing.assert_allclose(found, averages, rtol=1e-4, atol=1e-5)
