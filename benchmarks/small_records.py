"""Records of 1 KB through `__getitem__`: the loaders of distrain, PyTorch and Grain side by side.

Decides: how records are read, and how loaders are compared. Never: how a loader works.

    python benchmarks/small_records.py --workers 2

Needs `pip install torch grain` in an environment of its own. All loaders shuffle, and make batches of 256. Epochs of
the loaders alternate. The first epoch of each loader starts its workers, and does not count.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from distrain.data.batches import epoch_batches
from distrain.data.plan import EpochPlan
from distrain.data.positional import positional_examples
from distrain.data.prefetch import prefetched
from distrain.data.workers.pool import WorkerPool

COLUMNS = 256  # of float32: 1 KiB
BATCH = 256


class Records:
    """Records in a memory-mapped file, which each process opens itself."""

    def __init__(self, path: str, *, as_dicts: bool = False) -> None:
        self.path, self.as_dicts = path, as_dicts
        self._rows: Any = None
        self._length = len(np.load(path, mmap_mode="r"))

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, number: int) -> Any:
        """Return a record and its label."""
        if self._rows is None:
            self._rows = np.asarray(np.load(self.path, mmap_mode="r"))
        if self.as_dicts:
            return {"record": self._rows[number].copy(), "label": number % 10}
        return self._rows[number].copy(), number % 10

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_rows": None}


Epoch = Callable[[int], Iterator[int]]  # epoch -> the number of records of each batch


def of_distrain(records: Records, pool: WorkerPool) -> Epoch:
    """Return the epochs of distrain's loader, with the prefetch thread of a run."""
    examples = positional_examples(records, workers=pool)
    pool.start()

    def batches(epoch: int) -> Iterator[int]:
        plan, order = EpochPlan(len(records), 1, BATCH), examples.order(seed=1, epoch=epoch)
        with prefetched(epoch_batches(examples, plan, order, replicas=range(1), epoch=epoch)) as steps:
            for (batch,) in steps:
                yield len(batch.labels)

    return batches


def of_torch(records: Records, workers: int) -> Epoch:
    """Return the epochs of PyTorch's loader, whose workers stay alive."""
    from torch.utils.data import DataLoader

    loader = DataLoader(records, batch_size=BATCH, shuffle=True, num_workers=workers, persistent_workers=workers > 0)

    def batches(epoch: int) -> Iterator[int]:
        for batch in loader:
            yield len(_labels_of(batch))

    return batches


def of_grain(records: Records, workers: int) -> Epoch:
    """Return the epochs of Grain's loader, with its own default threads."""
    import grain

    def batches(epoch: int) -> Iterator[int]:
        data = grain.MapDataset.source(records).shuffle(seed=epoch).batch(BATCH).to_iter_dataset()
        if workers:
            data = data.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers))
        for batch in data:
            yield len(_labels_of(batch))

    return batches


def _labels_of(batch: Any) -> Any:
    return batch["label"] if isinstance(batch, dict) else batch[1]


def seconds_of(epoch: Iterator[int], count: int) -> float:
    """Read an epoch of `count` records; return the seconds that it took."""
    started = time.perf_counter()
    assert sum(epoch) == count
    return time.perf_counter() - started


def main() -> None:
    """Compare the loaders, and print medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="distrain,torch,grain")
    parser.add_argument("--dicts", action="store_true", help="records are dicts in place of tuples")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, WorkerPool(options.workers) as pool:
        path = Path(folder) / "records.npy"
        np.save(path, np.random.default_rng(0).normal(size=(options.records, COLUMNS)).astype("float32"))
        records = Records(str(path), as_dicts=options.dicts)
        makers: dict[str, Callable[[], Epoch]] = {
            "distrain": partial(of_distrain, records, pool),
            "torch": partial(of_torch, records, options.workers),
            "grain": partial(of_grain, records, options.workers),
        }
        loaders = {name: makers[name]() for name in options.only.split(",")}
        rates: dict[str, list[float]] = {name: [] for name in loaders}
        for round_number in range(options.rounds + 1):
            for name, epoch in loaders.items():
                rate = options.records / seconds_of(epoch(round_number), options.records)
                if round_number:
                    rates[name].append(rate)
        print(
            f"{options.workers} workers, load {os.getloadavg()[0]:.1f}, records per second, medians of {options.rounds}"
        )
        medians = {name: statistics.median(found) for name, found in rates.items()}
        for name, median in medians.items():
            print(f"{name:10} {median:12,.0f}   distrain / {name}: {medians.get('distrain', 0) / median:.2f}")


if __name__ == "__main__":
    main()
