"""Long runs: what grows over 1,000 epochs of 100 steps: memory, threads, open files, logs, shared memory.

    python benchmarks/long_run.py [--epochs 1000] [--steps 100] [--ranks 1 2] [--samples 10]

Each run trains a small n-gram model, with a checkpoint and an evaluation each epoch. The table shows the processes at
equal parts of the run; the largest process counts. Memory is RssAnon: pages that no file backs. Shared memory is what
the job adds to `/dev/shm`. Kilobytes per epoch of logs are measured over the second half.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from measuring import MPIRUN, QUIET, distrain, family
from rich.console import Console
from rich.table import Table

from distrain.data.prepared.dataset_writer import DatasetWriter
from distrain.data.prepared.rows import Rows

BATCH_SIZE, COLUMNS = 16, 8
SHARED_MEMORY = Path("/dev/shm")
POLL_SECONDS = 0.2


class Sample(NamedTuple):
    """A run at one moment; each count of a process is the largest of all ranks.

    Attributes:
        epoch: finished epochs.
        memory: bytes of RssAnon.
        threads: number of threads.
        files: open file descriptors.
        logs: bytes of `metrics.jsonl` and `events/`.
        status: bytes of `status.json`.
        run_files: files in the run directory.
        shared: bytes in `/dev/shm` beyond those before the run.
    """

    epoch: int
    memory: int
    threads: int
    files: int
    logs: int
    status: int
    run_files: int
    shared: int


def write_data(folder: Path, steps: int) -> Path:
    """Write prepared n-grams for epochs of `steps` steps."""
    random = np.random.default_rng(0)

    def rows(count: int) -> Rows:
        columns = np.sort(random.integers(0, 1000, (count, COLUMNS)).astype(np.int32), axis=1)
        labels = (columns[:, 0] % 4).astype(np.int32)
        return Rows(np.arange(count + 1) * COLUMNS, columns.ravel(), np.ones(columns.size, "f4"), labels)

    folder.mkdir()
    writer = DatasetWriter(folder, kind="ngram", num_features=1000, classes=["a", "b", "c", "d"])
    writer.write("train", iter([rows(steps * BATCH_SIZE)]))
    writer.write("test", iter([rows(4 * BATCH_SIZE)]))
    writer.finish()
    return folder


def sampled_run(data: Path, run: Path, *, epochs: int, ranks: int, num_samples: int) -> list[Sample]:
    """Train, and return a sample after each of `num_samples` equal parts of the run, but for the last at its end."""
    before = _shared_bytes()
    settings = ("--epochs", epochs, "--patience", 0, "--global-batch-size", BATCH_SIZE, "--learning-rate", 1e-4)
    command = distrain("train", "--data", data, "--run", run, "--devices", "cpu:1", *settings)
    launcher = [*MPIRUN, str(ranks)] if ranks > 1 else []
    samples: list[Sample] = []
    with tempfile.TemporaryFile("w+") as errors:
        quiet = {**os.environ, **QUIET}
        job = subprocess.Popen([*launcher, *command], stdout=subprocess.DEVNULL, stderr=errors, env=quiet)
        while job.poll() is None:
            time.sleep(POLL_SECONDS)
            epoch = _finished_epochs(run)
            if epoch >= (len(samples) + 1) * epochs // num_samples - (len(samples) + 1 == num_samples):
                samples.append(_sample(job.pid, run, epoch, before))
        errors.seek(0)
        if job.returncode:
            sys.exit(f"{' '.join(command)}\nreturned {job.returncode}:\n{errors.read()[-4000:]}")
    return samples


def _finished_epochs(run: Path) -> int:
    try:
        status = json.loads((run / "status.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return 0
    return status.get("epoch", 1) - 1


def _sample(pid: int, run: Path, epoch: int, shared_before: int) -> Sample:
    processes = [found for found in family(pid) if b"distrain" in _command(found)]
    values = [dict(line.split(":", 1) for line in _text(found, "status").splitlines()) for found in processes]
    logs = [run / "metrics.jsonl", *(run / "events").glob("*")]
    return Sample(
        epoch,
        memory=max((int(value["RssAnon"].split()[0]) * 1024 for value in values if "RssAnon" in value), default=0),
        threads=max((int(value["Threads"]) for value in values if "Threads" in value), default=0),
        files=max((len(list(Path(f"/proc/{found}/fd").glob("*"))) for found in processes), default=0),
        logs=sum(path.stat().st_size for path in logs if path.exists()),
        status=(run / "status.json").stat().st_size,
        run_files=sum(1 for _ in run.rglob("*")),
        shared=_shared_bytes() - shared_before,
    )


def _command(pid: int) -> bytes:
    return _text(pid, "cmdline").encode()


def _text(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()
    except OSError:
        return ""


def _shared_bytes() -> int:
    found = os.statvfs(SHARED_MEMORY)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def table_of(samples: list[Sample], title: str) -> Table:
    """Return the samples as a table."""
    table = Table(title=title, title_justify="left")
    for column in ("epoch", "memory, MiB", "threads", "open files", "logs, KiB", "status, B", "files", "shared, KiB"):
        table.add_column(column, justify="right")
    for one in samples:
        table.add_row(
            f"{one.epoch:,}",
            f"{one.memory / 2**20:.1f}",
            f"{one.threads}",
            f"{one.files}",
            f"{one.logs / 2**10:,.0f}",
            f"{one.status}",
            f"{one.run_files}",
            f"{one.shared / 2**10:,.0f}",
        )
    return table


def main() -> None:
    """Train each way and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=100, help="of each epoch (default: 100)")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--samples", type=int, default=10)
    options = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        data = write_data(Path(folder) / "data", options.steps)
        for ranks in options.ranks:
            run = Path(folder) / f"run-{ranks}"
            began = time.monotonic()
            samples = sampled_run(data, run, epochs=options.epochs, ranks=ranks, num_samples=options.samples)
            seconds = time.monotonic() - began
            steps = options.epochs * options.steps
            console.print(table_of(samples, f"{ranks} process(es), {steps:,} steps, {seconds:.0f} s"))
            half, last = samples[len(samples) // 2], samples[-1]
            growth = (last.memory - half.memory) / 2**10 / max(1, last.epoch - half.epoch)
            log_growth = (last.logs - half.logs) / 2**10 / max(1, last.epoch - half.epoch)
            console.print(f"second half: {growth:.2f} KiB of memory and {log_growth:.2f} KiB of logs per epoch")


if __name__ == "__main__":
    main()
