"""All processes take the same branch: what they must agree on, and what happens when they do not.

Decides: when the processes of a run are alike enough to train together, and how an error on one reaches all. Never: how
bytes travel between them.

    job = together(distribution, lambda: open_job(config))      # fails on all ranks alike, if it fails on any
    check_alike(distribution, {"seed": "0", "data": digest})    # RankError names the rank and the field
    epochs = largest(distribution, 3)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from distrain.cluster.process_group import ProcessGroup
from distrain.errors import (
    CheckpointError,
    ConfigurationError,
    DataError,
    DistrainError,
    DivergenceError,
    RankError,
    StopRequested,
)

Made = TypeVar("Made")

_KINDS = (ConfigurationError, DataError, CheckpointError, RankError, DivergenceError, StopRequested)
_KIND_OF_CODE = {kind.exit_code: kind for kind in _KINDS}


def run_on_all_ranks(group: ProcessGroup, action: Callable[[], Made], *, where: str = "") -> Made:
    """Do something on every process that may fail on some of them.

    Args:
        group: who takes part; all must call this.
        action: what is done.
        where: begins the message of an error, as in "step 17: ".

    Returns:
        What `action` gave here.

    Raises:
        DistrainError: the first failing rank's, of the same kind and with the same message on every rank.
        Exception: this is the first failing rank, and what `action` raised is no error of the user's.
    """
    made: list[Made] = []
    failure: Exception | None = None
    try:
        made.append(action())
    except Exception as error:
        failure = error
    told = {}
    if failure is not None:
        code = failure.exit_code if isinstance(failure, DistrainError) else DistrainError.exit_code
        told = {"code": code, "message": where + (str(failure) or type(failure).__name__)}
    heard = [json.loads(content) for content in group.all_gather_bytes(json.dumps(told).encode())]
    failing = [rank for rank, content in enumerate(heard) if content]
    if not failing:
        return made[0]
    if failing[0] == group.rank and failure is not None and not isinstance(failure, DistrainError):
        raise failure
    code, message = heard[failing[0]]["code"], heard[failing[0]]["message"]
    told_error = _KIND_OF_CODE.get(code, DistrainError)(message)
    told_error.reporting_rank = failing[0]
    raise told_error from failure


def check_alike(group: ProcessGroup, facts: Mapping[str, str]) -> None:
    """Check that all processes hold the same facts, compared by digest.

    Args:
        group: who takes part; all must call this.
        facts: what must be the same, by name.

    Raises:
        RankError: they differ; names the first rank that differs from rank 0, the fact, and both values.
    """
    content = json.dumps(dict(facts), sort_keys=True).encode()
    if len(set(group.all_gather_bytes(hashlib.sha256(content).digest()))) == 1:
        return
    everyone = [json.loads(theirs) for theirs in group.all_gather_bytes(content)]
    for rank, theirs in enumerate(everyone):
        for name in sorted({*theirs, *everyone[0]}):
            here, there = theirs.get(name, "missing"), everyone[0].get(name, "missing")
            if here != there:
                differ = RankError(
                    f"rank {rank} differs from rank 0 in {name}: {_shortened(here)} there, {_shortened(there)} on rank "
                    "0. Give all ranks the same command, code, packages and data."
                )
                differ.reporting_rank = 0
                raise differ


def max_over_ranks(group: ProcessGroup, value: int) -> int:
    """The largest value that any process holds; all must call this."""
    return max(int(content) for content in group.all_gather_bytes(str(value).encode()))


def code_digest() -> str:
    """SHA-256 (hex) of distrain's own source files: tells two checkouts of one version apart."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(f"{path.relative_to(package).as_posix()}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _shortened(value: str) -> str:
    return value if len(value) <= 80 else f"{value[:64]}..."
