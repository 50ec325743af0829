"""Measures `distrain prepare` on 60,000 classes, beside the same texts in 4 classes.

    python benchmarks/many_classes.py                     # 200,000 rows, 5 turns

The two commands take turns, with one process each. The output shows medians of processor seconds, with the start of
Python, and their ratio. The machine may be shared, so wall seconds are not shown.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
from measuring import distrain, run_measured

CLASSES = {"4 classes": 4, "60,000 classes": 60_000}
WORDS, WORDS_PER_ROW, TOPICS = 30_000, 20, 5_000


def write_text(path: Path, rows: int, classes: int) -> None:
    """Write rows of Zipf-distributed words, and a word that a few classes share; the texts do not depend on classes."""
    rng = np.random.default_rng(0)
    topics = np.concatenate([np.arange(60_000), rng.integers(0, 60_000, rows - 60_000)])
    rng.shuffle(topics)
    words = np.minimum(rng.zipf(1.3, (rows, WORDS_PER_ROW)), WORDS)
    with path.open("w") as file:
        for topic, row in zip(topics.tolist(), words.tolist(), strict=True):
            file.write(f"c{topic % classes},{' '.join([f'w{word}' for word in row])} t{topic % TOPICS}\n")


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--turns", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for classes in CLASSES.values():
            write_text(folder / f"{classes}.csv", options.rows, classes)
        seconds: dict[str, list[float]] = {title: [] for title in CLASSES}
        for turn in range(options.turns + 1):  # the first turn compiles kernels
            for title, classes in CLASSES.items():
                files = ("--train", folder / f"{classes}.csv", "--out", folder / "out")
                measured = run_measured(distrain("prepare", *files, "--workers", 1, "--vectorizer", "ngram"))
                if turn:
                    seconds[title].append(measured.cpu_seconds)
    few, many = (statistics.median(seconds[title]) for title in CLASSES)
    ratios = [b / a for a, b in zip(*seconds.values(), strict=True)]
    for title, median in zip(CLASSES, (few, many), strict=True):
        print(f"{title:15} {median:6.2f} s of processor time, {options.rows:,} rows")
    print(f"ratio within a turn {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
