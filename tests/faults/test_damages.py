"""No random damage to a file of a data set or of a run goes unnoticed.

The number of damages is 300, or the value of DISTRAIN_DAMAGES. The campaign of 2,000, whose table is printed:

    $ DISTRAIN_DAMAGES=2000 python -m pytest tests/faults/test_damages.py -s
"""

from __future__ import annotations

import os
import random
from collections import Counter

import numpy as np
import pytest
from damages import random_damage
from prepared_data import Result, rows, write_csv

from distrain.data.prepared.dataset_index import open_dataset
from distrain.data.verification import verify_dataset
from distrain.errors import CheckpointError, DataError
from distrain.files import copy_folder
from distrain.fingerprints import GrowingFile
from distrain.runs.checkpoint import save_checkpoint
from distrain.runs.manifest import check_files, record_end, record_growth, rewriting
from distrain.runs.served import load_served
from distrain.runs.verification import verify_run

COUNT = int(os.environ.get("DISTRAIN_DAMAGES", "300"))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A prepared data set."""
    folder = tmp_path_factory.mktemp("damages")
    Result(train=write_csv(folder / "train.csv", rows(200)), out=folder / "data", vectorizer="ngram")
    return folder / "data"


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    """A finished run, whose best checkpoint is not its newest, written as `train` writes it."""
    run = tmp_path_factory.mktemp("run")
    with rewriting(run, "config.json", "vectorizer"):
        (run / "config.json").write_text('{"seed": 0, "data_digest": "abc"}')
        (run / "vectorizer").mkdir()
        copy_folder(data / "vectorizer", run / "vectorizer")
    weights = np.random.default_rng(0)
    for step in (4, 8):
        state = {"global_step": step, "early_stopping": {"best_step": 4}, "data_digest": "abc"}
        save_checkpoint(run / "checkpoints", step, {"weight": weights.normal(size=500)}, state)
        with (run / "metrics.jsonl").open("a") as log:
            log.write(f'{{"event": "checkpoint", "step": {step}, "epoch": 1, "time": 0.0}}\n')
        record_growth(run, GrowingFile(run / "metrics.jsonl"))
    with rewriting(run, "summary.json", "model.keras"):
        (run / "summary.json").write_text('{"epochs": 2}')
        (run / "model.keras").write_bytes(weights.bytes(3000))
    (run / "status.json").write_text('{"state": "finished"}')
    (run / "events").mkdir()
    (run / "events" / "events.out").write_bytes(weights.bytes(900))
    record_end(run)
    return run


def campaign(folder, verify, use, *, seed):
    """Damage `folder` again and again; return how many damages of a kind there were, and those that went unnoticed."""
    chance, tried, unnoticed = random.Random(seed), Counter(), []
    assert verify(folder).faults == {}
    use(folder, None)
    names = sorted(verify(folder).files)
    for _ in range(COUNT // 2):
        damage = random_damage(folder, names, chance)
        found = verify(folder).faults
        tried[damage.kind] += 1
        if not set(damage.names) & found.keys():
            unnoticed.append((damage.kind, damage.names, found))
        elif not use(folder, damage):
            unnoticed.append((damage.kind, damage.names, "in use"))
        damage.undo()
    assert verify(folder).faults == {}
    print(f"\n{folder.name}: {sum(tried.values())} damages {dict(tried)}, {len(unnoticed)} unnoticed")
    return unnoticed


def test_no_damage_of_a_data_set_goes_unnoticed(data):
    def use(folder, damage):
        try:
            open_dataset(folder)
        except DataError:
            return True
        return damage is None

    assert campaign(data, verify_dataset, use, seed=1) == []


def test_no_damage_of_a_run_goes_unnoticed(run):
    def use(folder, damage):
        try:
            load_served(folder)
            check_files(folder, "config.json", "vectorizer", "metrics.jsonl", "summary.json")
        except CheckpointError:
            return True
        unused = {"model.keras", "status.json", "events/events.out"}  # no command of a finished run reads them
        is_told = damage is not None and (damage.kind, damage.names) == ("delete", ("manifest.json",))  # by a warning
        return damage is None or is_told or set(damage.names) <= unused

    assert campaign(run, verify_run, use, seed=2) == []
