"""Sources by position: anything with a length that returns an example for a number.

Decides: how a source is read: one example, several, or a range of neighbours. Never: which examples, or in which order;
knows no library of sources.

    >>> examples = positional_examples([([0.0, 1.0], 0), ([2.0, 3.0], 1)])
    >>> features, labels, weights = examples.load(np.array([[0, 2]]), np.array([1, 0]))(0, 2)
    >>> features.tolist(), labels.tolist()
    ([[2.0, 3.0], [0.0, 1.0]], [1, 0])

A list is such a source, and so are a `datasets.Dataset`, a map-style data set of PyTorch and a data source of Grain.
Two optional methods make a source faster. Each may also return a tuple or a dict of arrays that have a row per example.

    take(indices) -> list of examples      int64 `[k]`, in any order; PyTorch's name for it is `__getitems__`
    read(start, stop) -> list of examples  neighbours; without `take`, a shuffle window is read by ranges at once

Two more parts are optional:

    read_labels(start, stop) -> array      labels of neighbours, read without their features
    span_size                              neighbours that the storage unpacks together, such as a row group
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from distrain.batch import Memory
from distrain.data.by_position.elements import Layout
from distrain.data.by_position.source_reader import SourceReader, bytes_of, part_of, sampled_numbers
from distrain.data.by_position.transforms import Transform
from distrain.data.by_position.unpacked_source import for_shuffled_spans
from distrain.data.examples import Examples, RowNests, RowReader
from distrain.data.nests import leaves
from distrain.data.shuffle import shuffle_sizes
from distrain.data.workers.pool import WorkerPool
from distrain.data.workers.reading import read_by_workers
from distrain.errors import DataError

_LOG = logging.getLogger(__name__)

FEW_EXAMPLES = 2  # this process reads so few itself: the sample of a model, the example of an idle replica


def positional_examples(
    source: Any, *, transform: Transform | None = None, name: str = "", workers: WorkerPool | None = None
) -> Examples:
    """Use a source by position as examples.

    Args:
        source: has `__len__` and `__getitem__(int)`, and perhaps `take` and `read`.
        transform: changes each example.
        name: the source's name in messages; default: its type.
        workers: processes that read and transform the examples as long as they run; None reads in this process.

    Raises:
        ConfigurationError: the source is empty.
        DataError: the first example cannot be read, or holds something that is no number.
    """
    reader = SourceReader(source, name or f"the {type(source).__name__}", transform)
    num_examples, layout = reader.length(), reader.layout()
    window, span = shuffle_sizes(layout.row_bytes)
    readers = [reader, reader]  # of neighbours, and of shuffled spans
    warnings: list[str] = []  # for a user who shuffles
    if reader.reads_ranges_alone:
        sizes = {"num_examples": num_examples, "window": window, "span": span}
        shuffled, warnings = for_shuffled_spans(source, reader.name, **sizes)
        readers[1] = reader if shuffled is source else replace(reader, source=shuffled)
    has_work = transform is not None or not reader.has_elements
    shared = None
    if workers is not None and workers.size and has_work:
        first = workers.add(reader, layout)
        shared = [first, first if readers[1] is reader else workers.add(readers[1], layout)]

    def load(spans: np.ndarray, indices: np.ndarray, memory: Memory = np.empty, epoch: int = 0) -> RowReader:
        numbers = np.concatenate([np.arange(start, stop) for start, stop in spans.tolist()])[indices]
        is_shuffled = bool(np.any(spans[1:, 0] != spans[:-1, 1]))
        while is_shuffled and warnings:
            _LOG.warning(warnings.pop())
        if shared is not None and shared[0].is_running and len(indices) > FEW_EXAMPLES:
            return read_by_workers(shared[is_shuffled], numbers, spans, indices, epoch)
        own = readers[is_shuffled]
        held = own.read_spans(spans, indices) if own.reads_ranges_alone and len(indices) else None

        def read(start: int, stop: int) -> RowNests:
            found = None if held is None else part_of(held, slice(start, stop))
            return own.read(layout, numbers[start:stop], epoch=epoch, found=found)

        return read

    digest = _digest(reader, layout, num_examples)
    examples = Examples(num_examples, load, {}, digest, window_size=window, span_size=span)
    read_labels = getattr(source, "read_labels", None) if transform is None else None  # `transform` may change labels
    return replace(examples, read_labels=read_labels, loads_ahead=shared is not None)


def _digest(reader: SourceReader, layout: Layout, num_examples: int) -> str:
    """Return a digest of the length, the layout and a few examples, hex.

    A source whose examples change from one read to the next has a digest without examples, and a warning says so.
    """
    digest = hashlib.sha256(f"{num_examples}; {layout}".encode())
    # Each example is read twice in turn: storage that holds neighbours together unpacks them once.
    samples = [
        (_sample(reader, layout, number), _sample(reader, layout, number)) for number in sampled_numbers(num_examples)
    ]
    if all(first == second for first, second in samples):
        _check_several(reader, layout, num_examples, samples)
        digest.update(b"".join(first for first, _ in samples))
    else:
        _LOG.warning(
            f"{reader.name} gives other values each time it is read, so the model depends on the number of replicas. "
            "Draw random numbers in map=, from its second argument, and let map= change no array of the source."
        )
    return digest.hexdigest()


def _check_several(
    reader: SourceReader, layout: Layout, num_examples: int, samples: Sequence[tuple[bytes, bytes]]
) -> None:
    """Compare the last and the first example, read at once in this order, with `samples`, read one by one."""
    if num_examples < 2 or reader.reads_ranges_alone:
        return
    found = reader.read(layout, np.array([num_examples - 1, 0]), epoch=0)
    for row, number, (alone, _) in ((0, num_examples - 1, samples[-1]), (1, 0, samples[0])):
        if b"".join(value[row].tobytes() for part in found for _, value in leaves(part)) != alone:
            raise DataError(
                f"{reader.name}: example {number} has other values when it is read together with others. Return a new "
                "array for each example, and several examples in the order of their numbers."
            )


def _sample(reader: SourceReader, layout: Layout, number: np.int64) -> bytes:
    return bytes_of(reader.read(layout, np.array([number]), epoch=0))
