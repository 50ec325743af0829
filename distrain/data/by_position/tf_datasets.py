"""A `tf.data.Dataset` as examples in order: whether its elements are examples or batches of them.

Decides: which elements are cut into examples, and which are refused or told. Never: imports TensorFlow.

    is_cut(dataset, "train")                         # False: each element is an example
    unbatched(dataset.as_numpy_iterator())           # yields the examples of batches

Elements are batches where the first dimension of all arrays is unknown. `.batch(32, drop_remainder=True)` makes this
dimension known. Such a batch of 32 pictures looks like one example, and only the operations of the data set tell.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from distrain.data.by_position.source_reader import part_of
from distrain.data.nests import leaves
from distrain.errors import ConfigurationError, DataError
from distrain.keras_backend.tf_data import BATCHING, last_operations

_LOG = logging.getLogger(__name__)


def is_cut(dataset: Any, name: str) -> bool:
    """Whether the elements of a `tf.data.Dataset` are batches that are cut into examples.

    Raises:
        ConfigurationError: the elements are batches of one size, and look like examples.
    """
    shapes = [spec.shape for _, spec in leaves(dataset.element_spec) if hasattr(spec, "shape")]
    if not shapes or not all(shape.rank for shape in shapes):
        return False
    sizes = {shape[0] for shape in shapes}
    if sizes == {None}:
        return True
    kinds = last_operations(dataset)
    if len(sizes) == 1 and kinds and kinds[-1] in BATCHING:
        size = sizes.pop()
        what = f"{name}: the data set makes batches of {size} by .batch({size}, drop_remainder=True)"
        if len(kinds) == 1:
            raise ConfigurationError(
                f"{what}. Add .unbatch() for examples; or, if each batch is one example, .map(lambda *parts: parts)."
            )
        _LOG.warning(f"{what}, and each batch counts as one example. If it holds several, add .unbatch() at the end.")
    return False


def unbatched(batches: Iterator[Any]) -> Iterator[Any]:
    """Yield the examples of batches.

    Raises:
        DataError: the arrays of a batch have different numbers of rows.
    """
    for batch in batches:
        sizes = {len(value) for _, value in leaves(batch)}
        if len(sizes) > 1:
            raise DataError(f"a batch has arrays of {', '.join(map(str, sorted(sizes)))} rows; give .unbatch() data")
        for row in range(sizes.pop()):
            yield part_of(batch, row)
