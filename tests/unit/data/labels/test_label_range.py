"""Labels outside the classes of a model: the error names the label and its example, and all other labels pass."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from distrain.data.batches import epoch_batches
from distrain.data.labels.label_range import LabelRange, with_label_ranges
from distrain.data.plan import EpochPlan
from distrain.data.shuffle import epoch_order
from distrain.data.sources import array_examples
from distrain.errors import DataError


def labels_fed(labels, ranges, *, shuffle=True):
    n = len(next(iter(labels.values())) if isinstance(labels, dict) else labels)
    examples = with_label_ranges(array_examples(np.zeros((n, 1)), labels), ranges)
    order = epoch_order(n, seed=1, epoch=0, window_size=20, span_size=4, shuffle=shuffle)
    steps = epoch_batches(examples, EpochPlan(n, 3, 5), order, replicas=range(3))
    return [batch.labels for step in steps for batch in step if batch.num_rows]


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (
            np.arange(40) % 4 + 1,
            r"labels run from 1 to 4, and example \d+ has 4, but the model has 4 outputs",
        ),
        (np.where(np.arange(40) % 2, 1, -1), r"run from -1 to 1, and example \d+ has -1"),
        (np.where(np.arange(40) == 17, 9, 0).astype(np.uint8), "run from 0 to 9, and example 17 has 9"),
        (np.where(np.arange(40) == 17, 4.0, 0)[:, None], "example 17 has 4.0"),
        (np.where(np.arange(40) == 17, np.nan, 0), "run from 0.0 to 0.0, and example 17 has nan"),
        (np.full(40, np.nan), r"The labels are no numbers, and example \d+ has nan"),
        (np.where(np.arange(120) == 53, 5, 3).reshape(40, 3), "example 17 has 5"),
        (np.where(np.arange(40) == 39, 2**63, 0).astype(np.uint64), f"example 39 has {2**63}"),
    ],
)
def test_the_error_names_the_label_and_its_example(labels, words):
    with pytest.raises(DataError, match=words):
        labels_fed(labels, {"": LabelRange(4)})


def test_the_error_names_the_output():
    labels = {"topic": np.arange(40) % 4, "mood": np.arange(40) % 4}
    with pytest.raises(DataError, match=r"labels 'mood' run from 0 to 3, .* the output 'mood' has 3 outputs"):
        labels_fed(labels, {"topic": LabelRange(4), "mood": LabelRange(3)})
    assert len(labels_fed(labels, {"topic": LabelRange(4)})) == 8  # labels without a range stay unchecked


@given(
    hnp.arrays(
        st.sampled_from([np.int8, np.int64, np.float32, np.uint16]),
        (23,),
        elements=st.integers(0, 3),
        fill=st.nothing(),
    ),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_labels_of_the_range_pass_unchanged(labels, ignored):
    if ignored and labels.dtype.kind != "u":
        labels[labels == 3] = -1
    fed = labels_fed(labels, {"": LabelRange(4, allowed=frozenset({-1}))}, shuffle=False)
    assert np.concatenate(fed).tolist() == labels.tolist()


def test_an_ignored_class_is_no_part_of_the_range_that_the_error_tells():
    labels = np.where(np.arange(40) % 5 == 0, 255, np.arange(40) % 4 + 1)
    with pytest.raises(DataError, match=r"run from 1 to 4, .* 0 to 3 or 255"):
        labels_fed(labels, {"": LabelRange(4, allowed=frozenset({255}))})
