"""The commands whose writes tests/faults/ tries.

subjects = make_subjects(tmp_path)
subjects["prepare"].words
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from fault_trials import Subject, tree
from prepared_data import rows, write_csv

from distrain.runs.verification import verify_run

RUN_RESULTS = ("model.keras", "summary.json", "checkpoints/step-00000004/arrays.safetensors")
TRAINED = ("weights_sha256", "validation_loss", "examples_trained")


def make_subjects(folder: Path) -> dict[str, Subject]:
    """Write the inputs of all commands into a folder, and return the commands by name."""
    vectorizer = folder / "inputs" / "vectorizer"
    vectorizer.mkdir(parents=True)
    for name in ("vectorizer.json", "words.npy"):
        (vectorizer / name).write_text(name * 10)
    text = write_csv(folder / "inputs" / "train.csv", rows(60))
    prepare = ("prepare", "--train", str(text), "--out", "{place}/data", "--workers", "1")
    subjects = (
        Subject("write_a_run", ("write_a_run", "{place}/run", str(vectorizer)), _files_of_run),
        Subject("prepare", (*prepare, "--vectorizer", "ngram"), tree),
        Subject("prepare sequences", (*prepare, "--vectorizer", "sequence"), tree),
        Subject("synth", ("synth", "--out", "{place}/text", "--rows", "100"), tree),
    )
    return {subject.name: subject for subject in subjects}


def train_subject(data: Path) -> Subject:
    """Return `distrain train` on prepared data."""
    settings = ("--epochs", "2", "--batch-size", "16", "--checkpoint-every", "2", "--keep", "2", "--strategy", "single")
    return Subject("train", ("train", "--data", str(data), "--run", "{place}/run", *settings), _trained)


def warm_ups(subjects: Mapping[str, Subject], folder: Path) -> list[list[str]]:
    """Return the commands of `subjects`, for folders of their own."""
    return [
        [word.replace("{place}", str(folder / f"warm-up-{number}")) for word in subject.words]
        for number, subject in enumerate(subjects.values())
    ]


def _files_of_run(place: Path) -> object:
    files = [place / "run" / name for name in RUN_RESULTS]
    faults = verify_run(place / "run").faults
    return faults, [path.read_bytes() if path.is_file() else None for path in files]


def _trained(place: Path) -> object:
    summary, model = place / "run" / "summary.json", place / "run" / "model.keras"
    if not (summary.is_file() and model.is_file()) or verify_run(place / "run").faults:
        return None
    return [json.loads(summary.read_bytes())[name] for name in TRAINED]
