"""`distrain prepare` beside scikit-learn and Keras: from CSV to finished features, in MB of CSV a second.

    python benchmarks/prepare.py                          # made-up text
    python benchmarks/prepare.py --text DIR               # with train.csv and test.csv: class, text
    python benchmarks/prepare.py --rows 2000000 --memory  # anonymous memory of all processes instead

Each in turn, in a process of its own, on one core (two for two processes), `--turns` times; medians, and ratios of
neighbours. Times are of the work alone: processes first do the same with a few rows, so that code is imported and
compiled. Reading the CSV is part of the work of all.

- distrain: n-grams (20,000 of 1- and 2-grams, written to disk) in one process, two (`--workers 2`, of which the second
  starts anew), and as `mpirun -n 2`, and sequences (20,000 words) in one process; and whole commands, start and end
  included, with one process and two.
- halves: two whole commands beside each other, of one process and half of the made-up rows each, that know nothing of
  each other: as much faster than `command` as the machine lets two processes be.
- scikit-learn: `csv.reader`, `TfidfVectorizer((1, 2), min_df=2, strip_accents="unicode")`,
  `SelectKBest(f_classif, 20000)`, fitted to the training rows and applied to both parts.
- Keras: `csv.reader` and `TextVectorization(20000)`, adapted and applied to both parts; and the guide's `Tokenizer`
  with `pad_sequences`.

The features of distrain and scikit-learn are compared to 1e-6, and the files of one, two and MPI's processes byte by
byte.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TOP_K = 20_000


def read(path: Path) -> tuple[list[str], list[int]]:
    """Texts and labels of a CSV file, as the guide's readers do it."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    return [" ".join(row[1:]) for row in rows], [int(row[0]) for row in rows]


def scikit_learn(text: Path, out: Path) -> None:
    """Fit to the training rows, and vectorize both parts."""
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
    """Keras' layer, adapted to the training rows."""
    import keras
    import tensorflow as tf

    layer = keras.layers.TextVectorization(TOP_K)
    train, test = (tf.data.Dataset.from_tensor_slices(read(text / f"{part}.csv")[0]).batch(1024) for part in PARTS)
    layer.adapt(train)
    for part in (train, test):
        for batch in part:
            layer(batch)


def guide_tokenizer(text: Path, out: Path) -> None:
    """The text classification guide's `Tokenizer` and `pad_sequences`, as in `sequence_vectorize`."""
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
    """`distrain prepare` in this process."""
    from rich.console import Console

    from distrain.config import PrepareConfig
    from distrain.prepare.pipeline import prepare

    config = PrepareConfig(
        train=text / "train.csv", test=text / "test.csv", out=out, vectorizer=vectorizer, workers=workers
    )
    prepare(config, console=Console(quiet=True))


def command(text: Path, out: Path, *, workers: int) -> None:
    """`distrain prepare` as it is typed."""
    with started(text, out, workers=workers) as process:
        assert process.wait() == 0


def halves(text: Path, out: Path) -> None:
    """Two commands beside each other, on half of the rows each."""
    with started(text / HALF, out / "one", workers=1) as one, started(text / HALF, out / "other", workers=1) as other:
        assert one.wait() == other.wait() == 0


def started(text: Path, out: Path, *, workers: int) -> subprocess.Popen[bytes]:
    """The command, started."""
    arguments = ["--train", text / "train.csv", "--test", text / "test.csv", "--out", out, "--vectorizer", "ngram"]
    program = [sys.executable, "-m", "distrain", "prepare", *map(str, arguments), "--workers", str(workers)]
    return subprocess.Popen(program, stdout=subprocess.DEVNULL)


