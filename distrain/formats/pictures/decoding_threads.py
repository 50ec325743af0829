"""Pictures of a batch decoded in threads, because Pillow and kernels release the interpreter's lock.

Decides: how many threads a process has. Never: decodes a picture itself.

    >>> in_threads(len, [b"ab", b"c"])
    [2, 1]

Worker processes of `--data-workers` decode in one thread each, and ranks of one host share its cores.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, TypeVar

from distrain.cluster.placement import own_cores
from distrain.cluster.world import find_world
from distrain.data.workers.process import WORKER_VARIABLE
from distrain.errors import ConfigurationError

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_threads(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Return the result of `function` for each item; if several fail, raise the first item's error."""
    count = _num_threads() if len(items) > 1 else 1
    if count == 1:
        return [function(item) for item in items]
    return list(_threads(os.getpid(), count).map(function, items))


@cache
def _threads(process: int, count: int) -> Any:
    """Return the threads of a process; a forked process has none of its parent's."""
    return ThreadPoolExecutor(count, thread_name_prefix="distrain-decode")


@cache
def _num_threads() -> int:
    if WORKER_VARIABLE in os.environ or multiprocessing.parent_process() is not None:
        return 1
    try:
        return own_cores(os.environ, find_world(os.environ))
    except ConfigurationError:  # the run itself has told what is wrong with the environment
        return 1
