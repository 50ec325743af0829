"""How much of the communication of a step the backward pass hides, for a model of 110 million weights.

    python benchmarks/overlap.py [--rounds 5] [--width 2048] [--layers 26] [--batch 64] [--launchers gloo mpi]

Two ranks of one machine, one core each, train the same dense layers in these ways:

- buckets: the product's graph for GPUs, run on CPUs: one Horovod reduction for each bucket of 25 MiB.
- one sum: the same with a single bucket, which waits for the whole backward pass.
- tape: Horovod's own `DistributedGradientTape` with its default fusion.
- mpi buckets, mpi one sum: the product's sums on the host, whose thread reduces buckets.
- compute: no sum.

The ways alternate, and a figure is the median of the rounds. The hidden share is what buckets save of the time that one
sum adds to `compute`. On CPUs a sum is itself work of a core, which no overlap can hide. So the table shows the
processor time of rank 0 beside the time of a step: only the rest of a step can be hidden.

Horovod's own timeline is the second witness: it shows which reductions ended before the last bucket of their step was
ready.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from launched_ranks import figures_of, tell
from measuring import BIN, MPIRUN
from rich.console import Console
from rich.table import Table

LAUNCHERS = {
    "gloo": [str(BIN / "horovodrun"), "--gloo", "-np", "2"],
    "mpi": [*MPIRUN, "2"],
}
WAYS = {"gloo": ["compute", "one sum", "buckets", "tape"], "mpi": ["compute", "mpi one sum", "mpi buckets"]}


def time_in_rank(launcher: str, options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of a step and its processor time by way; all ranks run this."""
    import tensorflow as tf

    from distrain.cluster.world import find_world
    from distrain.distribution import multi_process
    from distrain.distribution.buckets import buckets
    from distrain.distribution.collectives import device_all_reduce

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(2)  # as on a GPU, a sum takes no core from the step
    world = find_world(os.environ)
    if launcher == "gloo":
        from distrain.distribution.collectives import horovod as collectives
    else:
        from distrain.distribution.collectives import mpi as collectives
    group = collectives.start(world)
    shape = (options.width, options.width)
    kernels = [tf.Variable(tf.random.stateless_normal(shape, [n, 0]) * 0.02) for n in range(options.layers)]
    x = tf.random.stateless_normal((options.batch, options.width), [world.rank, 1])

    def make_step(way: str) -> Callable[[], Any]:
        on_device = way in ("buckets", "one sum")
        make_buckets = partial(buckets, limit=2**60) if "one sum" in way else buckets

        @tf.function(autograph=False)
        def step() -> Any:
            with tf.GradientTape() as tape:
                y = x
                for kernel in kernels:
                    y = tf.nn.relu(y @ kernel)
                loss = tf.reduce_sum(y)
            if way == "tape":
                import horovod.tensorflow as hvd

                tape = hvd.DistributedGradientTape(tape, op=hvd.Sum)
            gradients = tape.gradient(loss, kernels)
            if on_device:
                device_all_reduce.buckets = make_buckets
                gradients, _ = device_all_reduce.device_all_reduce(collectives, gradients, [loss], compression="none")
            elif "mpi" in way:
                multi_process.buckets = make_buckets
                gradients, _ = multi_process.MultiProcess(collectives, group).sum(gradients, [loss])
            for kernel, gradient in zip(kernels, gradients, strict=True):
                kernel.assign_sub(1e-9 * gradient)
            return loss

        return step

    steps = {way: make_step(way) for way in WAYS[launcher]}
    seconds: dict[str, list[tuple[float, float]]] = {way: [] for way in steps}
    for turn in range(options.rounds + 1):
        for way, step in steps.items():
            group.barrier()
            began, worked = time.perf_counter(), time.process_time()
            step().numpy()
            if turn:
                seconds[way].append((time.perf_counter() - began, time.process_time() - worked))
    return {way: list(map(statistics.median, zip(*each, strict=True))) for way, each in seconds.items()}


def hidden_in(timeline: Path) -> float:
    """Share of the time of the reductions in buckets that passes before the last bucket of its step is ready."""
    names: dict[int, str] = {}
    began: dict[int, list[tuple[str, int]]] = {}
    ready: list[tuple[int, int]] = []  # microseconds, number of the bucket's name
    sums: list[tuple[int, int]] = []  # start and end of each reduction, in microseconds
    text = timeline.read_text(encoding="utf-8").strip().rstrip(",")
    for event in json.loads(text if text.endswith("]") else text + "]"):
        tensor = event.get("pid", -1)
        if event.get("name") == "process_name":
            names[tensor] = event["args"].get("name", "")
        elif event.get("ph") == "B":
            began.setdefault(tensor, []).append((event["name"], event["ts"]))
        elif event.get("ph") == "E" and began.get(tensor):
            name, start = began[tensor].pop()
            kind, _, number = names.get(tensor, "").rpartition(".")
            if kind != "distrain.sum.float32" or number == "0":  # 0 is the single sum
                continue
            if name.startswith("NEGOTIATE"):
                ready.append((start, int(number)))
            elif name == "ALLREDUCE":
                sums.append((start, event["ts"]))
    last = max(number for _, number in ready)
    hidden = before = 0
    for end, number in sorted(ready):
        if number != last:
            continue
        of_step = [(a, b) for a, b in sums if a >= before and a < end]
        hidden += sum(min(b, end) - a for a, b in of_step)
        before = end
    total = sum(b - a for a, b in sums)
    return hidden / total


def launch(launcher: str, words: list[str], timeline: Path) -> dict[str, list[float]]:
    """Run the ranks, and return what rank 0 measured."""
    command = [*LAUNCHERS[launcher], sys.executable, __file__, "--in-rank", launcher, *words]
    found: dict[str, list[float]] = figures_of(command, seconds=1800, environ={"HOROVOD_TIMELINE": str(timeline)})
    return found


def main() -> None:
    """Launch the ranks of each launcher and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--layers", type=int, default=26)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--launchers", nargs="+", choices=LAUNCHERS, default=list(LAUNCHERS))
    parser.add_argument("--in-rank", choices=LAUNCHERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_rank:
        tell(time_in_rank(options.in_rank, options))
        return
    table = Table(title=f"{options.layers * options.width**2 / 1e6:.0f} million weights, two ranks, ms per step")
    for name in ("launcher", "way", "step", "processor time", "added by the sum", "hidden"):
        table.add_column(name)
    with tempfile.TemporaryDirectory() as folder:
        for launcher in options.launchers:
            words = [f"--{name}={getattr(options, name)}" for name in ("rounds", "width", "layers", "batch")]
            timeline = Path(folder) / f"{launcher}.json"
            found = launch(launcher, words, timeline)
            compute = found["compute"][0]
            whole = next(found[way][0] for way in found if "one sum" in way) - compute
            for way, (seconds, worked) in found.items():
                added = seconds - compute
                cells = [f"{seconds * 1000:.0f}", f"{worked * 1000:.0f}", f"{added * 1000:.0f}"]
                cells.append(f"{1 - added / whole:.0%}")
                table.add_row(launcher, way, *cells)
            if launcher == "gloo":
                share = hidden_in(timeline)
                print(f"Horovod's timeline: {share:.0%} of the time of the reductions is under the backward pass")
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
