"""Compares `distrain prepare` with scikit-learn and Keras, from CSV to finished features, in MB of CSV per second.

    python benchmarks/prepare.py                          # synthetic text
    python benchmarks/prepare.py --text DIR               # with train.csv and test.csv: class, text
    python benchmarks/prepare.py --rows 2000000 --memory  # anonymous memory of all processes instead

Each job runs in a process of its own, on as many cores as it has processes. Jobs take turns; the output shows medians,
and ratios within a turn. Each process first does the same work on a few rows, so the times include neither imports nor
compilation. Reading the CSV counts for all jobs.

- ngram, ngram-2, ngram-mpi: 20,000 n-grams in one process, in two (`--workers 2`), and under `mpirun -n 2`.
- sequence: 20,000 words in one process.
- command, command-2: the whole command with its start and end, with one process and with two.
- halves: two independent commands on half of the synthetic rows each. Its ratio to `command` is the largest speed-up
  that the machine allows two processes.
- scikit-learn: `csv.reader`, `TfidfVectorizer((1, 2), min_df=2, strip_accents="unicode")`,
  `SelectKBest(f_classif, 20000)`, fitted to the training rows and applied to both parts.
- text-vectorization: `csv.reader` and Keras' `TextVectorization(20000)`, adapted and applied to both parts.
- tokenizer: the guide's `Tokenizer` with `pad_sequences`.

The benchmark also compares the features of distrain and scikit-learn, and the files of one, two and MPI's processes.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from measuring import MPIRUN, run_measured

TOP_K = 20_000
RESULT = re.compile(r"\[[\d.e-]+, [\d.e-]+\]")  # wall and CPU seconds, as `work` prints them
MIN_SHOWN_BYTES = 50e6  # smaller processes are launchers


def read(path: Path) -> tuple[list[str], list[int]]:
    """Return texts and labels of a CSV file, as the guide's readers do."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    return [" ".join(row[1:]) for row in rows], [int(row[0]) for row in rows]


def scikit_learn(text: Path, out: Path) -> None:
    """Fit scikit-learn to the training rows, and vectorize both parts."""
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.feature_selection import SelectKBest, f_classif

    texts, labels = read(text / "train.csv")
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2, strip_accents="unicode", dtype=np.float32)
    train = vectorizer.fit_transform(texts)
    chosen = SelectKBest(f_classif, k=min(TOP_K, train.shape[1])).fit(train, labels)
    chosen.transform(train).astype("float32")
    chosen.transform(vectorizer.transform(read(text / "test.csv")[0])).astype("float32")


def text_vectorization(text: Path, out: Path) -> None:
    """Adapt Keras' layer to the training rows, and apply it to both parts."""
    import keras
    import tensorflow as tf

    layer = keras.layers.TextVectorization(TOP_K)
    train, test = (tf.data.Dataset.from_tensor_slices(read(text / f"{part}.csv")[0]).batch(1024) for part in PARTS)
    layer.adapt(train)
    for part in (train, test):
        for batch in part:
            layer(batch)


def guide_tokenizer(text: Path, out: Path) -> None:
    """Apply the guide's `Tokenizer` and `pad_sequences`, as its `sequence_vectorize` does."""
    from keras.src.legacy.preprocessing.text import Tokenizer
    from keras.utils import pad_sequences

    tokenizer = Tokenizer(num_words=TOP_K)
    train, test = (read(text / f"{part}.csv")[0] for part in PARTS)
    tokenizer.fit_on_texts(train)
    length = None
    for part in (train, test):
        sequences = tokenizer.texts_to_sequences(part)
        length = length or min(500, max(map(len, sequences)))
        pad_sequences(sequences, maxlen=length)


def distrain(text: Path, out: Path, *, vectorizer: str, workers: int | None = 1) -> None:
    """Run `distrain prepare` in this process."""
    from rich.console import Console

    from distrain.config import PrepareConfig
    from distrain.prepare.pipeline import prepare

    config = PrepareConfig(
        train=text / "train.csv", test=text / "test.csv", out=out, vectorizer=vectorizer, workers=workers
    )
    prepare(config, console=Console(quiet=True))


