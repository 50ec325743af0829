"""The outer loop with steps made of plain numbers: the order of calls, and the progress after each way out."""

from __future__ import annotations

import itertools
import math
from contextlib import contextmanager

import numpy as np
import pytest

from distrain.data.plan import EpochPlan
from distrain.errors import DivergenceError
from distrain.runs.progress import Progress
from distrain.training.loop.events import Decision, NotFinite
from distrain.training.loop.loop import EpochSteps, TrainingLoop, run_epochs

N, B = 10, 4  # 3 steps: 4, 4 and 2 examples


class Training:
    """A run of the loop over N examples; the loss of example i is i."""

    def __init__(self, *, loss=float, evaluate=lambda: {"loss": 7.0}, is_endless=False):
        self.log = []
        self.seen = []
        self.open = 0
        self._loss = loss
        self._evaluate = evaluate
        self._is_endless = is_endless

    def open_epoch(self, progress):
        self.log.append(f"epoch {progress.epoch} from {progress.position}")
        plan = EpochPlan(N, 1, B, progress.position)

        @contextmanager
        def batches():
            self.open += 1
            steps = ([plan.global_positions(step)] for step in range(plan.num_steps))
            yield itertools.chain(steps, itertools.repeat([[99]])) if self._is_endless else steps
            self.open -= 1

        return EpochSteps(plan.num_steps, lambda step: len(plan.global_positions(step)), batches())

    def train_steps(self, steps):
        self.log += [f"{len(steps)} steps"] if len(steps) > 1 else []
        sums = []
        for batches in steps:
            self.seen += [example for batch in batches for example in batch]
            losses = [self._loss(example) for batch in batches for example in batch]
            is_finite = math.isfinite(sum(losses))
            figures = [np.float32(sum(losses)), np.float32(len(losses))]
            sums.append(figures if is_finite else NotFinite(f"The loss is {sum(losses)}", (0,)))
        return sums

    def evaluate(self):
        self.log.append("evaluate")
        return self._evaluate()

    def run(self, progress=None, *, num_epochs=2, after_step=(), after_epoch=(), **settings):
        ticks = iter(range(1000))
        loop = TrainingLoop(
            num_epochs=num_epochs,
            open_epoch=self.open_epoch,
            train_steps=self.train_steps,
            evaluate=self.evaluate,
            metrics_of=lambda sums: {"loss": float(sums[0] / sums[1])},
            after_step=after_step,
            after_epoch=after_epoch,
            clock=lambda: float(next(ticks)),
            **settings,
        )
        return run_epochs(loop, progress or Progress())


def test_epochs_of_steps_with_metrics_over_the_whole_epoch():
    training, steps, epochs = Training(), [], []
    progress, decision = training.run(
        after_step=[lambda e: steps.append((e.epoch, e.step, e.num_steps, e.num_examples, e.metrics()["loss"]))],
        after_epoch=[
            lambda e: epochs.append((e.epoch, e.num_examples, e.seconds, dict(e.metrics()), e.progress.epoch))
        ],
    )
    assert decision is Decision.GO_ON
    assert training.seen == list(range(N)) * 2
    assert training.log == ["epoch 0 from 0", "epoch 1 from 0", "evaluate", "evaluate"], "opened before it is needed"
    assert (progress.epoch, progress.position, progress.global_step) == (2, 0, 6)
    assert (progress.examples_trained, progress.train_seconds, progress.sums) == (20, 6.0, ())
    assert steps[:3] == [(0, 1, 3, 4, 1.5), (0, 2, 3, 4, 3.5), (0, 3, 3, 2, 4.5)]  # means of 0..3, 0..7, 0..9
    assert epochs == [(n, 10, 3.0, {"loss": 4.5, "val_loss": 7.0}, n + 1) for n in (0, 1)]


@pytest.mark.parametrize(("per_call", "sizes"), [(2, [2, 1]), (3, [3]), (8, [3])])
def test_several_steps_at_a_time_and_what_is_left_at_the_end_of_an_epoch(per_call, sizes):
    training, events, epochs = Training(), [], []
    progress, _ = training.run(
        after_step=[lambda e: events.append((e.step, e.new_steps, e.num_examples, e.metrics()["loss"]))],
        after_epoch=[lambda e: epochs.append((e.num_examples, e.new_steps, e.metrics()["loss"]))],
        steps_per_execution=per_call,
    )
    assert training.seen == list(range(N)) * 2
    assert [line for line in training.log if "steps" in line] == [f"{size} steps" for size in sizes if size > 1] * 2
    assert (progress.global_step, progress.examples_trained) == (6, 20)
    assert [new for _, new, _, _ in events] == sizes * 2
    assert events[len(sizes) - 1][0] == 3
    assert sum(examples for _, _, examples, _ in events) == 20
    assert events[-1][3] == 4.5
    assert epochs == [(10, 3, 4.5)] * 2


