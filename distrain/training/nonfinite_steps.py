"""What a run does at a step that is not finite: skip the step, or end with an error that names rank and examples.

Decides: how many steps a run skips, and how a message names a step. Never: finds NaN, or keeps weights.

    skip = make_skip(setup, report)
    skip(NotFinite("The gradient is not finite", (1,)), progress)       # raises DivergenceError, or reports the step

The plan and the order of an epoch give the examples of a rank, so all ranks know them without a collective.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np

from distrain.data.examples import Examples
from distrain.data.nests import leaves
from distrain.reporting.reporter import Reporter
from distrain.runs.progress import Progress
from distrain.training.loop.events import NotFinite
from distrain.training.loop.loop import CURE, refuse_step
from distrain.training.run_setup import RunSetup

MAX_NAMED = 5  # ranks or examples that one message names


def make_skip(setup: RunSetup, report: Reporter) -> Callable[[NotFinite, Progress], None]:
    """Return a function for each step that is not finite; see `TrainingLoop.skip`."""
    allowed = setup.config.skip_nonfinite

    def skip(bad: NotFinite, progress: Progress) -> None:
        where = where_of(setup, bad.devices)
        is_chief = setup.distribution.group.is_chief  # the one rank that says anything
        found = _found(setup, progress.epoch, examples_of(setup, progress, bad.devices)) if is_chief else ""
        if progress.skipped_steps < allowed:
            report.skip(
                epoch=progress.epoch + 1,
                step=progress.global_step + 1,
                reason=f"{bad.what}{where}, {found}",
                skipped=progress.skipped_steps + 1,
                allowed=allowed,
            )
            return
        cure = f"{CURE} --skip-nonfinite M leaves out up to M such steps."
        if allowed:
            cure = f"The run has skipped {progress.skipped_steps} steps, as --skip-nonfinite allows. {CURE}"
        refuse_step(bad, progress, where=f"{where}, {found}", cure=cure)

    return skip


def where_of(setup: RunSetup, devices: Sequence[int]) -> str:
    """Return which ranks or replicas some devices are, as in " on rank 1"; empty for a single device."""
    num_devices = setup.distribution.num_replicas // setup.distribution.replicas_per_device
    if num_devices == 1:
        return ""
    if not devices:
        return " in the sum over all replicas"
    word = "rank" if setup.distribution.group.size > 1 else "replica"
    return f" on {word}{'s' if len(devices) > 1 else ''} {_some(devices)}"


def examples_of(setup: RunSetup, progress: Progress, devices: Sequence[int]) -> np.ndarray:
    """Return the example numbers that some devices, or all, train in the step after `progress`."""
    plan = setup.epoch_plan(progress.position)
    order = setup.job.train.order(seed=setup.config.seed, epoch=progress.epoch, shuffle=setup.job.shuffle)
    if not devices:
        return order.examples(plan.global_positions(0))
    width = setup.config.accumulation_steps * setup.distribution.replicas_per_device
    microbatches = [number for device in devices for number in range(device * width, (device + 1) * width)]
    return np.concatenate([order.examples(plan.positions(0, number)) for number in microbatches])


def _found(setup: RunSetup, epoch: int, numbers: np.ndarray) -> str:
    """Say which examples these are, or which of them hold a number that is not finite."""
    bad = [number for number in numbers.tolist() if not _is_finite(setup.job.train, epoch, number)]
    if bad:
        return f"where the data of {_examples(bad)} is not finite"
    return f"from {_examples(numbers.tolist())} (all of them have finite data)"


def _is_finite(examples: Examples, epoch: int, number: int) -> bool:
    nests = examples.load(np.array([[number, number + 1]]), np.zeros(1, np.int64), epoch=epoch)(0, 1)
    values = [value for nest in nests for _, value in leaves(nest)]
    arrays = [array for value in values for array in (value if isinstance(value, tuple) else (value,))]
    return all(bool(np.isfinite(array).all()) for array in arrays if array.dtype.kind == "f")


def _examples(numbers: Sequence[int]) -> str:
    return f"example{'s' if len(numbers) > 1 else ''} {_some(numbers)}"


def _some(numbers: Iterable[int]) -> str:
    """Return some numbers as text, and how many more there are."""
    texts = [str(number) for number in numbers]
    if len(texts) > MAX_NAMED:
        return f"{', '.join(texts[:MAX_NAMED])} and {len(texts) - MAX_NAMED} others"
    return " and ".join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else "".join(texts)
