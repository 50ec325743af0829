"""Whether training feels a checkpoint: step time while a thread writes one, and time lost.

    python benchmarks/checkpoints.py [--megabytes 1000] [--ranks 1] [--saves 5] [--steps 100] [--batch 32]

`distrain.fit` trains dense layers with Adam; weights and slots together have the given size. A checkpoint is due every
`--steps` steps. One process uses all cores, two ranks over MPI one core each. Steps of the same run without a save are
the rival, so both kinds alternate. Each save gives one figure; the table shows the median of the figures:

- step: median step without a save.
- during a save: median step from the second one of a save up to the step that reports it, and its ratio to `step`.
- mean ratio: the same for mean steps, in which a single long step counts.
- first: seconds that the first step of a save takes longer. The state is checked before it, and copied in it.
- lost: seconds that all steps of a save together take longer.
- writing: seconds until the checkpoint was on the disk.

A step lasts from the end of the step before to its own end, so reports and checks between steps count.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from launched_ranks import figures_of, tell
from measuring import BIN
from rich.console import Console
from rich.table import Table

MPIRUN = [str(BIN / "mpirun"), "--oversubscribe", "--bind-to", "core", "-n"]
LAYERS, TARGET = 20, 1.10
WARM_UP_STEPS = 3  # the first steps compile and allocate
BYTES_PER_WEIGHT = 12  # a weight and the two slots of Adam, in float32


class Span(NamedTuple):
    """From when to when something lasted, in seconds on one clock."""

    begin: float
    end: float

    @property
    def seconds(self) -> float:
        """How long the span is."""
        return self.end - self.begin


def time_in_rank(options: argparse.Namespace) -> dict[str, Any]:
    """Train, and return the spans of steps and of writes; all ranks run this."""
    import keras
    import numpy as np

    import distrain
    from distrain.training.checkpoints.saving import Saver

    began = time.perf_counter()
    width = round((options.megabytes * 1e6 / BYTES_PER_WEIGHT / LAYERS) ** 0.5)
    num_steps = options.steps * (options.saves + 1)
    ends: list[float] = []
    writes: list[Span] = []

    class Steps(keras.callbacks.Callback):
        """Records the end of each step, and ends training in time."""

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            ends.append(time.perf_counter())
            self.model.stop_training = ends[-1] > began + options.seconds

    def build() -> Any:
        layers = [keras.layers.Dense(width, "relu", use_bias=False) for _ in range(LAYERS)]
        return keras.Sequential([keras.Input((width,)), *layers, keras.layers.Dense(1)])

    write = Saver._write

    def timed_write(*arguments: Any) -> Any:
        begin = time.perf_counter()
        try:
            return write(*arguments)
        finally:
            writes.append(Span(begin, time.perf_counter()))

    Saver._write = timed_write  # type: ignore[method-assign]  # times the thread's work, which no event of a run tells
    examples = np.random.default_rng(0).random((options.batch * options.ranks * num_steps, width), np.float32)
    distrain.fit(
        build,
        (examples, np.zeros(len(examples), np.float32)),
        optimizer=lambda: keras.optimizers.Adam(1e-6),
        loss="mse",
        callbacks=[Steps()],
        verbose=0,
        run=options.run,
        epochs=1,
        batch_size=options.batch,
        checkpoint_every=options.steps,
        keep=1,
    )
    return {"ends": ends, "writes": writes}


def figures(ends: list[float], writes: list[Span]) -> dict[str, float]:
    """Return the medians over all saves, which training outlived."""
    steps = [Span(*pair) for pair in pairwise(ends)]
    saves = [_steps_of(write, steps) for write in writes]
    within = {number for save in saves for number in save}
    calm = [step.seconds for number, step in enumerate(steps) if number >= WARM_UP_STEPS and number not in within]
    step, mean_step = statistics.median(calm), statistics.fmean(calm)
    found = []
    for write, save in zip(writes, saves, strict=True):
        first, *during = [steps[number].seconds for number in save]
        lost = sum([first, *during]) - len(save) * mean_step
        found.append(
            (statistics.median(during), statistics.fmean(during), first - step, lost, write.seconds, len(save))
        )
    medians = [statistics.median(each) for each in zip(*found, strict=True)]
    during, mean, first, lost, writing, count = medians
    return {
        "saves": len(found),
        "step": step,
        "during": during,
        "median ratio": during / step,
        "mean ratio": mean / mean_step,
        "first": first,
        "lost": lost,
        "writing": writing,
        "steps": count,
    }


def _steps_of(write: Span, steps: list[Span]) -> range:
    """Return the numbers of the steps from the step in which a save began to the step that reports it."""
    numbers = [number for number, step in enumerate(steps) if step.begin < write.end and write.begin < step.end]
    return range(numbers[0], min(numbers[-1] + 2, len(steps)))


def main() -> None:
    """Train each size on each number of ranks, and print a row for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, nargs="+", default=[1000.0], help="of weights and slots")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1])
    parser.add_argument("--saves", type=int, default=5)
    parser.add_argument("--steps", type=int, default=100, help="between two saves (default: 100)")
    parser.add_argument("--batch", type=int, default=32, help="of each rank (default: 32)")
    parser.add_argument("--seconds", type=float, default=600.0, help="ends a run before its last save")
    parser.add_argument("--run", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        [options.megabytes], [options.ranks] = options.megabytes, options.ranks
        tell(time_in_rank(options))
        return
    table = Table(title=f"A checkpoint every {options.steps} steps", title_justify="left")
    names = ("MB", "ranks", "saves", "step, ms", "during a save, ms", "ratio", "mean ratio", "first, s", "lost, s")
    for column in (*names, "writing, s", "steps"):
        table.add_column(column, justify="right")
    for megabytes in options.megabytes:
        for ranks in options.ranks:
            with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
                words = ["--megabytes", megabytes, "--ranks", ranks, "--saves", options.saves, "--steps", options.steps]
                words += ["--batch", options.batch, "--run", Path(folder) / "run"]
                launcher = [*MPIRUN, str(ranks)] if ranks > 1 else []
                words += ["--seconds", options.seconds]
                told = figures_of([*launcher, sys.executable, __file__, *map(str, words)], seconds=2 * options.seconds)
            writes = [Span(*write) for write in told["writes"] if write[1] < told["ends"][-1]]
            row = figures(told["ends"], writes)
            table.add_row(
                f"{megabytes:g}",
                f"{ranks}",
                f"{row['saves']}",
                f"{row['step'] * 1000:.1f}",
                f"{row['during'] * 1000:.1f}",
                f"{row['median ratio']:.3f}",
                f"{row['mean ratio']:.3f}",
                f"{row['first']:.3f}",
                f"{row['lost']:.3f}",
                f"{row['writing']:.2f}",
                f"{row['steps']:g}",
            )
    console = Console(width=140)
    console.print(table)
    console.print(f"target: a step during a save takes at most {TARGET:g} times as long as another")


if __name__ == "__main__":
    main()
