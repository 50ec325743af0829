"""The shuffled order of an epoch: which example stands at which position.

Decides: the permutation, from the number of examples, the seed and the epoch. Never: how many replicas read it, or in
which batches.

    >>> order = epoch_order(10, seed=1, epoch=0)
    >>> sorted(order.examples(range(10)).tolist()) == list(range(10))
    True

Spans of neighbouring examples are put in random order, and the examples of many spans are shuffled together. Such a
*shuffle window* needs a few hundred sequential reads and bounded memory, whatever the size of the data.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from distrain.config.setting import require

SHUFFLE_WINDOW = 65_536  # examples; about 30 MB of n-gram rows
SHUFFLE_SPAN = 256  # examples; a window is then a few hundred sequential reads
WINDOW_BYTES = 2**28  # of a window of large examples, such as images: two windows are held while the next one is read
SPANS_PER_WINDOW = 16  # fewest, so that a window of large examples still mixes distant ones


class ShuffleWindow(NamedTuple):
    """Examples that are shuffled together.

    Attributes:
        first_position: position of the window's first example in the epoch.
        spans: int64 `[s, 2]`: (start, stop) example numbers of each span, in the order of reading.
        permutation: int64 `[size]`: position within the window -> index into the concatenated spans; None for identity.
    """

    first_position: int
    spans: np.ndarray
    permutation: np.ndarray | None

    @property
    def size(self) -> int:
        """Number of examples."""
        return int((self.spans[:, 1] - self.spans[:, 0]).sum())

    def examples(self) -> np.ndarray:
        """Example numbers in the window's order, int64 `[size]`."""
        lengths = self.spans[:, 1] - self.spans[:, 0]
        offsets = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        examples = np.repeat(self.spans[:, 0], lengths) + offsets
        return examples if self.permutation is None else examples[self.permutation]


