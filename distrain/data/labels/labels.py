"""Labels of neighbouring examples, for counts of classes and for messages.

Decides: how much of a source is in memory while labels are read. Never: what a label means.

    labels_between(examples, 0, 1000)                  # in the order of the data
"""

from __future__ import annotations

from typing import Any

import numpy as np

from distrain.data.examples import Examples
from distrain.data.nests import concatenated


def labels_between(examples: Examples, start: int, stop: int) -> Any:
    """Labels of the examples start .. stop - 1, in the order of the data.

    Without `read_labels` whole examples are read, no more at a time than a shuffle window and a batch hold.
    """
    if examples.read_labels is not None:
        return examples.read_labels(start, stop)
    pieces = []
    for first in range(start, stop, examples.window_size):
        last = min(first + examples.window_size, stop)
        read = examples.load(np.array([[first, last]]), np.arange(last - first))
        for begin in range(0, last - first, examples.span_size):
            pieces.append(read(begin, min(begin + examples.span_size, last - first))[1])
    return concatenated(pieces)
