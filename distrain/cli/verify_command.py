"""The command `distrain verify`: is every file of a data set or a run what was written?

Decides: its options, its output and its exit code. Never: reads a file itself.

    $ distrain verify data runs/1
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distrain.cli.options import input_path
from distrain.errors import CheckpointError, ConfigurationError, DataError, DistrainError
from distrain.fingerprints import Findings
from distrain.remote.path import is_url


def add_verify(commands: Any) -> None:
    """Add `distrain verify`."""
    command = commands.add_parser("verify", help="compare every file of data sets and runs with its SHA-256")
    command.add_argument(
        "folders", nargs="+", type=input_path, metavar="DIR", help="data sets, their URLs, or run directories"
    )
    command.add_argument("--json", action="store_true", help="print one JSON object per folder")
    command.set_defaults(command=_verify, may_be_cut=True, prints_result=True)


def _verify(options: argparse.Namespace) -> None:
    damaged: list[tuple[type[DistrainError], str]] = []
    for folder in options.folders:
        kind, error, findings = _look_at(folder)
        if options.json:
            print(json.dumps({"folder": str(folder), "kind": kind, **asdict(findings)}))
        else:
            _print(folder, kind, findings)
        if findings.faults:
            damaged.append((error, f"{folder} ({', '.join(findings.faults)})"))
    if damaged:
        names = "; ".join(name for _, name in damaged)
        raise damaged[0][0](f"damaged: {names}. Copy the files anew, or make the folder again.")


def _look_at(folder: Path) -> tuple[str, type[DistrainError], Findings]:
    from distrain.data.verification import is_dataset, is_recorded_arrays, verify_arrays, verify_dataset
    from distrain.runs.verification import is_run, verify_run

    try:
        if is_dataset(folder):
            return "data set", DataError, verify_dataset(folder)
        if is_recorded_arrays(folder):
            return "arrays", DataError, verify_arrays(folder)
        if not is_url(folder) and is_run(folder):
            return "run", CheckpointError, verify_run(folder)
    except OSError as error:
        raise ConfigurationError(f"{folder} cannot be read: {error}") from None
    raise ConfigurationError(
        f"{folder} is neither a prepared data set nor a run directory, nor arrays that distrain wrote: give one of "
        "these."
    )


def _print(folder: Path, kind: str, findings: Findings) -> None:
    state = f"{len(findings.faults)} damaged" if findings.faults else "whole"
    print(f"{folder}: {kind}, {len(findings.files)} files, {findings.bytes:,} bytes compared: {state}")
    for name, fault in findings.faults.items():
        print(f"  damaged: {name} {fault}")
    for name in findings.unknown:
        print(f"  unknown: {name}")
    for name, reason in findings.unchecked.items():
        print(f"  not compared: {name} ({reason})")
