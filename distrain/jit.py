"""One way to compile a kernel: cached on disk for the next process if possible, and without the interpreter's lock.

Decides: how kernels are compiled. Never: what a kernel computes.

    @compiled
    def total(values: np.ndarray) -> float: ...
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable)


def compiled(function: Function) -> Function:
    """Compile `function` at its first call, for the types of the arguments."""
    try:
        return cast(Function, njit(cache=True, nogil=True)(function))
    except RuntimeError:  # a read-only container: no folder for the cache
        return cast(Function, njit(nogil=True)(function))
