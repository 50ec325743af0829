"""Checks that weights and optimizer are finite, and equal on all ranks and replicas, before they are saved.

Decides: which variables must be equal, and who is named if they differ. Never: saves, or repairs a variable.

    check = StateCheck(setup)
    check.every(event)                         # the action of --check-every
    arrays = check.arrays(step=1200)           # all variables, checked, for a checkpoint
"""

from __future__ import annotations

import hashlib
import json
import socket
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from distrain.errors import DivergenceError, RankError
from distrain.keras_backend import state_variables
from distrain.models.state import as_array
from distrain.training.events import StepEvent
from distrain.training.loop import CURE
from distrain.training.setup import RunSetup

MAX_NAMED = 3  # variables or ranks that one message names

Digests = dict[str, int]  # name of a variable -> CRC-32 of its bytes


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
        arrays, digests, bad = {}, {}, []
        for name in names:
            array = self._state.array(name)
            digests[name] = digest(array)
            if not is_finite(array) and name not in self._may_be_infinite:
                bad.append(name)
            if self._setup.distribution.group.is_chief:
                arrays[name] = array
        if names is self._compared:
            self._compare([digests, *self._other_replicas()], step)
        if bad:
            message = f"The state is not finite after step {step}: {self._shown(bad)}. This step is not saved. {CURE}"
            raise DivergenceError(message, reporting_rank=0)
        return arrays

    def _other_replicas(self) -> list[Digests]:
        """Return the digests of what the further replicas of this process hold."""
        copies = {name: self._setup.distribution.copies(self._state.variables[name]) for name in self._compared}
        num_replicas = max(map(len, copies.values()))
        return [
            {name: digest(as_array(of[number])) for name, of in copies.items() if len(of) > number}
            for number in range(1, num_replicas)
        ]

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
