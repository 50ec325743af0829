"""A process loads its own rows of each shuffle window once, in the step that all others load the window."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from small_datasets import numbered

from distrain.data.batches import epoch_batches
from distrain.data.plan import EpochPlan
from distrain.data.shuffle import epoch_order


def test_each_window_is_loaded_once_and_alone():
    """One window bounds the memory: each window is loaded once, in order, and never more than its size."""
    loaded = []
    examples = numbered(100)

    def load(spans, indices, memory=None, epoch=0):
        loaded.append((int((spans[:, 1] - spans[:, 0]).sum()), len(indices)))
        return examples.load(spans, indices)

    watched = type(examples)(100, load, {}, "")
    order = epoch_order(100, seed=0, epoch=0, window_size=20, span_size=5)
    list(epoch_batches(watched, EpochPlan(100, 3, 7), order, replicas=range(3)))
    assert loaded == [(20, 20)] * 5


def test_a_replica_loads_only_its_own_rows():
    """A replica never loads rows of other replicas; an idle replica loads a single example that does not count."""
    loaded = []
    examples, plan = numbered(99), EpochPlan(99, 3, 7)

    def load(spans, indices, memory=None, epoch=0):
        loaded.append(np.concatenate([np.arange(*span) for span in spans])[indices].tolist())
        return examples.load(spans, indices)

    watched = type(examples)(99, load, {}, "")
    order = epoch_order(99, seed=3, epoch=0, window_size=20, span_size=5)
    own = [order.examples(plan.positions(step, 1)).tolist() for step in range(plan.num_steps)]
    labels = [batch.labels.tolist() for (batch,) in epoch_batches(watched, plan, order, replicas=range(1, 2))]
    assert labels == own
    assert list(itertools.chain(*loaded)) == list(itertools.chain(*own))
    loaded.clear()
    ((idle,),) = epoch_batches(watched, EpochPlan(99, 2, 99), order, replicas=range(1, 2))
    assert idle.num_rows == 0
    assert loaded == [[order.examples(range(1))[0]]]


@pytest.mark.parametrize("first_position", [0, 13])
@pytest.mark.parametrize("batch_size", [1, 7, 16])
def test_all_replicas_load_a_window_in_the_same_step(batch_size, first_position):
    """All replicas wait while one of them loads a window, so no replica may load the window a step later."""
    num_replicas, window_size = 3, 50
    plan = EpochPlan(490, num_replicas, batch_size, first_position)
    steps_of = []
    for replica in range(num_replicas):
        steps, walked, examples = [], [], numbered(490)

        def load(spans, indices, memory=None, epoch=0, examples=examples, steps=steps, walked=walked):
            if len(spans) > 1:  # an idle replica loads a single example
                steps.append(len(walked))
            return examples.load(spans, indices)

        order = epoch_order(490, seed=3, epoch=0, window_size=window_size, span_size=5)
        watched = type(examples)(490, load, {}, "")
        for batches in epoch_batches(watched, plan, order, replicas=range(replica, replica + 1)):
            walked.append(batches)
        steps_of.append(steps)
    # Every replica loads a window in the first step whose batches reach into the window.
    reached = [max(0, start - first_position) // (num_replicas * batch_size) for start in range(0, 490, window_size)]
    assert steps_of == [reached] * num_replicas