def command(text: Path, out: Path, *, workers: int) -> None:
    """Run `distrain prepare` as a user types it."""
    with started(text, out, workers=workers) as process:
        assert process.wait() == 0


def halves(text: Path, out: Path) -> None:
    """Run two commands at the same time, on half of the rows each."""
    with started(text / HALF, out / "one", workers=1) as one, started(text / HALF, out / "other", workers=1) as other:
        assert one.wait() == other.wait() == 0


def started(text: Path, out: Path, *, workers: int) -> subprocess.Popen[bytes]:
    """Start the command."""
    arguments = ["--train", text / "train.csv", "--test", text / "test.csv", "--out", out, "--vectorizer", "ngram"]
    program = [sys.executable, "-m", "distrain", "prepare", *map(str, arguments), "--workers", str(workers)]
    return subprocess.Popen(program, stdout=subprocess.DEVNULL)


PARTS = ("train", "test")
HALF = "half"  # subfolder with half of the rows
JOBS: dict[str, tuple[int, Callable[[Path, Path], None]]] = {  # cores, and the work
    "ngram": (1, lambda text, out: distrain(text, out, vectorizer="ngram")),
    "ngram-2": (2, lambda text, out: distrain(text, out, vectorizer="ngram", workers=2)),
    "ngram-mpi": (2, lambda text, out: distrain(text, out, vectorizer="ngram", workers=None)),
    "command": (1, lambda text, out: command(text, out, workers=1)),
    "command-2": (2, lambda text, out: command(text, out, workers=2)),
    "halves": (2, halves),
    "sequence": (1, lambda text, out: distrain(text, out, vectorizer="sequence")),
    "scikit-learn": (1, scikit_learn),
    "text-vectorization": (1, text_vectorization),
    "tokenizer": (1, guide_tokenizer),
}


def work(name: str, text: Path, out: Path, small: Path) -> None:
    """Run one job in this process: first on a few rows, then measured; print wall and CPU seconds.

    CPU seconds include the processes that the job starts, but not the other ranks under mpirun.
    """
    _, job = JOBS[name]
    job(small, out)
    began, cpu = time.perf_counter(), sum(os.times()[:4])
    job(text, out)
    if os.environ.get("OMPI_COMM_WORLD_RANK", "0") == "0":
        print(json.dumps([time.perf_counter() - began, sum(os.times()[:4]) - cpu]))


def job_command(name: str, text: Path, out: Path, small: Path) -> list[str]:
    """Return the command of one job, bound to its cores."""
    cores = sorted(os.sched_getaffinity(0))[: JOBS[name][0]]
    command = [sys.executable, __file__, "--work", name, str(text), str(out), str(small)]
    launcher = [*MPIRUN, "2"] if name == "ngram-mpi" else []
    return ["taskset", "-c", ",".join(map(str, cores)), *launcher, *command]


def measure(name: str, text: Path, out: Path, small: Path) -> list[float]:
    """Return wall and CPU seconds of one turn of a job."""
    output = run_measured(job_command(name, text, out, small)).output
    found = RESULT.search(output)  # not the last line: under mpirun, stdout is a terminal and may end in an escape
    if found is None:
        raise SystemExit(f"{name} printed no result, but {output!r}")
    return json.loads(found[0])


def digest(folder: Path) -> str:
    """Return the SHA-256 of all files in a folder and of their names."""
    state = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        state.update(str(path.relative_to(folder)).encode())
        state.update(hashlib.sha256(path.read_bytes()).digest())
    return state.hexdigest()


def compare(text: Path, out: Path) -> float:
    """Return the largest difference between distrain's features and scikit-learn's, over both parts."""
    import numpy as np
    import scipy.sparse
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.feature_selection import SelectKBest, f_classif

    from distrain.data.prepared.dataset_index import open_dataset
    from distrain.text.vectorizers.load_vectorizer import load_vectorizer

    texts, labels = read(text / "train.csv")
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2, strip_accents="unicode")
    train = vectorizer.fit_transform(texts)
    scores = SelectKBest(f_classif, k=min(TOP_K, train.shape[1])).fit(train, labels).scores_
    dataset = open_dataset(out)
    names: Any = load_vectorizer(out / "vectorizer")
    columns = [vectorizer.vocabulary_[name] for name in names.feature_names()]
    cut = np.sort(scores[columns])[0]
    left_out = np.delete(scores, columns)
    assert left_out.max(initial=0) <= cut * (1 + 1e-9), "other n-grams were chosen"
    worst = 0.0
    for part, matrix in (("train", train), ("test", vectorizer.transform(read(text / "test.csv")[0]))):
        rows = dataset.parts[part].read(0, dataset.parts[part].num_rows)
        ours = scipy.sparse.csr_matrix((rows.values, rows.columns, rows.row_splits), (rows.num_rows, len(columns)))
        worst = max(worst, abs(ours - matrix[:, columns]).max())
    return worst


