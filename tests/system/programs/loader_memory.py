"""Walks an epoch of prepared data with the loader of a training process; prints the anonymous memory that it takes."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from distrain.data.batches import epoch_batches, sample_batch
from distrain.data.plan import EpochPlan
from distrain.data.prefetch import prefetched
from distrain.data.prepared.dataset_index import open_dataset
from distrain.data.shuffle import epoch_order
from distrain.data.sources import part_examples


def anonymous_bytes() -> int:
    """Bytes of this process' memory that no file backs."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def main(data: Path, batch_size: int, num_replicas: int, pad_multiple: int | None) -> None:
    """Print the growth up to the peak, in bytes, of a process with one replica."""
    examples = part_examples(open_dataset(data).parts["train"], length=1, pad_multiple=pad_multiple)
    sample_batch(examples)  # compiles the row kernels
    plan = EpochPlan(examples.num_examples, num_replicas, batch_size)
    order = epoch_order(plan.num_examples, seed=0, epoch=0)
    before = peak = anonymous_bytes()
    with prefetched(epoch_batches(examples, plan, order, replicas=range(1))) as batches:
        for number, _ in enumerate(batches):
            if number % 50 == 0:
                time.sleep(0.2)  # the loader is as far ahead as it may be
            peak = max(peak, anonymous_bytes())
    print(peak - before)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]) or None)
