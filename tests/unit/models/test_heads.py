"""The last layer of the shipped models, for numbers of any size."""

from __future__ import annotations

import numpy as np
import pytest
import tensorflow as tf

from distrain.models.heads import head_of


@pytest.mark.parametrize("deviation", [1e-30, 3.0, 1e30])
def test_loss_and_gradient_of_a_number_have_no_unit(deviation):
    head, output = head_of("regression", 0.0, deviation), tf.Variable([[0.5], [-0.5]])
    targets = np.float32([deviation, -deviation])
    with tf.GradientTape() as tape:
        loss = head.loss(0)(targets, head.outputs(output))
    assert float(loss) == pytest.approx(0.25)
    assert tape.gradient(loss, output).numpy().ravel() == pytest.approx([-0.5, 0.5])
