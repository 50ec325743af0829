"""The plan against list slicing: the stride, each example once, and resuming."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distrain.data.plan import EpochPlan, examples_per_replica, steps_per_epoch
from distrain.data.shuffle import epoch_order

counts = st.integers(0, 120)
replicas = st.integers(1, 9)
sizes = st.integers(1, 40)
seeds = st.integers(0, 2**64 - 1)
epochs = st.integers(0, 2**40)


@st.composite
def plans(draw):
    n = draw(counts)
    return EpochPlan(n, draw(replicas), draw(sizes), draw(st.integers(0, n)))


def batches_of(items, size):
    """Cut the list into batches."""
    return [items[start : start + size] for start in range(0, len(items), size)]


@pytest.mark.parametrize(
    ("n", "num_replicas", "batch_size", "num_batches", "num_steps", "last"),
    [
        (10, 2, 3, 4, 2, [range(6, 9), range(9, 10)]),
        (10, 4, 3, 4, 1, [range(3), range(3, 6), range(6, 9), range(9, 10)]),
        (8, 4, 3, 3, 1, [range(3), range(3, 6), range(6, 8), range(8, 8)]),
        (12, 2, 3, 4, 2, [range(6, 9), range(9, 12)]),
        (1, 3, 5, 1, 1, [range(1), range(1, 1), range(1, 1)]),
        (13, 2, 3, 5, 3, [range(12, 13), range(13, 13)]),
        (7, 1, 7, 1, 1, [range(7)]),
    ],
)
def test_steps_and_last_batches(n, num_replicas, batch_size, num_batches, num_steps, last):
    plan = EpochPlan(n, num_replicas, batch_size)
    assert (plan.num_batches, plan.num_steps) == (num_batches, num_steps)
    assert steps_per_epoch(n, batch_size, num_replicas) == num_steps
    assert [plan.positions(num_steps - 1, replica) for replica in range(num_replicas)] == last


def test_an_empty_epoch_has_no_steps():
    assert EpochPlan(0, 3, 4).num_steps == 0
    assert EpochPlan(12, 3, 4, first_position=12).num_steps == 0


@given(plans())
def test_replica_r_gets_batches_r_then_every_nth(plan):
    batches = batches_of(list(range(plan.first_position, plan.num_examples)), plan.batch_size)
    for replica in range(plan.num_replicas):
        own = [list(plan.positions(step, replica)) for step in range(plan.num_steps)]
        expected = batches[replica :: plan.num_replicas]
        assert own[: len(expected)] == expected
        assert all(batch == [] for batch in own[len(expected) :])
        assert len(own) - len(expected) in (0, 1)


@given(plans())
def test_a_step_covers_consecutive_positions(plan):
    steps = batches_of(list(range(plan.first_position, plan.num_examples)), plan.num_replicas * plan.batch_size)
    assert plan.num_steps == len(steps)
    assert plan.global_batch_size == plan.num_replicas * plan.batch_size
    for step, expected in enumerate(steps):
        of_replicas = [list(plan.positions(step, replica)) for replica in range(plan.num_replicas)]
        assert list(plan.global_positions(step)) == list(itertools.chain(*of_replicas)) == expected


@given(plans(), st.data())
def test_positions_between_are_a_walks_positions(plan, data):
    first, last = sorted(data.draw(st.tuples(*2 * [st.integers(0, plan.num_replicas)])))
    start, stop = sorted(data.draw(st.tuples(*2 * [st.integers(0, plan.num_examples)])))
    walked = [
        position
        for step in range(plan.num_steps)
        for replica in range(first, last)
        for position in plan.positions(step, replica)
        if start <= position < stop
    ]
    assert plan.positions_between(start, stop, range(first, last)).tolist() == walked


@given(plans())
def test_examples_per_replica_are_a_walks_counts(plan):
    walked = [
        sum(len(plan.positions(step, replica)) for step in range(plan.num_steps))
        for replica in range(plan.num_replicas)
    ]
    assert examples_per_replica(plan) == walked


@given(plans(), seeds, epochs, st.integers(1, 50), st.integers(1, 12))
def test_each_example_is_read_exactly_once(plan, seed, epoch, window_size, span_size):
    plan = EpochPlan(plan.num_examples, plan.num_replicas, plan.batch_size)
    order = epoch_order(plan.num_examples, seed=seed, epoch=epoch, window_size=window_size, span_size=span_size)
    read = [
        example
        for step in range(plan.num_steps)
        for replica in range(plan.num_replicas)
        for example in order.examples(plan.positions(step, replica)).tolist()
    ]
    assert sorted(read) == list(range(plan.num_examples))


@given(plans(), replicas, sizes, seeds)
def test_after_a_resume_the_rest_is_read_once_at_any_n_and_b(plan, other_replicas, other_size, seed):
    order = epoch_order(plan.num_examples, seed=seed, epoch=3)
    before = EpochPlan(plan.num_examples, plan.num_replicas, plan.batch_size)
    trained_steps = before.num_steps // 2
    done = [example for step in range(trained_steps) for example in order.examples(before.global_positions(step))]
    rest = EpochPlan(plan.num_examples, other_replicas, other_size, first_position=len(done))
    left = [example for step in range(rest.num_steps) for example in order.examples(rest.global_positions(step))]
    assert done + left == order.examples(range(plan.num_examples)).tolist()


@pytest.mark.parametrize("values", [(-1, 1, 1), (1, 0, 1), (1, 1, 0), (5, 1, 1, 6), (5, 1, 1, -1)])
def test_impossible_plans_are_refused(values):
    with pytest.raises(ValueError, match=r"num_examples|first_position"):
        EpochPlan(*values)
