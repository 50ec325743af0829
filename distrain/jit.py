"""One way to compile a kernel: kept on disk for the next process where that can be, and free of the interpreter's lock.

Decides: how kernels are compiled. Never: what they do.

    @compiled
    def total(values: np.ndarray) -> float: ...
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar, cast

from numba import njit

Function = TypeVar("Function", bound=Callable)


def compiled(function: Function) -> Function:
    """Compile `function` when it is first called, for the types that it is called with."""
    try:
        return cast(Function, njit(cache=True, nogil=True)(function))
    except RuntimeError:  # neither the package's folder nor the user's cache can be written, as in a sealed container
        return cast(Function, njit(nogil=True)(function))
