"""Trains the case "weighted" by plain Keras in one process.

    write_witness(folder / "witness.npz")       # the weights after each epoch, by "epoch/number"

Keras runs `train_on_batch` alone, on whole global batches; distrain defines the order of the examples.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ranks_cases import arguments
from ranks_data import ARRAYS, EPOCHS, SEED

from distrain.data.shuffle import epoch_order


def write_witness(path: Path) -> None:
    """Train, and write the weights."""
    case = arguments("weighted")
    rows, labels, weights = case["train"]
    model = case["build_model"]()
    model.compile(case["optimizer"], case["loss"])
    size = ARRAYS["global_batch_size"]
    written = {}
    for epoch in range(EPOCHS):
        order = epoch_order(len(rows), seed=SEED, epoch=epoch)
        for start in range(0, len(rows), size):
            chosen = order.examples(range(start, min(start + size, len(rows))))
            model.train_on_batch(rows[chosen], labels[chosen], sample_weight=weights[chosen])
        written |= {f"{epoch}/{number}": weight for number, weight in enumerate(model.get_weights())}
    np.savez(path, **written)
