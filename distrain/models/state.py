"""Conversion of a model's and an optimizer's variables to named arrays, and back.

Decides: which variables make up the state, and the names of arrays. Never: where arrays are stored.

    state = ModelState(model, optimizer)
    arrays = state.arrays()
    state.restore(checkpoint)
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

import numpy as np

from distrain.errors import CheckpointError


def as_array(variable: Any) -> np.ndarray:
    """Return the value of a variable, which later updates of the variable do not change.

    On a CPU the array is the memory of TensorFlow, without a copy. As the array holds this memory, the next update
    writes to new memory, with all threads of TensorFlow. Types that NumPy lacks, such as bfloat16, become float32.
    """
    import tensorflow as tf

    tensor = tf.convert_to_tensor(variable)
    array = np.asarray(tensor if tensor.shape.rank else tensor.numpy())
    return array.astype(np.float32) if array.dtype.kind == "V" else array


class ModelState:
    """The variables of a model, seeds of Keras' own dropout included, and of its optimizer.

    Args:
        model: a built Keras model.
        optimizer: a built optimizer; None leaves the optimizer out.

    Attributes:
        variables: the variables by name.
    """

    def __init__(self, model: Any, optimizer: Any = None) -> None:
        self._model = model
        self.variables = {f"model/{number:04d}": v for number, v in enumerate(model.variables)}
        if optimizer is not None:
            self.variables |= {f"optimizer/{number:04d}": v for number, v in enumerate(optimizer.variables)}

    def array(self, name: str) -> np.ndarray:
        """Return the value of a variable, which later updates do not change; see `as_array`."""
        return as_array(self.variables[name])

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the values of all variables by name; see `array`."""
        return {name: self.array(name) for name in self.variables}

    def num_bytes(self) -> int:
        """Return the size of all variables; one of `arrays` may be larger, as it is of another type."""
        return sum(math.prod(v.shape) * v.value.dtype.size for v in self.variables.values())

    def layout(self) -> dict[str, Any]:
        """Return path and shape of each variable, for a checkpoint's state."""
        return {"variables": {name: [v.path, list(v.shape)] for name, v in self.variables.items()}}

    def restore(self, checkpoint: Any) -> None:
        """Set all variables from a checkpoint (an object with `path` and `arrays`).

        Raises:
            CheckpointError: the checkpoint belongs to another model or optimizer; no variable has changed.
        """
        from distrain.models.adapted_layers import take_variables

        for name, variable in self.variables.items():
            array = checkpoint.arrays.get(name)
            if array is None or tuple(array.shape) != tuple(variable.shape):
                found = "nothing" if array is None else f"shape {tuple(array.shape)}"
                raise CheckpointError(
                    f"{checkpoint.path} is of another model or optimizer: for {variable.path} of shape "
                    f"{tuple(variable.shape)} it has {found}. Use the settings of that run, or another run directory."
                )
        for name, variable in self.variables.items():
            variable.assign(checkpoint.arrays[name])
        take_variables(self._model)

    def weights_digest(self) -> str:
        """Return the SHA-256 (hex) of the model's weights, in order."""
        digest = hashlib.sha256()
        for weight in self._model.weights:
            digest.update(np.ascontiguousarray(weight.numpy()).tobytes())
        return digest.hexdigest()
