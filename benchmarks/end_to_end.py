"""Compares distrain with fastText, scikit-learn and the guide's program, from CSV to test accuracy.

    python benchmarks/end_to_end.py [--rows 1000000] [--text DIR ...] [--turns 3] [--rivals fasttext sgd guide]

The benchmark uses synthetic text of `--rows` rows, then each DIR (`train.csv`, `test.csv`: class from 1, text). Every
program starts from the command and uses two cores. distrain is `prepare --workers 2` and `train`; `rivals.py` holds the
other programs. fastText trains with several settings. Its most accurate setting on the test rows is the reference,
which favours fastText. The programs distrain and fastText take turns, and the table shows medians. Other programs run
once.

"Reaches" is the time until a program reached the reference accuracy. For distrain this is the end of an epoch. The
guide's program runs on at most `--guide-rows` rows. The benchmark extrapolates larger sets, because time grows with
the rows.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from measuring import distrain, run_measured
from rich.console import Console
from rich.table import Table

RIVALS = Path(__file__).with_name("rivals.py")
LARGE = 100_000  # rows; from here one epoch of larger batches is enough
SETTINGS = {
    True: ("--global-batch-size", 1024, "--learning-rate", 0.002, "--dropout", 0.1, "--epochs", 1),
    False: (),
}
FASTTEXT = {True: [(0.5, 1), (0.5, 5), (1.0, 5)], False: [(0.5, 5), (1.0, 5), (1.0, 25)]}


class Outcome(NamedTuple):
    """Time, memory and accuracy of one program.

    Attributes:
        seconds: wall time of the whole command.
        cpu_seconds: CPU time of all processes of the command.
        accuracy: accuracy on the test rows.
        epochs: (seconds since the command started, accuracy) after each evaluated epoch.
        peak_bytes: peak RssAnon of the largest process, in bytes.
        stages: seconds by stage.
        extrapolated: True if the program ran on a part of the rows.
    """

    seconds: float
    cpu_seconds: float
    accuracy: float
    epochs: list[tuple[float, float]]
    peak_bytes: int
    stages: dict[str, float]
    extrapolated: bool = False


def run_distrain(text: Path, work: Path, *, large: bool) -> Outcome:
    """Run `distrain prepare` and `distrain train`."""
    data, run = work / "data", work / "run"
    files = ("--train", text / "train.csv", "--test", text / "test.csv", "--out", data)
    prepare = run_measured(distrain("prepare", *files, "--vectorizer", "ngram", "--workers", 2))
    train = run_measured(distrain("train", "--data", data, "--run", run, *SETTINGS[large]))
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    events = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    epochs = [
        (prepare.seconds + event["time"] - train.began, event["val_accuracy"])
        for event in events
        if event["event"] == "epoch"
    ]
    stages = {
        "prepare": prepare.seconds,
        "start": summary["startup_seconds"],
        "epochs": epochs[-1][0] - prepare.seconds - summary["startup_seconds"],
        "end": prepare.seconds + train.seconds - epochs[-1][0],
    }
    shutil.rmtree(data)
    shutil.rmtree(run)
    peak = max(prepare.peak_bytes[0], train.peak_bytes[0])
    seconds, cpu_seconds = prepare.seconds + train.seconds, prepare.cpu_seconds + train.cpu_seconds
    return Outcome(seconds, cpu_seconds, summary["validation_accuracy"], epochs, peak, stages)


def run_rival(name: str, text: Path, *arguments: object) -> Outcome:
    """Run one program of `rivals.py`."""
    command = [sys.executable, str(RIVALS), name, "--text", str(text), *map(str, arguments)]
    measured = run_measured(command)
    stages = json.loads(measured.output.splitlines()[-1])
    accuracy = stages.pop("accuracy")
    epochs = [(measured.seconds, accuracy)]
    return Outcome(measured.seconds, measured.cpu_seconds, accuracy, epochs, measured.peak_bytes[0], stages)


def run_guide(text: Path, *, num_rows: int, max_rows: int) -> Outcome:
    """Run the guide's program on at most `max_rows` rows."""
    outcome = run_rival("guide", text, *(("--rows", max_rows) if num_rows > max_rows else ()))
    times = num_rows / outcome.stages.pop("rows")
    del outcome.stages["epochs"]
    stages = {name: seconds * times for name, seconds in outcome.stages.items()}
    seconds = outcome.seconds - sum(outcome.stages.values()) + sum(stages.values())
    return outcome._replace(
        seconds=seconds,
        cpu_seconds=outcome.cpu_seconds * seconds / outcome.seconds,
        stages=stages,
        epochs=[(seconds, outcome.accuracy)],
        extrapolated=num_rows > max_rows,
    )


