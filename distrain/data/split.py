"""Parts of a source of examples: the first, the last, and some by their numbers.

Decides: which examples each part holds. Never: copies or reads an example.

    >>> from distrain.data.sources import array_examples
    >>> first, last = split_examples(array_examples(np.arange(10), np.arange(10)), 7)
    >>> first.num_examples, last.load(np.array([[0, 3]]), np.arange(3))(0, 3)[1].tolist()
    (7, [7, 8, 9])
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from distrain.batch import Memory
from distrain.data.examples import Examples, RowReader
from distrain.data.labels.labels import labels_between


def split_examples(examples: Examples, count: int) -> tuple[Examples, Examples]:
    """Return the first `count` examples and the rest, both in the order of the data."""
    first = replace(examples, num_examples=count, digest=f"{examples.digest}:{count}")

    def load(spans: np.ndarray, indices: np.ndarray, memory: Memory = np.empty, epoch: int = 0) -> RowReader:
        return examples.load(spans + count, indices, memory, epoch)

    def shifted(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
        return lambda spans: function(spans + count)

    last = replace(
        examples,
        num_examples=examples.num_examples - count,
        load=load,
        digest=f"{examples.digest}:-{count}",
        will_need=lambda spans: examples.will_need(spans + count),
        row_sizes={name: shifted(sizes) for name, sizes in examples.row_sizes.items()},
        read_labels=lambda start, stop: labels_between(examples, start + count, stop + count),
    )
    return first, last


def chosen_examples(examples: Examples, numbers: np.ndarray) -> Examples:
    """Return the examples of some numbers, in the order of the numbers."""

    def singles(spans: np.ndarray) -> np.ndarray:
        chosen = np.concatenate([numbers[:0], *(numbers[start:stop] for start, stop in spans)])
        return np.stack([chosen, chosen + 1], axis=1)

    def load(spans: np.ndarray, indices: np.ndarray, memory: Memory = np.empty, epoch: int = 0) -> RowReader:
        return examples.load(singles(spans), indices, memory, epoch)

    def of_singles(function: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
        return lambda spans: function(singles(spans))

    return replace(
        examples,
        num_examples=len(numbers),
        load=load,
        digest=f"{examples.digest}:{numbers.tolist()}",
        will_need=lambda spans: examples.will_need(singles(spans)),
        row_sizes={name: of_singles(sizes) for name, sizes in examples.row_sizes.items()},
        read_labels=None,
    )
