"""Who is named when the state of ranks differs, and which arrays are finite."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from threads_as_processes import on_all

from distrain.errors import DivergenceError, RankError
from distrain.training.checkpoints import state_check
from distrain.training.checkpoints.state_check import StateCheck, digest, is_finite


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i4", "u1", "?"])
def test_each_flipped_bit_changes_the_digest(dtype):
    array = np.random.default_rng(0).integers(0, 2, 9).astype(dtype)
    digests = {digest(array)}
    for byte in range(array.nbytes):
        for bit in range(8):
            flipped = array.copy()
            flipped.view(np.uint8)[byte] ^= 1 << bit
            digests.add(digest(flipped))
    assert len(digests) == 1 + 8 * array.nbytes


def test_arrays_of_any_type_are_judged():
    for dtype in ("f2", "f4", "f8", "c8"):
        for bad in (np.nan, np.inf, -np.inf):
            assert not is_finite(np.array([[0, bad]], dtype))
        assert is_finite(np.array([np.finfo(dtype).max], dtype))
    assert is_finite(np.full(3, -1))
    assert is_finite(np.array(True))
    for empty in (np.zeros((0, 4), "f4"), np.array(3.0)):
        assert is_finite(empty)
        digest(empty)


def check_of(process, array):
    """Return the check of a model of one kernel."""
    state = SimpleNamespace(variables={"model/0000": SimpleNamespace(path="dense/kernel")}, array=lambda name: array)
    distribution = SimpleNamespace(group=process, num_replicas=process.size, copies=lambda variable: [variable])
    trainable = SimpleNamespace(model=SimpleNamespace(non_trainable_variables=[]))
    setup = SimpleNamespace(model_state=state, distribution=distribution, trainable=trainable)
    return StateCheck(SimpleNamespace(**vars(setup), synchronize=lambda: None))


def run(process, *, bad_ranks):
    """Check a kernel that differs on some ranks."""
    array = np.ones(4, np.float32)
    array[2] += process.rank in bad_ranks
    check_of(process, array).every(SimpleNamespace(progress=SimpleNamespace(global_step=40)))


@pytest.fixture(autouse=True)
def _no_layers(monkeypatch):
    monkeypatch.setattr(state_check, "state_variables", lambda model: [])


def test_a_majority_names_the_rank_that_differs():
    errors = on_all(3, lambda process: run(process, bad_ranks=[1]))
    assert [type(error) for error in errors] == [RankError] * 3
    assert len({str(error) for error in errors}) == 1
    message = str(errors[0])
    assert message.startswith("After step 40, the state of rank 1 (host ")
    assert "differs in dense/kernel; the other 2 of 3 are equal. Suspect that host: 'distrain replay" in message
    assert "rank 0" not in message
    assert on_all(3, lambda process: run(process, bad_ranks=[0, 1, 2])) == [None] * 3


def test_without_a_majority_all_are_named():
    errors = on_all(2, lambda process: run(process, bad_ranks=[1]))
    assert all(f"rank {rank} (host " in str(errors[0]) for rank in (0, 1))
    assert "No majority tells which is right" in str(errors[0])


@pytest.mark.parametrize("size", [1, 2])
def test_only_the_chief_keeps_arrays_and_all_refuse_what_is_not_finite(size):
    def save(process):
        array = np.ones(4, np.float32)
        check = check_of(process, array)
        assert list(check.arrays(40)) == ["model/0000"] * (process.rank == 0)
        array[2] = np.nan
        check.arrays(41)

    errors = on_all(size, save)
    assert [type(error) for error in errors] == [DivergenceError] * size
    assert "not finite after step 41: dense/kernel" in str(errors[0])
