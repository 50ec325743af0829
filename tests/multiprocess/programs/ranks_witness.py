"""Train the case "weighted" by plain Keras in one process, and write the weights after each epoch.

    python ranks_witness.py OUT.npz GLOBAL_BATCH_SIZE EPOCHS SEED

Keras's part is `train_on_batch` alone, on whole global batches. Only the order of the examples is distrain's, which
defines it. An example of weight 3 stands three times in Keras's batch.
"""

from __future__ import annotations

import sys

import numpy as np
from ranks_cases import arguments

from distrain.data.shuffle import epoch_order


def main(out: str, global_batch_size: int, epochs: int, seed: int) -> None:
    """Train and write."""
    case = arguments("weighted")
    rows, labels, weights = case["train"]
    times = weights.astype(int)
    model = case["build_model"]()
    model.compile(case["optimizer"], case["loss"])
    written = {}
    for epoch in range(epochs):
        order = epoch_order(len(rows), seed=seed, epoch=epoch)
        for start in range(0, len(rows), global_batch_size):
            chosen = order.examples(range(start, min(start + global_batch_size, len(rows))))
            chosen = np.repeat(chosen, times[chosen])
            model.train_on_batch(rows[chosen], labels[chosen])
        written |= {f"{epoch}/{number}": weight for number, weight in enumerate(model.get_weights())}
    np.savez(out, **written)


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