@pytest.mark.parametrize("per_call", [1, 2, 4])
def test_the_plan_says_how_many_steps_there_are_and_not_the_loader(per_call):
    """A process whose loader failed yields batches without end."""
    training = Training(is_endless=True)
    progress, _ = training.run(steps_per_execution=per_call)
    assert training.seen == list(range(N)) * 2
    assert (progress.global_step, progress.examples_trained) == (6, 20)


@pytest.mark.parametrize("max_steps", [1, 2, 3, 4, 5])
def test_no_call_of_several_steps_goes_beyond_the_last_step(max_steps):
    training = Training()
    finish = [lambda e: Decision.FINISH if e.progress.global_step == max_steps else None]
    progress, decision = training.run(after_step=finish, steps_per_execution=2, max_steps=max_steps)
    assert (decision, progress.global_step) == (Decision.FINISH, max_steps)
    assert len(training.seen) == progress.examples_trained == [4, 8, 10, 14, 18][max_steps - 1]


def test_a_loss_that_is_not_finite_is_named_by_its_step_among_several():
    training = Training(loss=lambda example: float("nan") if example == 5 else 1.0)
    with pytest.raises(DivergenceError, match=r"step 2 \(epoch 1\)"):
        training.run(steps_per_execution=3)


@pytest.mark.parametrize("last_step", [1, 2, 3, 4, 6])
def test_a_stop_ends_at_that_step_and_the_rest_follows_later(last_step):
    training, epochs = Training(), []
    record = [lambda e: epochs.append(dict(e.metrics()))]
    stop = [lambda e: Decision.STOP if e.progress.global_step == last_step else None]
    progress, decision = training.run(after_step=stop, after_epoch=record)
    assert decision is Decision.STOP
    assert progress.global_step == last_step
    assert training.open == 0
    progress, decision = training.run(progress, after_epoch=record)
    assert decision is Decision.GO_ON
    assert training.seen == list(range(N)) * 2
    assert (progress.epoch, progress.global_step, progress.examples_trained) == (2, 6, 20)
    assert epochs == [{"loss": 4.5, "val_loss": 7.0}] * 2  # of the whole epoch, not of what came after the stop


def test_an_interrupted_evaluation_is_done_again_without_another_step():
    training = Training(evaluate=lambda: None)
    progress, decision = training.run()
    assert decision is Decision.STOP
    assert (progress.epoch, progress.position, progress.global_step) == (0, N, 3)
    again, epochs = Training(), []
    progress, _ = again.run(progress, num_epochs=1, after_epoch=[lambda e: epochs.append(dict(e.metrics()))])
    assert again.seen == []
    assert again.log == ["epoch 0 from 10", "evaluate"]
    assert epochs == [{"loss": 4.5, "val_loss": 7.0}]
    assert (progress.epoch, progress.global_step) == (1, 3)


def test_finishing_after_an_epoch():
    training = Training()
    progress, decision = training.run(num_epochs=9, after_epoch=[lambda e: Decision.FINISH])
    assert (decision, progress.epoch, progress.global_step) == (Decision.FINISH, 1, 3)


@pytest.mark.parametrize("last_step", [1, 2, 3])
def test_finishing_within_an_epoch_ends_it_with_an_evaluation(last_step):
    training, epochs = Training(), []
    progress, decision = training.run(
        num_epochs=9,
        after_step=[lambda e: Decision.FINISH if e.progress.global_step == last_step else None],
        after_epoch=[epochs.append],
    )
    assert (decision, progress.global_step, training.open) == (Decision.FINISH, last_step, 0)
    assert training.log == ["epoch 0 from 0", "evaluate"], "the next epoch stays closed"
    (event,) = epochs
    assert (event.decision, event.step, event.num_steps, event.new_steps) == (Decision.FINISH, last_step, 3, last_step)
    assert event.num_examples == min(4 * last_step, N)
    assert event.metrics()["loss"] == np.mean(range(min(4 * last_step, N)))
    # A run with a larger limit goes on within the epoch.
    assert (progress.epoch, progress.position) == ((1, 0) if last_step == 3 else (0, 4 * last_step))
    training.run(progress)
    assert training.seen == list(range(N)) * 2


def test_an_epoch_that_was_finished_before_a_resume_is_evaluated_at_once():
    training = Training()
    progress, _ = training.run(after_step=[lambda e: Decision.STOP])
    again, events = Training(), []
    progress, decision = again.run(
        progress,
        before_epoch=lambda epoch: Decision.FINISH,
        after_epoch=[lambda e: events.append((e.step, e.num_steps))],
    )
    assert (again.seen, again.log) == ([], ["epoch 0 from 4", "evaluate"])
    assert (events, decision, progress.global_step) == ([(1, 3)], Decision.FINISH, 1)


