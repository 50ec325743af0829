"""Functions that change one example: decode, tokenize, augment.

Decides: the random generator of an example, and what the error of a failing function says. Never: reads an example.

    >>> flip = Transform(lambda pixels, rng: pixels if rng.random() < 0.5 else pixels[::-1], seed=1)
    >>> flip.apply([[1, 2, 3]], numbers=[7], epoch=0, name="a list")
    [[1, 2, 3]]

The random generator is a function of (seed, epoch, example number). So an augmented example is the same at every number
of replicas, and after a resume.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from distrain.errors import DataError, DistrainError, cause


@dataclass(frozen=True)
class Transform:
    """A function of one example, or of an example and a `numpy.random.Generator`.

    Attributes:
        function: `function(example)`, or `function(example, rng)` where a second argument is needed or named `rng`.
        seed: seed of all random generators, 0 .. 2**64 - 1.
    """

    function: Callable[..., Any]
    seed: int

    @cached_property
    def is_random(self) -> bool:
        """Whether the function takes a random generator."""
        try:
            parameters = inspect.signature(self.function).parameters.values()
        except (TypeError, ValueError):  # a function in C may hide its arguments
            return False
        positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        return any(p.name == "rng" or p.default is p.empty for p in positional[1:2])

    def apply(self, found: Sequence[Any], *, numbers: Sequence[int], epoch: int, name: str) -> list[Any]:
        """Return the changed examples.

        Args:
            found: the examples.
            numbers: number of each example.
            epoch: epoch from 0.
            name: name of the source in messages.

        Raises:
            DataError: the function failed; the message names the example.
        """
        changed = []
        for element, number in zip(found, numbers, strict=True):
            try:
                rng = (random_generator(self.seed, epoch, number),) if self.is_random else ()
                changed.append(self.function(element, *rng))
            except DistrainError:
                raise
            except Exception as error:
                raise DataError(f"map= fails on example {number} of {name}: {cause(error)}.") from error
        return changed


def random_generator(seed: int, epoch: int, example: int) -> np.random.Generator:
    """Return the random generator of one example in one epoch."""
    counter = np.array([0, 0, example, 2**63], np.uint64)  # the shuffled order has other counters of the same key
    return np.random.Generator(np.random.Philox(key=np.array([seed, epoch], np.uint64), counter=counter))
