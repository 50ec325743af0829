"""Programs that a user would take instead of distrain, from `train.csv` and `test.csv` to an accuracy.

    python benchmarks/rivals.py fasttext --text DIR --folder DIR --learning-rate 0.5 --epochs 5
    python benchmarks/rivals.py sgd --text DIR
    python benchmarks/rivals.py guide --text DIR [--rows 20000]

Each program prints one JSON object: accuracy on all rows of `test.csv`, and seconds by stage. `end_to_end.py` starts
the programs.

- fastText (`pip install fasttext-wheel`): words and pairs of words, 10 dimensions, 2 million buckets, softmax. The text
  is lower case with separate punctuation, as in fastText's own example of classification.
- scikit-learn: `SGDClassifier` (logistic loss) over `HashingVectorizer` (1,2)-grams in 2^20 columns, 5 passes.
- The program of Google's text classification guide: `TfidfVectorizer`, `SelectKBest`, and a multi-layer perceptron. A
  generator feeds dense batches of 128. Training stops when the validation loss has not fallen twice.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

BLOCK_CHARACTERS = 1 << 24
APART = "'.,()!?"
DROPPED = {'"': "", ";": " ", ":": " "}


class Stages:
    """A stopwatch: seconds of each stage, one after the other."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._began = time.perf_counter()

    def end(self, name: str) -> None:
        """End the stage `name` and begin the next stage."""
        now = time.perf_counter()
        self.seconds[name] = now - self._began
        self._began = now


def fasttext(text: Path, folder: Path, *, learning_rate: float, epochs: int) -> dict[str, Any]:
    """Train with fastText's library on two threads."""
    import fasttext as library

    stages = Stages()
    for name in ("train", "test"):
        normalize(text / f"{name}.csv", folder / f"{name}.txt")
    stages.end("normalize")
    model = library.train_supervised(
        str(folder / "train.txt"),
        lr=learning_rate,
        epoch=epochs,
        dim=10,
        wordNgrams=2,
        minCount=1,
        bucket=2_000_000,
        thread=2,
        verbose=0,
    )
    stages.end("train")
    _, precision, _ = model.test(str(folder / "test.txt"))  # with one label per row, precision is the accuracy
    stages.end("test")
    return {"accuracy": precision, **stages.seconds}


def normalize(source: Path, target: Path) -> None:
    """Rewrite lines of `"3","Title","Text"` for fastText, in large blocks to keep the cost low."""
    with source.open(encoding="utf-8") as lines, target.open("w", encoding="utf-8") as out:
        while block := lines.readlines(BLOCK_CHARACTERS):
            joined = "".join(block).lower()
            for old, new in DROPPED.items():
                joined = joined.replace(old, new)
            for mark in APART:
                joined = joined.replace(mark, f" {mark} ")
            out.write("__label__" + joined.rstrip("\n").replace("\n", "\n__label__") + "\n")


def read(path: Path, rows: int | None = None) -> tuple[list[str], np.ndarray]:
    """Return texts, and labels from 0."""
    with path.open(newline="", encoding="utf-8") as file:
        records = list(islice(csv.reader(file), rows))
    return [" ".join(record[1:]) for record in records], np.array([int(record[0]) - 1 for record in records])


def sgd(text: Path) -> dict[str, Any]:
    """Train a logistic regression on hashed n-grams."""
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import SGDClassifier

    stages = Stages()
    (texts, labels), (test_texts, test_labels) = read(text / "train.csv"), read(text / "test.csv")
    stages.end("read")
    vectorizer = HashingVectorizer(ngram_range=(1, 2), n_features=2**20, dtype=np.float32)
    x, test_x = vectorizer.transform(texts), vectorizer.transform(test_texts)
    stages.end("vectorize")
    model = SGDClassifier(loss="log_loss", alpha=1e-6, max_iter=5, tol=None, random_state=0, n_jobs=2)
    model.fit(x, labels)
    stages.end("train")
    accuracy = float(np.mean(model.predict(test_x) == test_labels))
    stages.end("test")
    return {"accuracy": accuracy, **stages.seconds}


def guide(text: Path, *, rows: int | None) -> dict[str, Any]:
    """Run the guide's program on all rows, or on `rows` training rows and a tenth as many test rows."""
    import keras
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.feature_selection import SelectKBest, f_classif

    stages = Stages()
    texts, labels = read(text / "train.csv", rows)
    test_texts, test_labels = read(text / "test.csv", rows and rows // 10)
    stages.end("read")
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2, strip_accents="unicode", dtype=np.float32)
    x, test_x = vectorizer.fit_transform(texts), vectorizer.transform(test_texts)
    selector = SelectKBest(f_classif, k=min(20_000, x.shape[1])).fit(x, labels)
    x, test_x = selector.transform(x).astype("float32"), selector.transform(test_x).astype("float32")
    stages.end("vectorize")
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((x.shape[1],)),
            layers.Dropout(0.2),
            layers.Dense(64, activation="relu"),
            layers.Dropout(0.2),
            layers.Dense(int(labels.max()) + 1, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["acc"])
    history = model.fit(
        dense_batches(x, labels),
        steps_per_epoch=-(-len(labels) // 128),
        epochs=1000,
        validation_data=dense_batches(test_x, test_labels),
        validation_steps=-(-len(test_labels) // 128),
        callbacks=[keras.callbacks.EarlyStopping(monitor="val_loss", patience=2)],
        verbose=0,
    )
    stages.end("train")
    accuracies = history.history["val_acc"]
    return {"accuracy": accuracies[-1], "epochs": len(accuracies), "rows": len(labels), **stages.seconds}


def dense_batches(x: Any, y: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield dense batches of 128 from sparse rows, without end."""
    while True:
        for start in range(0, len(y), 128):
            yield x[start : start + 128].toarray(), y[start : start + 128]


def main() -> None:
    """Run one program and print its results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rival", choices=["fasttext", "sgd", "guide"])
    parser.add_argument("--text", type=Path, required=True, help="folder with train.csv and test.csv")
    parser.add_argument("--folder", type=Path, help="folder for fastText's files")
    parser.add_argument("--learning-rate", type=float, default=0.5)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rows", type=int, help="training rows of the guide's program (default: all)")
    options = parser.parse_args()
    if options.rival == "fasttext":
        rate, epochs = options.learning_rate, options.epochs
        found = fasttext(options.text, options.folder, learning_rate=rate, epochs=epochs)
    elif options.rival == "sgd":
        found = sgd(options.text)
    else:
        found = guide(options.text, rows=options.rows)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
