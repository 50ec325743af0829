"""Ranks agree before they train together.

Decides: whether all ranks hold equal values, and what the error says when they differ. Never: how bytes travel between
ranks.

    >>> from distrain.cluster.agreement import check_alike, max_over_ranks
    >>> from distrain.cluster.process_group import SingleProcess
    >>> check_alike(SingleProcess(), {"seed": "0"})      # RankError names the rank and the value that differs
    >>> max_over_ranks(SingleProcess(), 3)
    3
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from distrain.cluster.process_group import ProcessGroup
from distrain.errors import RankError


def check_alike(group: ProcessGroup, values: Mapping[str, str]) -> None:
    """Check that all ranks hold the same values, compared by digest.

    Args:
        group: every rank must call this.
        values: what must be equal, by name.

    Raises:
        RankError: the values differ. The message names the first rank that differs from rank 0 and both values.
    """
    own = json.dumps(dict(values), sort_keys=True).encode()
    if len(set(group.all_gather_bytes(hashlib.sha256(own).digest()))) == 1:
        return
    all_values = [json.loads(content) for content in group.all_gather_bytes(own)]
    for rank, others in enumerate(all_values):
        for name in sorted({*others, *all_values[0]}):
            value, expected = others.get(name, "missing"), all_values[0].get(name, "missing")
            if value != expected:
                raise RankError(
                    f"rank {rank} differs from rank 0 in {name}: {_shortened(value)} there, {_shortened(expected)} on "
                    "rank 0. Give all ranks the same command, code, packages and data.",
                    reporting_rank=0,
                )


def max_over_ranks(group: ProcessGroup, value: int) -> int:
    """Return the largest value of any rank; every rank must call this."""
    return max(int(content) for content in group.all_gather_bytes(str(value).encode()))


@cache
def code_digest() -> str:
    """Return the SHA-256 (hex) of distrain's source files, which differs between two checkouts of one version."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _shortened(value: str) -> str:
    return value if len(value) <= 80 else f"{value[:64]}..."
