"""Buckets of gradients: all tensors once, from the last to the first, and no bucket above the limit."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from distrain.distribution.buckets import BUCKET_BYTES, buckets


@given(st.lists(st.integers(0, 30)), st.integers(1, 40))
def test_buckets_cover_the_tensors_from_the_last_on(sizes, limit):
    found = buckets(sizes, limit=limit)
    assert [number for bucket in reversed(found) for number in bucket] == list(range(len(sizes)))
    assert all(len(bucket) == 1 or sum(sizes[number] for number in bucket) <= limit for bucket in found if bucket)
    for bucket, following in itertools.pairwise(found):  # no bucket closes before it is full
        assert sum(sizes[number] for number in bucket) + sizes[following[-1]] > limit


def test_the_gradients_of_a_small_model_share_one_bucket():
    assert buckets([20_000 * 64 * 4, 64 * 4, 64 * 4 * 4, 16]) == [[0, 1, 2, 3]]
    assert buckets([BUCKET_BYTES, 1]) == [[1], [0]]
    assert buckets([]) == [[]]
