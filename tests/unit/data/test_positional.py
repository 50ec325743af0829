"""Sources by position give the examples that were asked for, whichever of their methods is used; others are refused."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distrain.data.batches import epoch_batches
from distrain.data.by_position.array_source import ArraySource
from distrain.data.by_position.batch_source import BatchSource
from distrain.data.by_position.transforms import Transform, random_generator
from distrain.data.labels.labels import labels_between
from distrain.data.plan import EpochPlan
from distrain.data.positional import positional_examples
from distrain.data.shuffle import shuffle_sizes
from distrain.errors import ConfigurationError, DataError

NUM = 53
X = np.arange(NUM * 3, dtype=np.float32).reshape(NUM, 3)
Y = np.arange(NUM) % 4
SPANS = np.array([[40, 53], [0, 13], [13, 26], [26, 40]])


class ByNumber:
    """Examples by number alone, with a count of each reading."""

    def __init__(self):
        self.reads = Counter()

    def __len__(self):
        return NUM

    def __getitem__(self, number):
        assert type(number) is int
        self.reads[number] += 1
        return X[number], Y[number]


class ByTake(ByNumber):
    """Several examples at once, as arrays."""

    def take(self, indices):
        self.reads.update(indices.tolist())
        return X[indices], Y[indices]


class ByGetItems(ByNumber):
    """Several examples at once, as PyTorch names it."""

    def __getitems__(self, numbers):
        return [self[number] for number in numbers]

    def take(self, count):
        raise AssertionError("a Dataset of Hugging Face takes the first examples by this name")


class ByRange(ByNumber):
    """Neighbours as arrays."""

    span_size = 13

    def read(self, start, stop):
        self.reads.update(range(start, stop))
        return X[start:stop], Y[start:stop]


class ByTakeAndRange(ByTake):
    """Several examples in any order, and neighbours."""

    def read(self, start, stop):
        return X[start:stop], Y[start:stop]


class ByRangeOfLists(ByRange):
    """Neighbours as a list of examples."""

    def read(self, start, stop):
        return [self[number] for number in range(start, stop)]


class Batches:
    """Batches by number, as a data set of Keras gives them."""

    num_batches = 6

    def __getitem__(self, number):
        return X[number * 10 : number * 10 + 10], Y[number * 10 : number * 10 + 10]


SOURCES = [
    ByNumber,
    ByTake,
    ByGetItems,
    ByRange,
    ByTakeAndRange,
    ByRangeOfLists,
    lambda: BatchSource(Batches(), "batches"),
]
SOURCES += [lambda: [(X[i], Y[i]) for i in range(NUM)], lambda: ArraySource(X, Y)]


def test_any_examples_of_a_window_come_in_their_order():
    sources = [positional_examples(make()) for make in SOURCES]

    @given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, NUM), middle=st.integers(0, NUM))
    def check(seed, count, middle):
        indices = np.random.default_rng(seed).permutation(NUM)[:count]
        numbers = np.concatenate([np.arange(*span) for span in SPANS])[indices]
        middle = min(middle, count)
        for place, examples in enumerate(sources):
            read = examples.load(SPANS, indices)
            for start, stop in {(0, count), (0, middle), (middle, count)}:
                if start < stop:
                    features, labels, weights = read(start, stop)
                    assert np.array_equal(features, X[numbers[start:stop]]), f"SOURCES[{place}]"
                    assert np.array_equal(labels, Y[numbers[start:stop]]), f"SOURCES[{place}]"
                    assert weights == ()

    check()


@pytest.mark.parametrize("num_replicas", [1, 2, 3])
def test_a_rank_reads_its_own_examples_once_an_epoch(num_replicas):
    total = Counter()
    for replica in range(num_replicas):
        source = ByNumber()
        examples = positional_examples(source)
        plan, order = EpochPlan(NUM, num_replicas, 4), examples.order(seed=3, epoch=1)
        source.reads.clear()
        batches = list(epoch_batches(examples, plan, order, replicas=range(replica, replica + 1), epoch=1))
        own = plan.positions_between(0, NUM, range(replica, replica + 1))
        wanted = Counter(order.examples(range(NUM))[own].tolist())
        idle = sum(int(batch.num_rows) == 0 for (batch,) in batches)  # fed an example that does not count
        assert (source.reads - wanted).total() == idle
        assert not wanted - source.reads
        total += wanted
    assert total == Counter(range(NUM))


class OfTwoForms(ByRange):
    """Neighbours whose dtype depends on where they stand."""

    def read(self, start, stop):
        return X[start:stop].astype("float64" if start and stop > start + 1 else "float32"), Y[start:stop]


def test_ranges_of_two_forms_are_refused():
    examples = positional_examples(OfTwoForms(), name="waves")
    with pytest.raises(DataError, match=r"waves: examples 13 to 25 are read as 0: float64 of \(3,\).* as 0: float32"):
        examples.load(SPANS[[1, 2]], np.arange(26))


class Counted(ByRange):
    """Neighbours, with a list of the ranges that were read."""

    def __init__(self):
        super().__init__()
        self.ranges = []

    def read(self, start, stop):
        self.ranges.append((start, stop))
        return super().read(start, stop)


def test_ranges_ascend_and_keep_to_the_groups_of_the_storage():
    source = Counted()
    examples = positional_examples(source)
    source.ranges.clear()
    spans = np.array([[20, 30], [0, 10], [10, 20], [40, 53]])
    examples.load(spans, np.random.default_rng(0).permutation(43))
    assert source.ranges == [(0, 13), (13, 26), (26, 30), (40, 52), (52, 53)]


def test_dicts_name_their_label_weight_and_inputs():
    element = {"age": 3, "image": [[1.0, 2.0]], "label": 1, "weight": 0.5}
    features, labels, weights = positional_examples([element, {**element, "age": 4}]).load(
        np.array([[0, 2]]), np.arange(2)
    )(0, 2)
    assert features["age"].tolist() == [3, 4]
    assert features["image"].shape == (2, 1, 2)
    assert (labels.tolist(), weights.tolist()) == ([1, 1], [0.5, 0.5])
    (alone, _, _) = positional_examples([{"image": [1.0, 2.0], "y": 0}]).load(np.array([[0, 1]]), np.arange(1))(0, 1)
    assert alone.tolist() == [[1.0, 2.0]]


def test_a_named_tuple_is_read_by_its_names_in_whatever_form():
    class Example(NamedTuple):
        label: int
        image: list[float]

    class InColumns(ByNumber):
        def take(self, indices):
            return Example(Y[indices], X[indices])

    alone = [Example(1, [1.0, 2.0]), Example(0, [3.0, 4.0])]
    features, labels, _ = positional_examples(alone).load(np.array([[0, 2]]), np.arange(2))(0, 2)
    assert (features.tolist(), labels.tolist()) == ([[1.0, 2.0], [3.0, 4.0]], [1, 0])
    features, labels, _ = positional_examples(InColumns()).load(np.array([[0, 9]]), np.arange(9)[::-1])(0, 9)
    assert (features.tolist(), labels.tolist()) == (X[8::-1].tolist(), Y[8::-1].tolist())
    with pytest.raises(DataError, match="example 1 has 'image', 'label' where example 0 has no names"):
        positional_examples([([1.0, 2.0], 1), alone[1]]).load(np.array([[0, 2]]), np.arange(2))(0, 2)


def test_structures_nest():
    element = ({"a": (np.ones(2), np.zeros(3)), "b": 1}, [np.ones(1), np.zeros(1)], (0.5, 2.0))
    features, labels, weights = positional_examples([element] * 3).load(np.array([[0, 3]]), np.arange(3))(1, 3)
    assert [value.shape for value in features["a"]] == [(2, 2), (2, 3)]
    assert [value.shape for value in labels] == [(2, 1), (2, 1)]
    assert weights.tolist() == [[0.5, 2.0]] * 2


class OnDevice:
    """A number in a form of its own, as tensors on a device are."""

    def __init__(self, value):
        self.value = value

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.value, dtype)


def test_labels_may_be_arrays_in_a_form_of_their_own():
    examples = positional_examples([(OnDevice([1.5, 2.5]), OnDevice(number)) for number in range(3)])
    features, labels, _ = examples.load(np.array([[0, 3]]), np.array([2, 0]))(0, 2)
    assert (features.tolist(), labels.tolist()) == ([[1.5, 2.5]] * 2, [2, 0])


def test_random_numbers_depend_on_seed_epoch_and_example_alone():
    def noisy(example, rng):
        return example[0] + rng.normal(size=3).astype("float32"), example[1]

    def read(source, numbers, *, seed=1, epoch=2):
        examples = positional_examples(source, transform=Transform(noisy, seed))
        return examples.load(np.array([[0, NUM]]), np.array(numbers), np.empty, epoch)(0, len(numbers))[0]

    wanted = np.stack([X[n] + random_generator(1, 2, n).normal(size=3).astype("float32") for n in (7, 3, 20)])
    for make in SOURCES:
        np.testing.assert_array_equal(read(make(), [7, 3, 20]), wanted)
    np.testing.assert_array_equal(read(ByNumber(), [3]), wanted[1:2])
    drawn = wanted - X[[7, 3, 20]]
    assert len(np.unique(drawn)) == drawn.size, "each example draws numbers of its own"
    assert not np.array_equal(read(ByNumber(), [3], epoch=3), wanted[1:2])
    assert not np.array_equal(read(ByNumber(), [3], seed=2), wanted[1:2])


@pytest.mark.parametrize(
    ("function", "is_random"),
    [
        (lambda example: example, False),
        (lambda example, rng: example, True),
        (lambda example, rng=None: example, True),
        (lambda example, generator: example, True),
        (lambda example, size=32: example, False),
        (dict, False),
    ],
)
def test_a_function_that_takes_a_second_argument_draws_random_numbers(function, is_random):
    assert Transform(function, 0).is_random is is_random


@pytest.mark.parametrize(
    ("elements", "words"),
    [
        ([(X[0], 0), (X[0][:2], 0)], r"example 1 has float32 of shape \(2,\) where example 0 has float32 of \(3,\)"),
        ([(X[0], 0), (X[0].astype("float64"), 0)], "example 1 has float64"),
        ([(X[0], 0), (X[0], 0.5)], "example 1 has float64"),
        ([(X[0], 0), (X[0], 0, 2.0)], "example 1 has another structure"),
        ([(X[0], 0), {"x": X[0]}], "example 1 has 'x' where example 0 has no names"),
        ([{"a": 1, "y": 0}, {"b": 1, "y": 0}], "example 1 has 'b', 'y' where example 0 has 'a', 'y'"),
        (
            [{"a": 1, "b": 2, "y": 0}, {"a": 1, "c": 1, "y": 0}],
            "example 1 has 'a', 'c', 'y' where example 0 has 'a', 'b', 'y'",
        ),
        ([(X[0], 0, 1.0), (X[0], 0, -1.0)], "example 1 has a weight that is negative"),
        ([(X[0], 0, 1.0), (X[0], 0, np.nan)], "example 1 has a weight that is negative or not finite"),
        ([(X[0], 0, 1.0), (X[0], 0, np.inf)], "example 1 has a weight that is negative or not finite"),
        ([("text", 0)], "example 0 has text, .* as features: .* with map="),
        ([(X[0], "spam")], "example 0 has text, .* as label"),
        ([(X[0], 0, 1, 1)], "example 0 is a tuple of 4 values"),
        ([[X[0], 0]], "example 0 is a list; give a tuple"),
        ([{"x": 1, "label": 0, "labels": 1}], "example 0 has 'label' and 'labels'"),
        ([{"label": 0}], "example 0 has no inputs beside 'label'"),
        ([(X[0], None), (X[0], 1)], "example 1 has another structure"),
        ([((), 0)], "example 0 has no features"),
        ([(None, 0)], "example 0 has no features"),
        ([None], "example 0 has no features"),
        ([(X[0].astype(complex), 0)], "example 0 has complex128 as features"),
    ],
)
def test_an_example_that_does_not_fit_is_named(elements, words):
    def read_all():
        count = len(elements)
        return positional_examples(elements).load(np.array([[0, count]]), np.arange(count))(0, count)

    with pytest.raises(DataError, match=words):
        read_all()


class Failing(ByNumber):
    """A source whose storage has a fault."""

    def __getitem__(self, number):
        if number == 5:
            raise OSError("bad sector")
        return super().__getitem__(number)


class Short(ByGetItems):
    """A source that gives too few examples."""

    def __getitems__(self, numbers):
        return super().__getitems__(numbers)[:5]


class WrongColumns(ByTake):
    """A source whose arrays have different lengths."""

    def take(self, indices):
        return (X[indices][:5], Y[indices]) if len(indices) > 5 else super().take(indices)


class InputsInList(ByNumber):
    """Two inputs as a list of arrays, where a list stands for the values of examples."""

    def take(self, indices):
        return [X[indices], X[indices]], Y[indices]


class UnequalLists(ByTake):
    """A source whose lists have different lengths."""

    def take(self, indices):
        return {"x": [0.0] * len(indices), "y": [0] * min(5, len(indices))}


class Nothing(ByTake):
    """A source that forgets to return."""

    def take(self, indices):
        return None if len(indices) > 5 else super().take(indices)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (InputsInList(), "cannot read example 0: ValueError: lists have a value for each example, and these have 1, 2"),
        (UnequalLists(), r"the UnequalLists cannot read examples 9 to 0: ValueError: zip\(\) argument 2 is shorter"),
        (Nothing(), r"the Nothing cannot read examples 9 to 0: TypeError"),
        (Failing(), r"the Failing cannot read example 5: OSError: bad sector \(.*test_positional.py, line \d+\)"),
        (Short(), "the Short returned 5 examples where 10 were asked for"),
        (WrongColumns(), "the WrongColumns returned 5 examples where 10 were asked for"),
    ],
)
def test_a_source_that_fails_is_named_with_the_example(source, words):
    with pytest.raises(DataError, match=words):
        positional_examples(source).load(np.array([[0, 10]]), np.arange(10)[::-1])(0, 10)


def test_a_failing_function_names_the_example():
    def decode(example):
        return 1 / (example[0][0] - 12), example[1]

    examples = positional_examples([([float(3 * n)], 0) for n in range(60)], transform=Transform(decode, 0))
    read = examples.load(np.array([[0, 6]]), np.arange(6))
    with pytest.raises(DataError, match=r"map= fails on example 4 of the list: ZeroDivisionError: .*line \d+"):
        read(0, 6)


def test_batches_of_unequal_size_are_refused():
    class Uneven(Batches):
        def __getitem__(self, number):
            features, labels = super().__getitem__(number)
            return (features[:9], labels[:9]) if number == 2 else (features, labels)

    with pytest.raises(DataError, match=r"Batch 2 of batches has 9 examples, but all batches before the last .* 10"):
        positional_examples(BatchSource(Uneven(), "batches")).load(SPANS, np.arange(NUM))


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (KeyError("lost"), r"batches cannot read batch 0: KeyError: 'lost' \(.*test_positional.py, line \d+\)"),
        ((), "Batch 0 of batches is not made of arrays with a row for each example"),
        ((X[:10], 3.0), "Batch 0 of batches is not made of arrays with a row for each example"),
    ],
)
def test_batches_that_are_none_are_refused(found, words):
    class Broken(Batches):
        def __getitem__(self, number):
            if isinstance(found, Exception):
                raise found
            return found

    with pytest.raises(DataError, match=words):
        BatchSource(Broken(), "batches")


def test_a_source_that_changes_is_told_and_still_resumes(caplog):
    class Noisy(ByNumber):
        def __getitem__(self, number):
            return np.random.default_rng().normal(size=3), Y[number]

    assert positional_examples(Noisy()).digest == positional_examples(Noisy()).digest
    assert "gives other values each time it is read" in caplog.text
    assert positional_examples(ByNumber()).digest != positional_examples([(X[i], Y[i]) for i in range(50)]).digest


class OneBuffer(ByNumber):
    """Each example in the same array."""

    def __init__(self):
        super().__init__()
        self.buffer = np.zeros(3, np.float32)

    def __getitem__(self, number):
        self.buffer[:] = X[number]
        return self.buffer, Y[number]


class Ascending(ByNumber):
    """Several examples in another order than asked for."""

    def take(self, indices):
        return X[np.sort(indices)], Y[np.sort(indices)]


@pytest.mark.parametrize("make", [OneBuffer, Ascending])
def test_examples_that_are_others_when_read_together_are_refused(make):
    with pytest.raises(DataError, match="example 52 has other values when it is read together with others"):
        positional_examples(make())


def test_inputs_in_a_list_are_read_by_batches_and_from_arrays():
    class TwoInputs(Batches):
        def __getitem__(self, number):
            features, labels = super().__getitem__(number)
            return [features[:, :1], features[:, 1:]], labels

    batches = BatchSource(TwoInputs(), "batches")
    for source in (batches, ArraySource([X[:, :1], X[:, 1:]], Y)):
        for count in (1, 2, 30):  # two examples are as many as there are inputs
            read = positional_examples(source).load(np.array([[0, count]]), np.arange(count)[::-1])
            (first, second), labels, _ = read(0, count)
            assert np.concatenate([first, second], axis=1).tolist() == X[:count][::-1].tolist()
            assert labels.tolist() == Y[:count][::-1].tolist()


def test_empty_sources_are_refused():
    with pytest.raises(ConfigurationError, match="the list is empty"):
        positional_examples([])


@pytest.mark.parametrize(("error", "words"), [(OSError("bad sector"), "OSError: bad sector"), (-1, "ValueError: ")])
def test_a_source_whose_length_fails_is_refused(error, words):
    class Unknown(ByNumber):
        def __len__(self):
            if isinstance(error, int):
                return error
            raise error

    with pytest.raises(ConfigurationError, match=f"the Unknown has no length: {words}"):
        positional_examples(Unknown())


def test_large_examples_have_small_windows_and_the_storage_has_no_part_in_the_order():
    assert shuffle_sizes(150_000) == (1789, 111)
    assert shuffle_sizes(400) == (65_536, 256)
    assert positional_examples(ByRange()).span_size == positional_examples(ByNumber()).span_size


class WithLabels(ByTake):
    """Labels that can be read without their features."""

    def take(self, indices):
        assert len(indices) < 10, "reads features for labels alone"
        return super().take(indices)

    def read_labels(self, start, stop):
        return Y[start:stop]


def test_labels_are_read_without_features_unless_map_may_change_them():
    examples = positional_examples(WithLabels())
    assert labels_between(examples, 3, NUM).tolist() == Y[3:].tolist()
    assert positional_examples(WithLabels(), transform=Transform(lambda example: example, seed=0)).read_labels is None
