"""A user without rights, because the tests often run as root, whom the system refuses nothing.

with unprivileged():
    path.read_bytes()                      # PermissionError, unless everybody may read the file
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

NOBODY = 65534


@contextmanager
def unprivileged() -> Iterator[None]:
    """Take the rights of nobody in this block, if this process has the rights of root."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
