"""Makes batches in a thread while the consumer computes.

Decides: how many batches are made ahead. Never: what a batch contains.

    >>> with prefetched(iter(range(3))) as items:
    ...     list(items)
    [0, 1, 2]
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

PREFETCH_STEPS = 4  # fewest steps made ahead
PREFETCH_BYTES = 2**25  # small batches are made further ahead, up to 32 MiB, to cover the reading of a shuffle window
MAX_PREFETCH_STEPS = 64

Item = TypeVar("Item")


@contextmanager
def prefetched(
    items: Iterator[Item], *, depth: int = PREFETCH_STEPS, in_thread: bool = True
) -> Iterator[Iterator[Item]]:
    """Make items in a thread, which ends with the context.

    An exception that `items` raises reaches the consumer after the items before it. The thread makes items in bursts:
    at `depth` items ahead it sleeps until the consumer has taken three quarters. Each time the thread wakes, it takes
    the interpreter lock from the consumer, which costs a tenth of a small step.

    Args:
        items: batches, single or in lists.
        depth: items made ahead; more when items as large as the first fit into `PREFETCH_BYTES`.
        in_thread: False starts no thread and makes each item on request.
    """
    if not in_thread:
        yield items
        return
    ready: deque[tuple[str, Any]] = deque()
    changed = threading.Condition()
    limit = depth
    closed = False

    def put(kind: str, content: Any = None) -> None:
        with changed:
            if len(ready) >= limit:
                changed.wait_for(lambda: closed or len(ready) <= limit // 4)
            ready.append((kind, content))
            if len(ready) == 1:
                changed.notify_all()

    def produce() -> None:
        nonlocal limit
        try:
            for number, item in enumerate(items):
                if number == 0:
                    limit = prefetch_depth(_bytes_of(item), at_least=depth)
                put("item", item)
                if closed:
                    return
            put("end")
        except BaseException as error:  # the consumer raises whatever stopped the thread
            put("error", error)

    def consume() -> Iterator[Item]:
        while True:
            if not ready:
                with changed:
                    changed.wait_for(lambda: ready)
            kind, content = ready.popleft()
            if len(ready) == limit // 4:
                with changed:
                    changed.notify_all()
            if kind == "end":
                return
            if kind == "error":
                raise content
            yield content

    thread = threading.Thread(target=produce, name="distrain-prefetch", daemon=True)
    thread.start()
    try:
        yield consume()
    finally:
        with changed:
            closed = True
            changed.notify_all()
        thread.join()


def prefetch_depth(num_bytes: int, *, at_least: int = PREFETCH_STEPS) -> int:
    """Number of items of `num_bytes` bytes to make ahead; `at_least` when `num_bytes` is 0, for an unknown size."""
    return max(at_least, min(MAX_PREFETCH_STEPS, PREFETCH_BYTES // num_bytes) if num_bytes else 0)


def _bytes_of(item: Any) -> int:
    """Total bytes of the arrays in nested tuples, lists and dicts."""
    if isinstance(item, dict):
        return sum(map(_bytes_of, item.values()))
    if isinstance(item, (list, tuple)):
        return sum(map(_bytes_of, item))
    return item.nbytes if isinstance(item, np.ndarray) else 0
