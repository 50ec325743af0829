"""The outputs of a step as one array per dtype, so that the host reads from the device once.

Decides: how outputs lie in an array. Never: what an output means.

    stacks = stacked(outputs)                                        # inside the compiled step
    arrays = unstacked([stack.numpy() for stack in stacks], outputs)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from distrain.errors import ConfigurationError


def stacked(outputs: Sequence[Any]) -> list[Any]:
    """Return for each dtype among some tensors their values, one after the other.

    Raises:
        ConfigurationError: the shape of an output is not known before a step runs.
    """
    for output in outputs:
        if not output.shape.is_fully_defined():
            raise ConfigurationError(
                f"On a GPU, the loss needs a shape that is known before a step, but it has {output.shape}. Give it "
                "one by tf.ensure_shape, or train with --devices cpu:1."
            )
    flat = [(output.dtype, tf.reshape(output, [-1])) for output in outputs]
    return [tf.concat([values for own, values in flat if own == dtype], axis=0) for dtype in _dtypes(outputs)]


def unstacked(stacks: Sequence[np.ndarray], outputs: Sequence[Any]) -> list[np.ndarray]:
    """Return the arrays of some outputs, given the values of `stacked(outputs)`."""
    left = dict(zip(_dtypes(outputs), stacks, strict=True))
    arrays = []
    for output in outputs:
        size = output.shape.num_elements()
        values, left[output.dtype] = np.split(left[output.dtype], [size])
        arrays.append(values.reshape(output.shape))
    return arrays


def _dtypes(outputs: Sequence[Any]) -> list[Any]:
    return list(dict.fromkeys(output.dtype for output in outputs))
