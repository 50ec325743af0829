"""Speed of training from disk: an epoch of the n-gram MLP with the files in memory and without.

    python benchmarks/cold_loading.py [--rows 1000000] [--batch 512] [--data DIR]

Three cases take turns. Each round runs each case in a new process, after 50 warm-up steps:

- "in memory": the page cache holds the files.
- "from disk": the files were evicted from the page cache, as happens to files larger than memory.
- "from disk, on access": the same without read-ahead, so each page is read when the loader accesses the page.

A disk much faster than the step shows no difference. A control group can limit a disk, as root:
`systemd-run --pty -p "IOReadBandwidthMax=/dev/sda 100M" ...`. `--data` is a folder that `distrain prepare` wrote.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

from rich.console import Console
from rich.table import Table

from distrain.config import PrepareConfig, TrainConfig
from distrain.data.batches import epoch_batches, sample_batch
from distrain.data.plan import EpochPlan
from distrain.data.prefetch import prefetched
from distrain.data.prepared import shards
from distrain.data.prepared.dataset_index import open_dataset
from distrain.data.shuffle import epoch_order
from distrain.data.sources import part_examples
from distrain.prepare.pipeline import prepare
from distrain.text.synthetic.corpus import write_synthetic

CASES = ("in memory", "from disk", "from disk, on access")
WARM_UP_STEPS = 50


def samples_per_second(data: Path, case: str, batch_size: int) -> float:
    """Examples per second of one epoch in this process."""
    from distrain.distribution.choose import choose
    from distrain.training.jobs.job import open_job
    from distrain.training.steps.step import make_train_steps
    from distrain.training.steps.task import batch_specs, make_task

    config = TrainConfig(data=data, run=data / "run", strategy="single", devices="cpu:1")
    distribution = choose(config, os.environ)
    job = open_job(config)
    sample = sample_batch(job.train)
    task = make_task(job.build, sample, scope=distribution.scope(), num_columns=job.train.num_columns)
    train = make_train_steps(task, distribution, batch_specs(sample))
    plan = EpochPlan(job.train.num_examples, 1, batch_size)

    def batches(epoch: int, examples: Any) -> Any:
        order = epoch_order(plan.num_examples, seed=0, epoch=epoch)
        return epoch_batches(examples, plan, order, replicas=range(1), epoch=epoch)

    for step in itertools.islice(batches(0, job.train), WARM_UP_STEPS):
        train([step])
    del job  # the system cannot evict mapped pages
    for path in data.glob("train-*.npy"):
        if case == "in memory":
            path.read_bytes()
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    examples = part_examples(open_dataset(data, verify=False).parts["train"], length=1)
    without_read_ahead = patch.multiple(shards, read_ahead=lambda *_: None, read_on_request=lambda *_: None)
    with without_read_ahead if case == CASES[2] else nullcontext():
        loader = batches(1, examples)
        began = time.perf_counter()
        with prefetched(loader, in_thread=distribution.prefetches) as steps:
            for step in steps:
                train([step])
        return plan.num_examples / (time.perf_counter() - began)


def main() -> None:
    """Measure the cases in turns and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of made-up text")
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data", type=Path, help="prepared n-grams (default: made-up text is prepared)")
    parser.add_argument("--in-process", choices=CASES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.in_process:
        print(f"RATE{samples_per_second(options.data, options.in_process, options.batch)}")
        return
    with tempfile.TemporaryDirectory() as folder:
        data = options.data
        if data is None:
            text, data = Path(folder) / "text", Path(folder) / "data"
            write_synthetic(text, rows=options.rows, classes=4, words_per_row=200, seed=0)
            prepare(
                PrepareConfig(train=text / "train.csv", test=text / "test.csv", out=data),
                console=Console(quiet=True),
            )
        size = sum(path.stat().st_size for path in data.glob("train-*.npy"))
        rates: dict[str, list[float]] = {case: [] for case in CASES}
        for number in range(options.rounds):
            for case in CASES:
                own = ["--in-process", case, "--data", str(data), "--batch", str(options.batch)]
                command = [sys.executable, __file__, *own]
                environ = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
                done = subprocess.run(command, env=environ, stdout=subprocess.PIPE, text=True, check=True, timeout=900)
                rates[case].append(float(done.stdout.rpartition("RATE")[2]))
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    medians = {case: statistics.median(each) for case, each in rates.items()}
    table = Table(title=f"batch {options.batch}, {size / 1e6:,.0f} MB of rows, medians of {options.rounds}")
    for name in ("epoch", "samples/s", "ratio"):
        table.add_column(name, justify="left" if name == "epoch" else "right")
    for case, rate in medians.items():
        table.add_row(case, f"{rate:,.0f}", f"{rate / medians[CASES[0]]:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
