"""The variables of a task: of its model and its optimizer. One compiled step can serve several checks from one start.

start = state_of(task)
step(batch)
set_state(task, start)                 # to compile another step would cost more than the rest of a test
"""

from __future__ import annotations

from typing import Any

import numpy as np


def state_of(task: Any) -> list[np.ndarray]:
    """Return the values of all variables."""
    return [variable.numpy() for variable in _variables(task)]


def set_state(task: Any, values: list[np.ndarray]) -> None:
    """Go back to the values that `state_of` returned."""
    for variable, value in zip(_variables(task), values, strict=True):
        variable.assign(value)


def _variables(task: Any) -> list[Any]:
    return [*task.model.variables, *task.optimizer.variables]
