"""Actions decide from the metrics of an event."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from step_events import step_event

from distrain.runs.progress import Progress
from distrain.training.actions import EarlyStopping, every_steps
from distrain.training.events import Decision


def judge(action, losses, **others):
    return [action(epoch_event(number + 1, loss=1.0, val_loss=loss, **others)) for number, loss in enumerate(losses)]


def epoch_event(step, **metrics):
    """The event of an epoch that ended at this global step."""
    return step_event(step, num_steps=step, **metrics)


GO_ON, FINISH = Decision.GO_ON, Decision.FINISH


@pytest.mark.parametrize(
    ("patience", "losses", "decisions", "best_step"),
    [
        (2, [3, 2, 1], [GO_ON] * 3, 3),
        (2, [3, 4, 5], [GO_ON, GO_ON, FINISH], 1),
        (2, [3, 4, 2, 3, 3], [GO_ON, GO_ON, GO_ON, GO_ON, FINISH], 3),
        (2, [3, 3, 3], [GO_ON, GO_ON, FINISH], 1),  # as low is not lower
        (1, [3, 4], [GO_ON, FINISH], 1),
        (0, [3, 4, 5, 6], [GO_ON] * 4, 1),
        (2, [float("nan"), 1, float("nan"), float("nan")], [GO_ON, GO_ON, GO_ON, FINISH], 2),
    ],
)
def test_early_stopping(patience, losses, decisions, best_step):
    stopping = EarlyStopping(patience)
    assert judge(stopping, losses) == decisions
    assert stopping.best_step == best_step
    assert stopping.best_metrics["val_loss"] == losses[best_step - 1]


def test_early_stopping_without_validation_goes_by_the_training_loss():
    stopping = EarlyStopping(1)
    assert stopping(epoch_event(1, loss=2.0)) is GO_ON
    assert stopping(epoch_event(2, loss=1.0)) is GO_ON
    assert stopping(epoch_event(3, loss=1.5)) is FINISH
    assert stopping.best_step == 2


def test_the_part_of_an_epoch_counts_for_no_epoch_but_may_be_the_best():
    stopping = EarlyStopping(1)
    assert judge(stopping, [3.0]) == [GO_ON]
    assert stopping(step_event(5, num_steps=9, loss=1.0, val_loss=4.0)) is GO_ON
    assert stopping(step_event(6, num_steps=9, loss=1.0, val_loss=2.0)) is GO_ON
    assert stopping.best_step == 6


@pytest.mark.parametrize("cut", range(6))
def test_early_stopping_goes_on_from_its_state(cut):
    """The state travels through JSON, as a checkpoint has it."""
    losses = [5, 4, 6, 3, 4, 4]
    whole, first = EarlyStopping(2), EarlyStopping(2)
    decisions = judge(whole, losses)
    before = judge(first, losses[:cut])
    second = EarlyStopping(2, json.loads(json.dumps(first.state())))
    after = [second(epoch_event(number + 1, loss=1.0, val_loss=losses[number])) for number in range(cut, 6)]
    assert before + after == decisions == [GO_ON] * 5 + [FINISH]
    assert second.state() == whole.state()


def test_every_steps_but_not_at_the_end_of_an_epoch():
    asked = []
    action = every_steps(3, lambda event: asked.append(event.progress.global_step) or Decision.STOP)
    answers = [action(step_event(step, num_steps=9)) for step in range(1, 10)]
    assert asked == [3, 6]
    assert [number + 1 for number, answer in enumerate(answers) if answer is Decision.STOP] == [3, 6]


def test_every_steps_where_several_are_taken_in_a_call():
    asked = []
    action = every_steps(5, lambda event: asked.append(event.step))
    for step in (3, 6, 9, 12, 15, 18, 21, 22):
        action(step_event(step, num_steps=30, new=1 if step == 22 else 3))
    assert asked == [6, 12, 15, 21]


def test_every_steps_counts_global_steps_after_a_resume():
    asked = []
    action = every_steps(4, lambda event: asked.append(event.progress.global_step))
    for step in range(1, 6):  # this process took up the epoch at global step 10
        progress = Progress(global_step=10 + step)
        action(replace(step_event(step, num_steps=6), progress=progress))
    assert asked == [12]