def median(runs: list[Outcome]) -> Outcome:
    """Return the run of median time, with the median accuracy."""
    middle = sorted(runs, key=lambda run: run.seconds)[len(runs) // 2]
    return middle._replace(accuracy=statistics.median(run.accuracy for run in runs))


def compare(text: Path, work: Path, options: argparse.Namespace) -> dict[str, Outcome]:
    """Run all programs on one data set; return outcomes by name, and by settings for fastText."""
    with (text / "train.csv").open("rb") as lines:
        num_rows = sum(1 for _ in lines)
    large = num_rows >= LARGE
    runs: dict[str, list[Outcome]] = {}
    for _ in range(options.turns):
        runs.setdefault("distrain", []).append(run_distrain(text, work, large=large))
        for rate, epochs in FASTTEXT[large] if "fasttext" in options.rivals else ():
            settings = ("--folder", work, "--learning-rate", rate, "--epochs", epochs)
            runs.setdefault(f"fastText, rate {rate}, epochs {epochs}", []).append(
                run_rival("fasttext", text, *settings)
            )
    outcome = {name: median(several) for name, several in runs.items()}
    if "sgd" in options.rivals:
        outcome["SGDClassifier"] = run_rival("sgd", text)
    if "guide" in options.rivals:
        outcome["the guide's program"] = run_guide(text, num_rows=num_rows, max_rows=options.guide_rows)
    return outcome


def show(name: str, outcome: dict[str, Outcome], console: Console) -> None:
    """Print the table of one data set and the comparison."""
    rivals = {key: run for key, run in outcome.items() if key.startswith("fastText")}
    best = max(rivals, key=lambda key: (rivals[key].accuracy, -rivals[key].seconds)) if rivals else "distrain"
    target = outcome[best]
    table = Table(title=name, title_justify="left")
    for column in ("program", "seconds", "CPU", "accuracy", "reaches*", "MiB"):
        table.add_column(column, justify="left" if column == "program" else "right")
    for key, run in outcome.items():
        reached = [seconds for seconds, accuracy in run.epochs if accuracy >= target.accuracy]
        about = "~" if run.extrapolated else ""
        table.add_row(
            key,
            f"{about}{run.seconds:.1f}",
            f"{about}{run.cpu_seconds:.1f}",
            f"{about}{run.accuracy:.4f}",
            f"{about}{min(reached):.1f}" if reached else "no",
            f"{run.peak_bytes / 2**20:,.0f}",
        )
    console.print(table)
    console.print(f"* {target.accuracy:.4f}, the accuracy of {best}  ~ from fewer rows", highlight=False)
    for key, run in outcome.items():
        stages = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in run.stages.items())
        console.print(f"{key}: {stages} s", highlight=False, soft_wrap=True)
    if rivals:
        ours = outcome["distrain"]
        console.print(
            f"distrain takes {ours.seconds / target.seconds:.2f} times its time, "
            f"and is {ours.accuracy - target.accuracy:+.4f} more accurate.",
            highlight=False,
        )


def main() -> None:
    """Write text, run all programs, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--rows", type=int, default=1_000_000, help="rows of synthetic text; 0 for none (default: %(default)s)"
    )
    parser.add_argument("--text", type=Path, nargs="*", default=[], help="folders with train.csv and test.csv")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--rivals", nargs="*", choices=["fasttext", "sgd", "guide"])
    parser.add_argument(
        "--guide-rows", type=int, default=20_000, help="maximum rows of the guide's program (default: %(default)s)"
    )
    parser.add_argument("--folder", type=Path, help="working folder (default: the temporary folder)")
    options = parser.parse_args()
    console = Console()
    packages = {"fasttext": "fasttext", "sgd": "sklearn", "guide": "sklearn"}
    installed = [rival for rival, package in packages.items() if importlib.util.find_spec(package)]
    if options.rivals is None:
        options.rivals = installed
    for rival in set(packages) - set(installed):
        console.print(f"{rival} is left out. Install its packages with: pip install 'distrain[bench]'", markup=False)
    options.rivals = [rival for rival in options.rivals if rival in installed]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        work = Path(folder)
        run_measured(distrain("synth", "--out", work / "few", "--rows", 2000))
        run_distrain(work / "few", work, large=False)  # does not count: compiles kernels and reads files first
        sets = {str(text): text for text in options.text}
        if options.rows:
            sets = {f"{options.rows:,} synthetic rows": work / "text", **sets}
            run_measured(distrain("synth", "--out", work / "text", "--rows", options.rows))
        for name, text in sets.items():
            show(name, compare(text, work, options), console)


if __name__ == "__main__":
    main()
