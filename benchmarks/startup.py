"""Measures the start of `distrain train`: from the command to the end of the first training step.

    python benchmarks/startup.py [--launches 5] [--models ngram sequence] [--ways single mpi]

Each launch trains one epoch on 2,000 synthetic rows, and launches take turns. "Import" is `import keras` on TensorFlow
in a process of its own, which every Keras program needs. "Whole command" lasts until the process, or `mpirun`, ends.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from measuring import BIN, MPIRUN, distrain, run_measured
from rich.console import Console
from rich.table import Table

WAYS = {
    "single": [],
    "mpi": [*MPIRUN, "2"],
    "horovod": [*MPIRUN, "2"],
    "gloo": [str(BIN / "horovodrun"), "--gloo", "-np", "2"],
}
STRATEGIES = {"single": "single", "mpi": "mpi", "horovod": "horovod", "gloo": "horovod"}


def launch(way: str, data: Path, run: Path) -> tuple[float, float, float]:
    """Return seconds to the first step, seconds of the whole command, and CPU seconds of all its processes."""
    train = ("train", "--data", data, "--run", run, "--epochs", 1, "--strategy", STRATEGIES[way])
    measured = run_measured([*WAYS[way], *distrain(*train)])
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    return summary["startup_seconds"], measured.seconds, measured.cpu_seconds


def main() -> None:
    """Prepare data, launch in turn, print medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--launches", type=int, default=5)
    parser.add_argument("--models", nargs="+", choices=["ngram", "sequence"], default=["ngram", "sequence"])
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=["single", "mpi"])
    options = parser.parse_args()
    cases = [(model, way) for model in options.models for way in options.ways]
    found: dict[tuple[str, str], list[tuple[float, float, float]]] = {case: [] for case in cases}
    imports = []
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        run_measured(distrain("synth", "--out", work / "text", "--rows", 2000))
        for model in options.models:
            text = ("--train", work / "text" / "train.csv", "--test", work / "text" / "test.csv")
            run_measured(distrain("prepare", *text, "--out", work / model, "--vectorizer", model))
        for number in range(
            options.launches + 1
        ):  # the first launch does not count, because it reads files for the first time
            imported = run_measured([sys.executable, "-c", "import keras"])
            times = {(model, way): launch(way, work / model, work / f"{model}-{way}-{number}") for model, way in cases}
            if number:
                imports.append(imported)
                for case in cases:
                    found[case].append(times[case])
    table = Table(title=f"seconds, medians of {options.launches} launches", title_justify="left")
    for column in ("model", "processes", "first step", "(range)", "whole command", "CPU"):
        table.add_column(column, justify="left" if column in ("model", "processes") else "right")
    seconds, cpu_seconds = ([getattr(each, name) for each in imports] for name in ("seconds", "cpu_seconds"))
    median_cpu = f"{statistics.median(cpu_seconds):.1f}"
    table.add_row("", "import alone", f"{statistics.median(seconds):.1f}", _range(seconds), "", median_cpu)
    for (model, way), launches in found.items():
        first, whole, cpu = zip(*launches, strict=True)
        medians = [statistics.median(column) for column in (first, whole, cpu)]
        row = [f"{median:.1f}" for median in medians]
        table.add_row(model, "1" if way == "single" else f"2, {way}", row[0], _range(first), *row[1:])
    Console().print(table)


def _range(seconds: list[float] | tuple[float, ...]) -> str:
    return f"{min(seconds):.1f} to {max(seconds):.1f}"


if __name__ == "__main__":
    main()