PARTS = ("train", "test")
HALF = "half"  # folder beside them, with half of the rows
JOBS: dict[str, tuple[int, Callable[[Path, Path], None]]] = {  # cores, and what is done
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
    """The process of one job: a rehearsal, then the work; prints seconds, and those of the processor.

    Processes that it starts are counted among the latter, those beside it under mpirun are not.
    """
    _, job = JOBS[name]
    job(small, out)
    began, cpu = time.perf_counter(), sum(os.times()[:4])
    job(text, out)
    if os.environ.get("OMPI_COMM_WORLD_RANK", "0") == "0":
        print(json.dumps([time.perf_counter() - began, sum(os.times()[:4]) - cpu]))


def start(name: str, text: Path, out: Path, small: Path) -> subprocess.Popen[str]:
    """Start the process, or mpirun's processes, of one job, bound to its cores."""
    cores = sorted(os.sched_getaffinity(0))[: JOBS[name][0]]
    command = [sys.executable, __file__, "--work", name, str(text), str(out), str(small)]
    if name == "ngram-mpi":
        command = ["mpirun", "-n", "2", "--bind-to", "none", "--oversubscribe", *command]
    environ = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "OMPI_ALLOW_RUN_AS_ROOT": "1"}
    environ["OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"] = "1"
    return subprocess.Popen(
        ["taskset", "-c", ",".join(map(str, cores)), *command], stdout=subprocess.PIPE, text=True, env=environ
    )


def measure(name: str, text: Path, out: Path, small: Path) -> list[float]:
    """Wall and processor seconds of one turn of a job."""
    with start(name, text, out, small) as process:
        output, _ = process.communicate()
    if process.returncode:
        raise SystemExit(f"{name} failed with exit code {process.returncode}")
    return json.loads(output.splitlines()[-1])


def anonymous_memory(process: subprocess.Popen[str]) -> dict[int, int]:
    """Peak RssAnon in bytes of a process and all its descendants, sampled until it ends."""
    peaks: dict[int, int] = {}
    while process.poll() is None:
        family, found = {process.pid}, True
        while found:
            found = False
            for entry in Path("/proc").glob("[0-9]*/status"):
                try:
                    fields = dict(line.split(":", 1) for line in entry.read_text().splitlines())
                except (OSError, ValueError):
                    continue
                pid = int(fields["Pid"])
                if int(fields["PPid"]) in family and pid not in family:
                    family.add(pid)
                    found = True
                if pid in family and "RssAnon" in fields:
                    peaks[pid] = max(peaks.get(pid, 0), int(fields["RssAnon"].split()[0]) * 1024)
        time.sleep(0.05)
    return peaks


def digest(folder: Path) -> str:
    """Of all bytes of all files in a folder, and their names."""
    state = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        state.update(str(path.relative_to(folder)).encode())
        state.update(hashlib.sha256(path.read_bytes()).digest())
    return state.hexdigest()


def compare(text: Path, out: Path) -> float:
    """The greatest difference between distrain's features and scikit-learn's, over both parts."""
    import numpy as np
    import scipy.sparse
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.feature_selection import SelectKBest, f_classif

    from distrain.data.dataset_index import open_dataset
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
    """Peak anonymous memory of every process of each job."""
    for name in names:
        process = start(name, text, folder / name, small)
        threading.Thread(target=process.communicate, daemon=True).start()
        began = time.perf_counter()
        peaks = sorted((peak for peak in anonymous_memory(process).values() if peak > 50e6), reverse=True)
        shown = ", ".join(f"{peak / 2**20:,.0f}" for peak in peaks)
        print(f"{name:20} peak RssAnon, MiB: {shown}   {time.perf_counter() - began:.0f} s, exit {process.returncode}")


def show_speed(text: Path, small: Path, folder: Path, names: list[str], turns: int) -> None:
    """Medians and ratios of all jobs in turn, and whether their results agree."""
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
            wall, cpu = (statistics.median(b[at] / a[at] for a, b in pairs) for at in (0, 1))
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
        print(f"greatest difference from scikit-learn's features: {compare(text, folder / 'ngram'):.1e}")


def main() -> None:
    """Make the text, run all in turn, print."""
    if sys.argv[1:2] == ["--work"]:
        work(sys.argv[2], *map(Path, sys.argv[3:]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", type=Path, help="folder with train.csv and test.csv")
    parser.add_argument("--rows", type=int, default=200_000, help="rows of made-up text (default: 200000)")
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
