"""Checks that weights and optimizer are finite, and equal on all ranks and replicas, before they are saved.

Decides: which variables must be equal, and who is named if they differ. Never: saves, or repairs a variable.

    check = StateCheck(setup)
    check.every(event)                         # the action of --check-every
    arrays = check.arrays(step=1200)           # all variables, checked, for a checkpoint
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np

from distrain.cluster.placement import own_cores
from distrain.cluster.world import find_world
from distrain.errors import DivergenceError, RankError
from distrain.keras_backend.private_names import state_variables
from distrain.models.state import as_array
from distrain.training.loop.events import StepEvent
from distrain.training.loop.loop import CURE
from distrain.training.run_setup import RunSetup

MAX_THREADS = 8  # read memory as fast as it goes
MAX_NAMED = 3  # variables or ranks that one message names

T = TypeVar("T")
Digests = dict[str, int]  # name of a variable -> CRC-32 of its bytes


class _Seen(NamedTuple):
    """What a check saw of a variable.

    Attributes:
        array: the value; None on ranks that save nothing, where only a few values are in memory at a time.
        is_finite: see `is_finite`.
        digest: see `digest`; 0 if nothing is compared.
    """

    array: np.ndarray | None
    is_finite: bool
    digest: int


class StateCheck:
    """Checks the variables of a run; all ranks must call each method.

    Training changes weights and optimizer alike on all ranks. Other variables, such as moving averages, may differ
    between two saves. A save averages these, so they are checked for finite numbers alone.

    Args:
        setup: the run.
    """

    def __init__(self, setup: RunSetup) -> None:
        self._setup = setup
        self._state = setup.model_state
        num_threads = min(MAX_THREADS, own_cores(os.environ, find_world(os.environ)))
        self._threads = ThreadPoolExecutor(num_threads, "distrain-check")  # TensorFlow keeps something of each thread
        others = set(map(id, state_variables(setup.trainable.model)))
        self._others = [name for name, variable in self._state.variables.items() if id(variable) in others]
        self._compared = [name for name, variable in self._state.variables.items() if id(variable) not in others]
        # A layer may keep an infinity by design, such as a mask.
        self._may_be_infinite = {name for name in self._state.variables if not is_finite(self._state.array(name))}

    def every(self, event: StepEvent) -> None:
        """Check the variables that training changes alike on all ranks."""
        self._check(self._compared, event.progress.global_step)

    def digest(self, step: int) -> str:
        """Check what `every` checks, and return the digest that a message names; on other ranks it is meaningless."""
        return combined({name: digest(array) for name, array in self._check(self._compared, step).items()})

    def arrays(self, step: int) -> dict[str, np.ndarray]:
        """Check the variables that must be equal, synchronize the others, and return all of them on the chief.

        Other ranks get an empty dictionary, which saves memory.

        Raises:
            RankError: variables of ranks or replicas differ.
            DivergenceError: a number is not finite.
        """
        compared = self._check(self._compared, step)
        self._setup.synchronize()
        return {**compared, **self._check(self._others, step)}

    def _check(self, names: Sequence[str], step: int) -> dict[str, np.ndarray]:
        is_chief = self._setup.distribution.group.is_chief
        is_compared = names is self._compared and self._setup.distribution.num_replicas > 1

        def look(name: str) -> _Seen:
            array = self._state.array(name)
            return _Seen(array if is_chief else None, is_finite(array), digest(array) if is_compared else 0)

        seen = self._in_threads(look, names)
        if is_compared:
            self._compare([{name: of.digest for name, of in seen.items()}, *self._other_replicas()], step)
        bad = [name for name, of in seen.items() if not of.is_finite and name not in self._may_be_infinite]
        if bad:
            message = f"The state is not finite after step {step}: {self._shown(bad)}. This step is not saved. {CURE}"
            raise DivergenceError(message, reporting_rank=0)
        return {name: of.array for name, of in seen.items() if of.array is not None}

    def _in_threads(self, function: Callable[[str], T], names: Sequence[str]) -> dict[str, T]:
        """Return the results of a function of each name; training waits, so all cores of this rank are free."""
        return dict(zip(names, self._threads.map(function, names), strict=True))

    def _other_replicas(self) -> list[Digests]:
        """Return the digests of what the further replicas of this process hold."""
        copies = {name: self._setup.distribution.copies(self._state.variables[name]) for name in self._compared}

        def digests_of(number: int) -> Digests:
            names = [name for name, of in copies.items() if len(of) > number]
            return self._in_threads(lambda name: digest(as_array(copies[name][number])), names)

        return [digests_of(number) for number in range(1, max(map(len, copies.values())))]

    def _compare(self, own: Sequence[Digests], step: int) -> None:
        """Compare the digests of the local replicas, and of all ranks.

        Raises:
            RankError: the digests differ.
        """
        group = self._setup.distribution.group
        complete = [{**own[0], **of} for of in own]  # a variable without a copy on each replica is alone
        content = json.dumps([combined(of) for of in complete]).encode()
        if len({*group.all_gather_bytes(content)}) == 1 and len({*json.loads(content)}) == 1:
            return
        holders: list[tuple[str, Digests]] = []
        for rank, content in enumerate(group.all_gather_bytes(json.dumps([socket.gethostname(), complete]).encode())):
            host, replicas = json.loads(content)
            for number, digests in enumerate(replicas):
                where = f"rank {rank}" if group.size > 1 else f"replica {number}"
                holders.append((f"{where} (host {host}, digest {combined(digests)})", digests))
        raise RankError(f"{self._difference(holders, step)} No later step is saved.", reporting_rank=0)

    def _difference(self, holders: Sequence[tuple[str, Digests]], step: int) -> str:
        """Say whose variables differ: of those outside a majority, or of all if there is no majority."""
        digests = [combined(of) for _, of in holders]
        common, count = Counter(digests).most_common(1)[0]
        is_majority = 2 * count > len(holders)
        named = [who for (who, _), digest in zip(holders, digests, strict=True) if digest != common or not is_majority]
        names = [name for name in self._compared if len({of[name] for _, of in holders}) > 1]
        found = f"After step {step}, the state of {' and '.join(named[:MAX_NAMED])} differs in {self._shown(names)}"
        replay = f"'distrain replay --step {step}' trains the step again, and shows the right digest."
        if is_majority:
            return f"{found}; the other {count} of {len(holders)} are equal. Suspect that host: {replay}"
        return f"{found}. No majority tells which is right: {replay}"

    def _shown(self, names: Sequence[str]) -> str:
        texts = ", ".join(self._state.variables[name].path for name in names[:MAX_NAMED])
        return texts + (f" and {len(names) - MAX_NAMED} other variables" if len(names) > MAX_NAMED else "")


def digest(array: np.ndarray) -> int:
    """Return the CRC-32 of an array's bytes, which each change of up to 32 neighbouring bits changes."""
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def combined(digests: Mapping[str, int]) -> str:
    """Return one digest of the digests of all variables, in hexadecimal digits."""
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:16]


def is_finite(array: np.ndarray) -> bool:
    """Return whether an array of any type has no number that is NaN or infinite."""
    return array.dtype.kind not in "fc" or bool(np.isfinite(array).all())
