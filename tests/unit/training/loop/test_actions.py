"""Actions decide from the metrics of an event."""

from __future__ import annotations

from dataclasses import replace

from step_events import step_event

from distrain.runs.progress import Progress
from distrain.training.loop.actions import every_steps
from distrain.training.loop.events import Decision


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
