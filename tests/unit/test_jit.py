"""Kernels compile where nothing can be cached."""

from __future__ import annotations

import pytest
from numba import njit

from distrain.jit import compiled


def test_a_kernel_without_a_place_for_its_cache_still_compiles():
    namespace: dict = {}
    exec("def double(number): return 2 * number", namespace)  # a function without a file has no place for a cache
    with pytest.raises(RuntimeError, match="no locator"):
        njit(cache=True)(namespace["double"])
    assert compiled(namespace["double"])(21) == 42