@dataclass(frozen=True)
class ShuffledOrder:
    """Position -> example for one epoch, computed window by window in O(window_size + n / span_size) memory.

    Attributes:
        num_examples: examples in the epoch, n.
        seed: seed of the random order, 0 .. 2**64 - 1.
        epoch: epoch number from 0.
        window_size: most examples in a shuffle window.
        span_size: neighbouring examples in a span; the last span may be shorter.
        shuffle: False gives the order of the data.
    """

    num_examples: int
    seed: int
    epoch: int
    window_size: int
    span_size: int
    shuffle: bool
    _windows: dict[int, ShuffleWindow] = field(default_factory=dict, repr=False, compare=False)
    _examples: dict[int, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def _spans(self) -> np.ndarray:
        starts = np.arange(0, self.num_examples, self.span_size, dtype=np.int64)
        spans = np.stack([starts, np.minimum(starts + self.span_size, self.num_examples)], axis=1)
        return spans[_permutation(len(spans), self.seed, self.epoch, stream=0)] if self.shuffle else spans

    @cached_property
    def _window_starts(self) -> np.ndarray:
        lengths = self._spans[:, 1] - self._spans[:, 0]
        ends = np.concatenate([[0], np.cumsum(lengths)])
        return np.append(ends[: -1 : self._spans_per_window], ends[-1])

    @property
    def _spans_per_window(self) -> int:
        return max(1, self.window_size // self.span_size)

    def window_of(self, position: int) -> ShuffleWindow:
        """The shuffle window that contains `position`."""
        index = int(np.searchsorted(self._window_starts, position, side="right")) - 1
        if index not in self._windows:
            first = int(self._window_starts[index])
            size = int(self._window_starts[index + 1]) - first
            permutation = _permutation(size, self.seed, self.epoch, stream=1 + index) if self.shuffle else None
            while len(self._windows) > 1:  # two windows stay, because a batch may reach into both
                del self._windows[next(iter(self._windows))]
            self._windows[index] = ShuffleWindow(first, self._spans_of(index), permutation)
        return self._windows[index]

    def windows_of(self, positions: range) -> Iterator[tuple[ShuffleWindow, range]]:
        """Yield each window that `positions` reach into, with the positions relative to the window."""
        start = positions.start
        while start < positions.stop:
            window = self.window_of(start)
            stop = min(positions.stop, window.first_position + window.size)
            yield window, range(start - window.first_position, stop - window.first_position)
            start = stop

    def spans_after(self, window: ShuffleWindow) -> np.ndarray:
        """The spans of the next window, int64 `[s, 2]`; empty after the last window."""
        return self._spans_of(int(np.searchsorted(self._window_starts, window.first_position, side="right")))

    def _spans_of(self, index: int) -> np.ndarray:
        return self._spans[index * self._spans_per_window : (index + 1) * self._spans_per_window]

    def examples(self, positions: range) -> np.ndarray:
        """Example numbers at `positions`, int64 `[len(positions)]`."""
        pieces = [np.zeros(0, np.int64)]
        for window, offsets in self.windows_of(positions):
            if window.first_position not in self._examples:
                self._examples.clear()
                self._examples[window.first_position] = window.examples()
            pieces.append(self._examples[window.first_position][offsets.start : offsets.stop])
        return np.concatenate(pieces)


def epoch_order(
    num_examples: int,
    *,
    seed: int,
    epoch: int,
    window_size: int = SHUFFLE_WINDOW,
    span_size: int = SHUFFLE_SPAN,
    shuffle: bool = True,
) -> ShuffledOrder:
    """The order of one epoch, a function of the arguments alone.

    `distrain.fit` has this order; examples larger than 4 KiB have smaller windows there, see `shuffle_sizes`.

    At most `window_size` examples are shuffled without any structure. Random bits are the raw output of Philox, which
    NumPy keeps stable between releases. A stable sort of these bits gives the permutation.

    Args:
        num_examples: examples in the epoch.
        seed: 0 .. 2**64 - 1.
        epoch: epoch number from 0.
        window_size: examples in a shuffle window.
        span_size: neighbouring examples in a span, which are read together.
        shuffle: False gives the order of the data.

    Raises:
        ConfigurationError: a number is out of its range.
    """
    smallest = {"num_examples": (num_examples, 0), "seed": (seed, 0), "epoch": (epoch, 0)}
    for name, (value, least) in {**smallest, "window_size": (window_size, 1), "span_size": (span_size, 1)}.items():
        require(least <= value < 2**64, name, value, f"at least {least} and below 2^64")
    return ShuffledOrder(num_examples, seed, epoch, window_size=window_size, span_size=span_size, shuffle=shuffle)


def shuffle_sizes(row_bytes: int) -> tuple[int, int]:
    """Return the examples in a shuffle window, and in a span of neighbours; the storage of the data has no part in it.

    Args:
        row_bytes: bytes of an example.

    >>> shuffle_sizes(400), shuffle_sizes(2**20)
    ((65536, 256), (256, 16))
    """
    window = max(SPANS_PER_WINDOW, min(SHUFFLE_WINDOW, WINDOW_BYTES // max(1, row_bytes)))
    return window, min(SHUFFLE_SPAN, window // SPANS_PER_WINDOW)


def _permutation(size: int, seed: int, epoch: int, *, stream: int) -> np.ndarray:
    bits = np.random.Philox(key=np.array([seed, epoch], np.uint64), counter=np.array([0, 0, 0, stream], np.uint64))
    return stable_order(bits.random_raw(size))


def stable_order(keys: np.ndarray) -> np.ndarray:
    """Equal to `np.argsort(keys, kind="stable")`, int64 `[n]`, and five times as fast where no keys are equal."""
    order = np.argsort(keys)  # the default kind uses vector instructions, but leaves the order of equal keys open
    ascending = keys[order]
    return order if np.all(ascending[1:] != ascending[:-1]) else np.argsort(keys, kind="stable")
