"""Masks, several outputs and steps of a model's own on the bridge; see programs/bridge_models.py."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
from launching import environment, needs_horovod, run_ranks
from preloaded import preloaded_python

PROGRAM = Path(__file__).parent / "programs" / "bridge_models.py"
CASES = ("outputs", "class_weight", "steps_per_execution", "own_step", "masked")
SECONDS = 400

pytestmark = [needs_horovod, pytest.mark.timeout(SECONDS + 60)]


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The folder of what plain Keras in one process leaves behind, with which all launches compare."""
    return launched(tmp_path_factory.mktemp("reference"), 1, "expected")


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """`folder_of(size)`: what the ranks of a launch wrote; each launch starts once."""
    done = {}

    def of(size):
        if size not in done:
            done[size] = launched(tmp_path_factory.mktemp("bridge-models"), size, "trained")
        return done[size]

    return of


def launched(folder, size, part):
    """Return the folder, which the program has filled on ranks, or in one process without a launcher."""
    command = [*preloaded_python(), str(PROGRAM), str(folder), part]
    if size == 1:
        ended = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    else:
        ended = run_ranks("mpirun", size, command, timeout=SECONDS)
    assert ended.returncode == 0, ended.stderr[-4000:]
    return folder


def weights(folder, case, of):
    """Weights of a rank, or those "expected"."""
    with np.load(folder / f"{case}.{of}.npz") as archive:
        return [archive[f"weights{number}"] for number in range(len(archive.files))]


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("case", CASES)
def test_ranks_end_with_the_weights_of_one_process(folder_of, reference, case, size):
    folder = folder_of(size)
    expected = weights(reference, case, f"expected.{size}" if case == "masked" else "expected")
    assert expected
    for rank in range(size):
        for own, first, wanted in zip(weights(folder, case, rank), weights(folder, case, 0), expected, strict=True):
            np.testing.assert_array_equal(own, first)
            np.testing.assert_allclose(own, wanted, rtol=0, atol=1e-5 * max(1.0, np.abs(wanted).max()))


@pytest.mark.parametrize("size", [1, 2, 3])
@pytest.mark.parametrize("case", ["outputs", "class_weight", "steps_per_execution"])
def test_figures_are_those_of_one_process(folder_of, reference, case, size):
    histories = [json.loads((folder_of(size) / f"{case}.{rank}.json").read_text()) for rank in range(size)]
    expected = json.loads((reference / f"{case}.expected.json").read_text())
    for history in histories:
        assert history.keys() == expected.keys()
        for name, wanted in expected.items():
            # Keras averages the losses of outputs over batches, which have other sizes in this validation.
            rtol = 0.1 if name in ("val_number_loss", "val_kind_loss") else 1e-5
            np.testing.assert_allclose(history[name], wanted, rtol=rtol, err_msg=name)


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("sum", "reduction 'sum'.*reduction='sum_over_batch_size'"),
        ("mean_with_sample_weight", "reduction 'mean_with_sample_weight'"),
        ("applied twice", "applied 4 times in 2 steps.*steps_per_execution=1"),
        ("one optimizer alone", "does not average gradients"),
        ("labels", "Label 'b' has 148 rows"),
    ],
)
def test_what_ranks_cannot_join_is_refused_on_all_ranks(folder_of, mistake, message):
    for rank in range(2):
        found = json.loads((folder_of(2) / f"refusals.{rank}.json").read_text())
        assert found["mean"] is None
        kind, code, text = found[mistake]
        assert (kind, code) == ("ConfigurationError", 2)
        assert re.search(message, text)


def test_ranks_that_train_apart_are_found_at_the_end_of_an_epoch(folder_of):
    for rank in range(2):
        found = json.loads((folder_of(2) / f"refusals.{rank}.json").read_text())
        kind, code, text = found["an optimizer in another object"]
        assert (kind, code) == ("RankError", 5)
        assert re.search("Rank 1 ends epoch 1 with other values of .*each rank trains a model of its own", text)
