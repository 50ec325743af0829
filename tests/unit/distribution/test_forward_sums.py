"""Where a sum over replicas inside a step may stand; its values are checked by the contract of many ranks."""

from __future__ import annotations

import pytest
import tensorflow as tf

from distrain.distribution.forward_sums import differentiable_sum, step_graph
from distrain.errors import ConfigurationError


def doubled(tensors):
    return [2 * tensor for tensor in tensors]


@pytest.mark.parametrize("place", ["loop", "condition", "function"])
def test_a_sum_in_a_graph_inside_the_step_is_refused(place):
    inside = {
        "loop": lambda x: tf.while_loop(lambda y: y[0] < 9, lambda y: (differentiable_sum(doubled, [y])[0],), [x]),
        "condition": lambda x: tf.cond(x[0] > 0, lambda: differentiable_sum(doubled, [x])[0], lambda: x),
        "function": lambda x: tf.function(lambda: differentiable_sum(doubled, [x])[0], autograph=False)(),
    }[place]

    @tf.function(autograph=False)
    def step(x):
        with step_graph():
            return inside(x)

    with pytest.raises(ConfigurationError, match="inside a loop, a condition"):
        step(tf.ones(2))


def test_each_sum_waits_for_the_one_traced_before():
    """The second sum needs nothing of the first, which is slow; the log yet shows the order of the trace."""
    log = []

    def logged(name, x):
        def note(value):
            log.append(name)
            return value

        return tf.numpy_function(note, [x], x.dtype)

    @tf.function(autograph=False)
    def step(x):
        with step_graph(), tf.GradientTape() as tape:
            tape.watch(x)
            slow = tf.linalg.trace(tf.linalg.inv(x * tf.eye(300)))
            (first,) = differentiable_sum(lambda given: [logged("first", t) for t in given], [slow])
            (second,) = differentiable_sum(lambda given: [logged("second", t) for t in given], [x])
            loss = first + second
            gradient = tape.gradient(loss, x)
            return logged("last", gradient)

    for _ in range(20):
        log.clear()
        step(tf.constant(1.0))
        assert log[:2] == ["first", "second"]
        assert sorted(log[2:4]) == ["first", "second"]
        assert log[4:] == ["last"]


def test_a_sum_outside_a_step_is_refused():
    with pytest.raises(ConfigurationError, match="inside a loop, a condition"):
        differentiable_sum(doubled, [tf.ones(2)])


def test_nothing_to_sum_costs_no_collective():
    assert differentiable_sum(lambda _: pytest.fail("a collective"), []) == []
