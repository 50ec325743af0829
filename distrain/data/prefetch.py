"""Makes batches in a thread while their consumer computes.

Decides: how far ahead batches are made. Never: what a batch holds.

    with prefetched(batches) as ready:
        for batch in ready:
            ...
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np

PREFETCH_STEPS = 4  # steps made ahead of the device, at least
PREFETCH_BYTES = 2**25  # and as many more as fit in here: small batches outrun the reading of a block
MAX_PREFETCH_STEPS = 64

Item = TypeVar("Item")


@contextmanager
def prefetched(items: Iterator[Item], *, depth: int = PREFETCH_STEPS, beside: bool = True) -> Iterator[Iterator[Item]]:
    """Make items in a thread beside their consumer; the thread ends with the context.

    An exception of `items` reaches the consumer in its place. Items are made in bursts: once the thread is `depth`
    ahead it sleeps until three quarters of that are taken, as every time that it wakes it takes the interpreter from
    its consumer for a moment (a tenth of a small step).

    Args:
        items: batches, alone or in lists.
        depth: items made ahead, at most; more, where items are like the first and fit into `PREFETCH_BYTES`.
        beside: False: there is no thread, and each item is made when it is asked for.
    """
    if not beside:
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
        except BaseException as error:  # whatever it is, it belongs to the consumer
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
    """Items of so many bytes that are made ahead, at most; `at_least` where their size is not known, 0."""
    return max(at_least, min(MAX_PREFETCH_STEPS, PREFETCH_BYTES // num_bytes) if num_bytes else 0)


def _bytes_of(item: Any) -> int:
    """Bytes of the arrays in a structure of tuples, lists and dicts."""
    if isinstance(item, dict):
        return sum(map(_bytes_of, item.values()))
    if isinstance(item, (list, tuple)):
        return sum(map(_bytes_of, item))
    return item.nbytes if isinstance(item, np.ndarray) else 0
