"""Memory: peaks of preparing and training on a CSV larger than the memory limit.

    python benchmarks/memory.py [--gigabytes 4] [--workers 2] [--words-per-row 40] [--folder DIR]

The script writes synthetic text of the given size, prepares n-grams and trains one epoch. It prints the peak RssAnon of
every process, which excludes mapped files. The target is less than 1.5 GiB per process. The folder takes about 2.5
times the size of the text.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

from measuring import Measured, distrain, run_measured
from rich.console import Console
from rich.table import Table

TARGET_BYTES = 1.5 * 2**30
PROBE_ROWS = 20_000
SHOWN_PROCESSES = 4
MIN_SHOWN_BYTES = 16 * 2**20  # launchers and resource trackers take less


def rows_of(gigabytes: float, *, words_per_row: int, work: Path) -> int:
    """Number of rows in a training file of that size, estimated from a small file."""
    probe = work / "probe"
    run_measured(distrain("synth", "--out", probe, "--rows", PROBE_ROWS, "--words-per-row", words_per_row))
    size = (probe / "train.csv").stat().st_size
    shutil.rmtree(probe)
    return round(gigabytes * 1e9 / size * PROBE_ROWS)


def main() -> None:
    """Write, prepare, train, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--workers", type=int, default=2, help="of prepare (default: 2)")
    parser.add_argument("--words-per-row", type=int, default=40)
    parser.add_argument("--vectorizer", choices=["ngram", "sequence"], default="ngram")
    parser.add_argument("--batch-size", type=int, default=512)
    parser.add_argument("--memory-mib", type=int, help="of prepare (default: its own)")
    parser.add_argument("--folder", type=Path, help="where to work (default: the temporary folder)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        work = Path(folder)
        free = shutil.disk_usage(work).free
        if free < 3e9 * options.gigabytes:
            sys.exit(f"{work} has {free / 1e9:.1f} GB free; {3 * options.gigabytes:.1f} are needed: give --folder.")
        rows = rows_of(options.gigabytes, words_per_row=options.words_per_row, work=work)
        text, data, run = work / "text", work / "data", work / "run"
        found: dict[str, Measured] = {}
        found["synth"] = run_measured(
            distrain("synth", "--out", text, "--rows", rows, "--words-per-row", options.words_per_row)
        )
        size = (text / "train.csv").stat().st_size
        files = ("--train", text / "train.csv", "--test", text / "test.csv", "--out", data)
        bound = ("--memory-mib", options.memory_mib) if options.memory_mib else ()
        settings = ("--vectorizer", options.vectorizer, "--workers", options.workers, *bound)
        found[f"prepare --workers {options.workers}"] = run_measured(distrain("prepare", *files, *settings))
        shutil.rmtree(text)
        settings = ("--epochs", 1, "--global-batch-size", options.batch_size)
        found["train"] = run_measured(distrain("train", "--data", data, "--run", run, *settings))
        summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    table = Table(title=f"{size / 1e9:.2f} GB of text in {rows:,} rows, {options.vectorizer}", title_justify="left")
    for column in ("command", "seconds", "CPU seconds", "peak RssAnon of each process, MiB"):
        table.add_column(column, justify="left" if column == "command" else "right")
    for command, measured in found.items():
        peaks = [peak for peak in measured.peak_bytes if peak >= MIN_SHOWN_BYTES][:SHOWN_PROCESSES]
        shown = ", ".join(f"{peak / 2**20:,.0f}" for peak in peaks)
        table.add_row(command, f"{measured.seconds:.1f}", f"{measured.cpu_seconds:.1f}", shown)
    console = Console()
    console.print(table)
    largest = max(measured.peak_bytes[0] for measured in found.values())
    verdict = "below" if largest < TARGET_BYTES else "ABOVE"
    console.print(f"largest process: {largest / 2**30:.2f} GiB, {verdict} the target of 1.5 GiB", highlight=False)
    console.print(f"accuracy after one epoch: {summary['validation_accuracy']:.4f}", highlight=False)


if __name__ == "__main__":
    main()
