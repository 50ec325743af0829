"""Arrays that TensorFlow takes over without a copy."""

from __future__ import annotations

import numpy as np
import pytest

from distrain.aligned_memory import ALIGNMENT, address_of, aligned_copy


@pytest.mark.parametrize("size", [1, 7, 1000, 100_000])
def test_copies_are_aligned_and_hold_the_values(size):
    values = np.arange(size, dtype=np.float32)
    copies = [aligned_copy(values + number) for number in range(4)]
    for number, copy in enumerate(copies):
        assert address_of(copy) % ALIGNMENT == 0
        assert copy.flags.c_contiguous
        assert copy.flags.writeable
        np.testing.assert_array_equal(copy, values + number)
