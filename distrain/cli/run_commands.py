"""The commands about a run directory: `evaluate`, `predict`, `report` and `alive`.

Decides: options and output of these commands. Never: loads a model itself.

    $ distrain evaluate --run runs/1 --data data
    $ echo "stocks fall" | distrain predict --run runs/1
    $ distrain predict --run runs/1 --data data --out predictions.parquet
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from distrain.cli.options import input_path, local_path
from distrain.errors import ConfigurationError, DataError
from distrain.file_names import CONFIG_NAME, METRICS_NAME, REPORT_NAME, SUMMARY_NAME

PARTS = ("test", "validation", "train")  # as `predict` prefers them
_DATA = "prepared data that the run was trained on, or its URL, a folder of arrays, or a function module:function"
_MAX_LINE_BYTES = 2**26  # as `prepare` accepts with 1 GiB of memory


def add_evaluate(commands: Any) -> None:
    """Add `distrain evaluate`."""
    command = commands.add_parser(
        "evaluate", help="print metrics of the best checkpoint on the test part, else the validation part, as JSON"
    )
    command.add_argument("--run", type=local_path, required=True, metavar="RUN", help="run directory")
    command.add_argument("--data", type=input_path, required=True, metavar="DATA", help=_DATA)
    _add_choice(command)
    _add_devices(command)
    command.set_defaults(command=_evaluate, may_be_cut=True, prints_result=True)


def _evaluate(options: argparse.Namespace) -> None:
    from distrain.inference.evaluate import evaluate_run

    chosen = {"checkpoint": options.checkpoint, "trust": options.trust, "devices": options.devices}
    print(json.dumps(evaluate_run(options.run, options.data, **chosen)))


def add_predict(commands: Any) -> None:
    """Add `distrain predict`."""
    command = commands.add_parser(
        "predict", help="predict each line of a text, or each example of --data; print one JSON object for each"
    )
    command.add_argument("--run", type=local_path, required=True, metavar="RUN", help="run directory")
    command.add_argument(
        "file", nargs="?", type=input_path, metavar="FILE", help="texts, one per line (default: standard input)"
    )
    command.add_argument("--data", type=input_path, metavar="DATA", help=f"in place of texts: {_DATA}")
    command.add_argument(
        "--part", choices=PARTS, metavar="|".join(PARTS), help="part of --data (default: the first of these it has)"
    )
    command.add_argument(
        "--out", type=local_path, metavar="FILE", help="write the predictions of --data to this .parquet or .jsonl file"
    )
    _add_choice(command)
    _add_devices(command)
    command.set_defaults(command=_predict, may_be_cut=True, prints_result=True)


def _predict(options: argparse.Namespace) -> None:
    chosen = {"checkpoint": options.checkpoint, "trust": options.trust, "devices": options.devices}
    for line in _predictions(options, chosen):
        print(line)


def _predictions(options: argparse.Namespace, chosen: dict[str, Any]) -> Iterator[str]:
    if options.data is None:
        from distrain.inference.predict import predict_lines

        for name in ("part", "out"):
            if getattr(options, name) is not None:
                raise ConfigurationError(f"--{name} goes with --data; texts are printed, so send the output to a file.")
        return predict_lines(options.run, _text_lines(options.file), **chosen)
    from distrain.inference.predict_data import predict_data

    if options.file is not None:
        raise ConfigurationError(f"{options.file} and --data are both given; predict texts, or the examples of --data.")
    return predict_data(options.run, options.data, out=options.out, part=options.part, **chosen)


def _add_choice(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--checkpoint", metavar="NAME|PATH", help="checkpoint to use, such as step-00001200 (default: the best)"
    )
    command.add_argument(
        "--trust",
        action="store_true",
        help="import and call the function that the run names as --model; without it no code of the run runs",
    )


def _add_devices(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--devices", metavar="cpu|gpu:N", help="the device to compute on (default: the first GPU; the CPU without GPUs)"
    )


def _text_lines(path: Path | None) -> Iterator[str]:
    name = path or "standard input"
    try:
        with path.open("rb") if path else open(0, "rb", closefd=False) as file:
            while line := file.readline(_MAX_LINE_BYTES + 1):
                if len(line) > _MAX_LINE_BYTES:
                    raise DataError(f"{name} has a line of over {_MAX_LINE_BYTES >> 20} MiB. Give one text per line.")
                yield line.decode("utf-8", "replace").rstrip("\r\n")
    except OSError as error:
        raise DataError(f"{name} cannot be read: {error.strerror}.") from None


def add_report(commands: Any) -> None:
    """Add `distrain report`."""
    command = commands.add_parser("report", help="write report.html of one run, or of several side by side")
    command.add_argument("runs", nargs="+", type=local_path, metavar="RUN", help="run directories")
    command.add_argument(
        "--out", type=local_path, metavar="FILE", help="file to write (default: report.html in the first run)"
    )
    command.set_defaults(command=_report, may_be_cut=True)


def _report(options: argparse.Namespace) -> None:
    from distrain.runs.manifest import check_files

    for run in options.runs:
        check_files(run, CONFIG_NAME, METRICS_NAME, SUMMARY_NAME)
    write_report(options.runs, options.out or options.runs[0] / REPORT_NAME)


def write_report(runs: Sequence[Path], out: Path) -> None:
    """Write the report of some runs, and say where it is."""
    from distrain.reporting.html import page

    page.write_report(runs, out)
    print(f"report: {out}")


def add_alive(commands: Any) -> None:
    """Add `distrain alive`."""
    command = commands.add_parser("alive", help="check that a run shows signs of life, for a liveness probe")
    command.add_argument("--run", type=local_path, required=True, metavar="RUN", help="run directory")
    command.add_argument(
        "--within",
        type=float,
        default=300,
        metavar="SECONDS",
        help="largest allowed age of the last sign of life (default: %(default)s)",
    )
    command.set_defaults(command=_alive, may_be_cut=True, prints_result=True)


def _alive(options: argparse.Namespace) -> None:
    from distrain.reporting.liveness import sign_of_life

    if not options.within > 0:
        raise ConfigurationError(f"--within is {options.within:g}, but it must be above 0 seconds.")
    print(sign_of_life(options.run, within=options.within))
