"""What a source of examples is, and the forms in which it gives features.

Decides: what a source must offer. Never: which rows are read, or in which order.

    take = examples.load(np.array([[0, 256]]), np.array([17, 3, 5]))     # of these neighbours, three in this order
    features, labels = take(0, 2)                                        # the first two of them

Features are an array, `CsrRows`, or a dict of these by input name; or `PackedRows`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from distrain.batch import Memory


class CsrRows(NamedTuple):
    """Sparse rows of one batch.

    Attributes:
        row_ids: int32 `[nnz]`, ascending: the row of each entry.
        columns: int32 `[nnz]`.
        values: float32 `[nnz]`.
    """

    row_ids: np.ndarray
    columns: np.ndarray
    values: np.ndarray


class PackedRows(NamedTuple):
    """Rows of word ids one after the other, as in `WordRows`.

    Attributes:
        row_ids: int32 `[packed_tokens / pad_multiple]`, ascending: the row of each chunk of `pad_multiple` tokens.
        words: int32 `[packed_tokens]`, 0 in gaps.
    """

    row_ids: np.ndarray
    words: np.ndarray


Features = Any  # np.ndarray | CsrRows | dict[str, Features] | PackedRows
Take = Callable[[int, int], tuple[Features, np.ndarray]]  # start, stop


class Load(Protocol):
    """Reads a block of examples."""

    def __call__(self, runs: np.ndarray, chosen: np.ndarray, memory: Memory = np.empty, /) -> Take:
        """Some examples of `runs` `[r, 2]` of neighbouring ones.

        Args:
            runs: int64 `[r, 2]`: (start, stop) of each.
            chosen: int64 `[k]`: numbers within the runs one after the other, none twice.
            memory: from where what is large in the block may come; it must keep its values until the last call of what
                is returned. What that gives is a copy.

        Returns:
            A function that gives (features, labels) of the chosen ones from a start up to a stop of 0 .. k.
        """


@dataclass(frozen=True)
class Examples:
    """`num_examples` examples.

    Attributes:
        num_examples: how many there are.
        load: reads some of them.
        num_columns: width of the sparse features, by input name ("" for a bare input), or words that there are for
            packed rows; empty where all features are dense.
        digest: names the data (hex).
        weights: float32 `[num_examples]`, the weight of each example in loss and metrics; None for 1.
        expect: lets the system begin to read the examples of some runs from disk, where they lie there.
        sizes: by input name, of sparse or packed rows: runs -> entries, or packed tokens, of each of their rows, int64.
    """

    num_examples: int
    load: Load
    num_columns: Mapping[str, int]
    digest: str
    weights: np.ndarray | None = None
    expect: Callable[[np.ndarray], None] = lambda runs: None
    sizes: Mapping[str, Callable[[np.ndarray], np.ndarray]] = field(default_factory=dict)