def show_memory(text: Path, small: Path, folder: Path, names: list[str]) -> None:
    """Print the peak anonymous memory of every large process of each job."""
    for name in names:
        measured = run_measured(job_command(name, text, folder / name, small))
        peaks = ", ".join(f"{peak / 2**20:,.0f}" for peak in measured.peak_bytes if peak > MIN_SHOWN_BYTES)
        print(f"{name:20} peak RssAnon, MiB: {peaks}   {measured.seconds:.0f} s")


def show_speed(text: Path, small: Path, folder: Path, names: list[str], turns: int) -> None:
    """Print medians and ratios of all jobs in turn, and whether their results agree."""
    size = sum((text / f"{part}.csv").stat().st_size for part in PARTS) / 1e6
    seconds: dict[str, list[list[float]]] = {name: [] for name in names}
    for turn in range(turns):
        for name in names:
            seconds[name].append(measure(name, text, folder / name, small))
            print(f"turn {turn + 1}, {name}: {seconds[name][-1][0]:.2f} s", file=sys.stderr)
    print(f"{size:.1f} MB of CSV, medians of {turns} turns")
    for name in names:
        wall, cpu = (statistics.median(column) for column in zip(*seconds[name], strict=True))
        print(f"{name:20} {wall:8.2f} s  {size / wall:7.2f} MB/s   processor {cpu:8.2f} s  {size / cpu:7.2f} MB/s")

    def ratio(one: str, other: str) -> None:
        if one in names and other in names:
            pairs = list(zip(seconds[one], seconds[other], strict=True))
            wall, cpu = (statistics.median(b[index] / a[index] for a, b in pairs) for index in (0, 1))
            cpu_too = f" (processor time {cpu:.1f})" if JOBS[one][0] == JOBS[other][0] else ""
            print(f"{one} is {wall:.2f} times as fast as {other}{cpu_too}")

    ratio("ngram", "scikit-learn")
    ratio("ngram-2", "ngram")
    ratio("ngram-mpi", "ngram")
    ratio("command-2", "command")
    ratio("halves", "command")
    ratio("sequence", "text-vectorization")
    ratio("sequence", "tokenizer")
    ngram = [name for name in names if name.startswith(("ngram", "command"))]
    print(f"n-gram data sets of {', '.join(ngram)}: {len({digest(folder / name) for name in ngram})} different")
    if "scikit-learn" in names and "ngram" in names:
        print(f"largest difference from scikit-learn's features: {compare(text, folder / 'ngram'):.1e}")


def main() -> None:
    """Write the text, run all jobs in turn, print."""
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], *map(Path, sys.argv[3:]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, help="folder with train.csv and test.csv")
    parser.add_argument("--rows", type=int, default=200_000, help="rows of synthetic text (default: %(default)s)")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=JOBS, default=list(JOBS), help="jobs to run (default: all)")
    parser.add_argument("--memory", action="store_true", help="sample anonymous memory of distrain's jobs, once each")
    options = parser.parse_args()
    from distrain.text.synthetic.corpus import write_synthetic

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text, small = options.text or folder / "text", folder / "small"
        if options.text is None:
            write_synthetic(text, rows=options.rows)
            write_synthetic(text / HALF, rows=options.rows // 2)
        else:
            options.only = [job for job in options.only if job != "halves"]
        write_synthetic(small, rows=1000)
        write_synthetic(small / HALF, rows=500)
        if options.memory:
            show_memory(text, small, folder, [job for job in options.only if job.startswith(("ngram", "seq"))])
        else:
            show_speed(text, small, folder, options.only, options.turns)


if __name__ == "__main__":
    main()