def test_steps_keep_their_numbers_within_the_epoch_after_a_resume():
    training, steps = Training(), []
    record = [lambda e: steps.append((e.epoch, e.step, e.num_steps, e.new_steps))]
    progress, _ = training.run(after_step=[*record, lambda e: Decision.STOP if e.progress.global_step == 2 else None])
    epochs = []
    training.run(progress, after_step=record, after_epoch=[lambda e: epochs.append((e.step, e.num_steps, e.new_steps))])
    assert steps == [(epoch, step, 3, 1) for epoch in (0, 1) for step in (1, 2, 3)]
    assert epochs == [(3, 3, 1), (3, 3, 3)]


def test_a_finished_run_trains_no_more():
    training = Training()
    done = Progress(epoch=2, global_step=6)
    assert training.run(done) == (done, Decision.GO_ON)
    assert training.log == []


def test_each_action_sees_what_those_before_it_decided_and_the_largest_counts():
    seen = []

    def answer(decision):
        return lambda e: seen.append(e.decision) or decision

    actions = [answer(None), answer(Decision.STOP), answer(Decision.FINISH), answer(Decision.GO_ON)]
    _, decision = Training().run(after_step=actions)
    assert seen == [Decision.GO_ON, Decision.GO_ON, Decision.STOP, Decision.STOP]
    assert decision is Decision.STOP


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_loss_that_is_not_finite_ends_the_run_before_anything_is_saved(bad):
    saved = []
    training = Training(loss=lambda example: bad if example == 5 else 1.0)
    with pytest.raises(DivergenceError, match=r"step 2 \(epoch 1\).*--learning-rate"):
        training.run(after_step=[lambda e: saved.append(e.progress.global_step)])
    assert saved == [1]


@pytest.mark.parametrize("per_call", [1, 2, 3])
def test_a_skipped_step_counts_as_a_step_without_figures(per_call):
    """The examples 4 to 7 are skipped in each epoch: the loss is the mean of the other examples."""
    skipped, epochs = [], []
    training = Training(loss=lambda example: float("nan") if example == 5 else float(example))
    progress, _ = training.run(
        skip=lambda bad, before: skipped.append((bad.what, before.global_step, before.skipped_steps)),
        after_epoch=[lambda e: epochs.append((e.metrics()["loss"], e.num_examples))],
        steps_per_execution=per_call,
    )
    assert skipped == [("The loss is nan", 1, 0), ("The loss is nan", 4, 1)]
    assert epochs == [((0 + 1 + 2 + 3 + 8 + 9) / 6, 6)] * 2
    assert (progress.global_step, progress.examples_trained, progress.skipped_steps) == (6, 12, 2)
    assert training.seen == list(range(N)) * 2


def test_a_validation_loss_that_is_not_finite_ends_the_run():
    saved = []
    with pytest.raises(DivergenceError, match=r"validation loss is nan after step 3 \(epoch 1\)"):
        Training(evaluate=lambda: {"loss": float("nan")}).run(after_epoch=[saved.append])
    assert saved == []


def test_without_validation_there_are_training_metrics_alone():
    epochs = []
    Training(evaluate=dict).run(num_epochs=1, after_epoch=[lambda e: epochs.append(dict(e.metrics()))])
    assert epochs == [{"loss": 4.5}]


def test_an_epoch_begins_when_the_one_before_it_is_judged():
    training = Training()
    training.run(
        before_epoch=lambda epoch: training.log.append(f"begin {epoch}"),
        after_epoch=[lambda e: training.log.append(f"end {e.epoch}")],
    )
    first, second = ["begin 0", "epoch 1 from 0", "evaluate", "end 0"], ["begin 1", "evaluate", "end 1"]
    assert training.log == ["epoch 0 from 0", *first, *second]
    assert training.open == 0


def test_while_an_epoch_is_judged_the_next_one_alone_is_open():
    training = Training(evaluate=lambda: is_open.append(training.open) or {})
    is_open = []
    training.run(num_epochs=3)
    assert is_open == [1, 1, 0]


def test_an_epoch_that_is_not_trained_is_closed_again():
    training = Training()
    training.run(num_epochs=5, after_epoch=[lambda e: Decision.FINISH])
    assert training.log == ["epoch 0 from 0", "epoch 1 from 0", "evaluate"]
    assert training.open == 0


def test_an_epoch_tells_how_long_its_evaluation_took():
    seconds = []
    Training().run(num_epochs=1, after_epoch=[lambda e: seconds.append((e.seconds, e.evaluation_seconds))])
    assert seconds == [(3.0, 1.0)]  # the clock ticks once a look


def test_metrics_of_an_event_stay_as_they_were_after_its_step():
    events = []
    Training().run(num_epochs=1, after_step=[events.append])
    assert [e.metrics()["loss"] for e in events] == [1.5, 3.5, 4.5]
