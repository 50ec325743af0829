"""The plan against list slicing: the stride, each example once, the shuffled order, resuming."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distrain.data.plan import EpochPlan, examples_per_replica, steps_per_epoch
from distrain.data.shuffle import epoch_order, stable_order

counts = st.integers(0, 300)
replicas = st.integers(1, 9)
sizes = st.integers(1, 40)
seeds = st.integers(0, 2**64 - 1)
epochs = st.integers(0, 2**40)


@st.composite
def plans(draw):
    n = draw(counts)
    return EpochPlan(n, draw(replicas), draw(sizes), draw(st.integers(0, n)))


def batches_of(items, size):
    """The rule in its plainest words: cut the list into batches."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def order_of(n, *, seed=0, epoch=0, **settings):
    return epoch_order(n, seed=seed, epoch=epoch, **settings).examples(range(n)).tolist()


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
    assert order_of(0) == []


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
def test_a_step_of_all_replicas_is_one_stretch_of_positions(plan):
    steps = batches_of(list(range(plan.first_position, plan.num_examples)), plan.num_replicas * plan.batch_size)
    assert plan.num_steps == len(steps)
    assert plan.global_batch_size == plan.num_replicas * plan.batch_size
    for step, expected in enumerate(steps):
        of_replicas = [list(plan.positions(step, replica)) for replica in range(plan.num_replicas)]
        assert list(plan.global_positions(step)) == list(itertools.chain(*of_replicas)) == expected


@given(plans(), st.data())
def test_what_some_replicas_are_fed_between_two_positions(plan, data):
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


@given(st.lists(st.integers(0, 9), max_size=40) | st.lists(st.integers(0, 2**64 - 1), max_size=40))
def test_a_stable_order_also_where_keys_are_equal(keys):
    order = stable_order(np.array(keys, np.uint64))
    assert order.tolist() == sorted(range(len(keys)), key=keys.__getitem__)


@given(plans())
def test_examples_per_replica_is_what_a_walk_counts(plan):
    walked = [
        sum(len(plan.positions(step, replica)) for step in range(plan.num_steps))
        for replica in range(plan.num_replicas)
    ]
    assert examples_per_replica(plan) == walked


@given(plans(), seeds, epochs, st.integers(1, 50), st.integers(1, 12))
def test_each_example_is_read_exactly_once(plan, seed, epoch, block, run):
    plan = EpochPlan(plan.num_examples, plan.num_replicas, plan.batch_size)
    order = epoch_order(plan.num_examples, seed=seed, epoch=epoch, block=block, run=run)
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


@given(counts, seeds, epochs, st.integers(1, 60), st.integers(1, 12), st.data())
def test_the_order_is_the_same_however_it_is_asked_for(n, seed, epoch, block, run, data):
    settings = {"seed": seed, "epoch": epoch, "block": block, "run": run}
    whole = epoch_order(n, **settings).examples(range(n)).tolist()
    order = epoch_order(n, **settings)
    for _ in range(4):
        start, stop = sorted([data.draw(st.integers(0, n)), data.draw(st.integers(0, n))])
        assert order.examples(range(start, stop)).tolist() == whole[start:stop]


def test_epochs_and_seeds_differ_and_repeat():
    orders = {(seed, epoch): tuple(order_of(500, seed=seed, epoch=epoch)) for seed in range(5) for epoch in range(5)}
    assert len(set(orders.values())) == 25
    assert tuple(order_of(500, seed=3, epoch=4)) == orders[3, 4]


def test_the_order_of_this_release_is_that_of_the_first():
    assert order_of(12, seed=7, epoch=2) == [1, 9, 10, 3, 8, 0, 11, 6, 4, 7, 5, 2]
    assert order_of(12, seed=7, epoch=2, block=4, run=2) == [9, 1, 8, 0, 10, 11, 3, 2, 5, 6, 7, 4]
    assert order_of(5, seed=7, epoch=2, shuffle=False) == [0, 1, 2, 3, 4]


def test_small_data_is_shuffled_whole():
    order = epoch_order(60_000, seed=1, epoch=0)
    assert order.num_windows == 1
    # A tenth of the epoch draws from all tenths of the data alike: 600 expected of each, sigma about 22.
    tenths = np.histogram(order.examples(range(6_000)), bins=10, range=(0, 60_000))[0]
    assert np.all(np.abs(tenths - 600) < 5 * 22)


@given(st.integers(1, 2000), seeds)
def test_a_block_comes_from_few_runs_of_neighbours(n, seed):
    block, run = 64, 8
    order = order_of(n, seed=seed, block=block, run=run)
    for part in batches_of(order, 32):  # any stretch as long as half a block lies in at most two blocks
        assert len({example // run for example in part}) <= 2 * (block // run)
    firsts = epoch_order(n, seed=seed, epoch=0, block=block, run=run)
    for start in range(0, n, block):
        held = firsts.window_of(start)
        assert held.size <= block
        assert len(held.spans) <= block // run


def test_blocks_mix_far_parts_of_the_data():
    order = order_of(6_400, seed=5, block=640, run=64)
    halves = [sum(example < 3_200 for example in part) / 640 for part in batches_of(order, 640)]
    assert len({round(share, 3) for share in halves}) > 1
    assert all(0 < share < 1 for share in halves)


@pytest.mark.parametrize("values", [(-1, 1, 1), (1, 0, 1), (1, 1, 0), (5, 1, 1, 6), (5, 1, 1, -1)])
def test_impossible_plans_are_refused(values):
    with pytest.raises(ValueError, match=r"num_examples|first_position"):
        EpochPlan(*values)
