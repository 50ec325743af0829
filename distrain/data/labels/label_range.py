"""Labels that are no class of the model are an error as they are read, before a step computes with them.

Decides: which labels a range contains, and what the error says. Never: which model or loss needs which range.

    train = with_label_ranges(job.train, {"": LabelRange(num_classes=4)})
    train = with_label_ranges(job.train, {"topic": LabelRange(4), "mood": LabelRange(3, allowed=frozenset({-1}))})

TensorFlow's loss of sparse labels fails on a CPU and returns NaN on a GPU, and neither names the labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from distrain.batch import Memory
from distrain.data.examples import Examples, RowNests, RowReader
from distrain.data.labels.labels import labels_between
from distrain.data.nests import leaves
from distrain.errors import DataError

SCANNED_ROWS = 2**16  # labels that an error describes, besides those of its batch
SCANNED_BYTES = 2**26  # bound of these labels, which may be masks of pictures


@dataclass(frozen=True)
class LabelRange:
    """The labels of one output.

    Attributes:
        num_classes: classes of the output; labels are 0 .. num_classes - 1.
        allowed: further labels, such as the loss's `ignore_class`.
    """

    num_classes: int
    allowed: frozenset[int] = frozenset()

    def misses(self, labels: np.ndarray) -> np.ndarray:
        """Which labels are outside the range; as in Keras, the fraction of a label is cut off."""
        missed = ~((labels > -1) & (labels < self.num_classes))  # NaN is no label either
        for label in self.allowed:
            missed &= labels != label
        return missed


def with_label_ranges(examples: Examples, ranges: Mapping[str, LabelRange]) -> Examples:
    """Return the examples with a check of each batch of labels that is read.

    Args:
        examples: any examples.
        ranges: range by name of the label (see `nests`), "" for a single array of labels; other labels stay unchecked.

    Raises (the reader does):
        DataError: a label is outside its range.
    """

    def load(spans: np.ndarray, indices: np.ndarray, memory: Memory = np.empty, epoch: int = 0) -> RowReader:
        read_rows = examples.load(spans, indices, memory, epoch)

        def read(start: int, stop: int) -> RowNests:
            rows = read_rows(start, stop)
            for name, labels in leaves(rows[1]):
                if name in ranges and (missed := ranges[name].misses(labels)).any():
                    first = int(np.argwhere(missed)[0][0])
                    numbers = np.concatenate([np.arange(*span) for span in spans.tolist()])
                    raise _error(examples, name, ranges[name], labels, int(numbers[indices[start + first]]), first)
            return rows

        return read

    return replace(examples, load=load)


def _error(
    examples: Examples, name: str, wanted: LabelRange, labels: np.ndarray, example: int, index: int
) -> DataError:
    num_rows = min(SCANNED_ROWS, max(1, SCANNED_BYTES // max(1, labels[:1].nbytes)), examples.num_examples)
    scanned = dict(leaves(labels_between(examples, 0, num_rows)))[name]
    found = np.concatenate([scanned.ravel(), labels.ravel()])
    found = found[np.isfinite(found) & ~np.isin(found, list(wanted.allowed))]
    missed = labels[index][wanted.misses(labels[index])].ravel()[0] if labels.ndim > 1 else labels[index]
    output = f"the output {name!r}" if name else "the model"
    allowed = "".join(f" or {label}" for label in sorted(wanted.allowed))
    named = f"labels{f' {name!r}' if name else ''}"
    extent = f"The {named} run from {found.min()} to {found.max()}" if found.size else f"The {named} are no numbers"
    return DataError(
        f"{extent}, and example {example} has {missed}, but {output} has {wanted.num_classes} outputs: labels count "
        f"from 0, so give 0 to {wanted.num_classes - 1}{allowed}."
    )
