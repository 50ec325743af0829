"""State that differs between ranks or replicas, or is not finite, is found before it is saved.

The launched program is programs/flipped_bits.py. It flips one bit of the second rank after step 5 of 8.
"""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest
from strategy_runs import STRATEGIES, agreed_ends, run_by_strategy

from distrain.runs.checkpoint import list_checkpoints, load_checkpoint

pytestmark = pytest.mark.timeout(300)

PROGRAM = Path(__file__).parent / "programs" / "flipped_bits.py"
VARIABLES = {"weight": "last/kernel", "frozen": "frozen/kernel", "optimizer": "last_bias_momentum"}


@pytest.fixture(scope="module", params=STRATEGIES)
def strategy(request):
    return request.param


@pytest.fixture(scope="module")
def folder(strategy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("flipped")
    run_by_strategy(PROGRAM, folder, strategy)
    return folder


@pytest.fixture(scope="module")
def ends(folder):
    return agreed_ends(folder)


@pytest.mark.parametrize("name", VARIABLES)
def test_a_flipped_bit_ends_the_run_before_it_is_saved(name, strategy, ends):
    if strategy == "single":  # one replica has nothing to compare with
        assert ends[name] == {"code": 0, "message": "", "digest": ends[name]["digest"]}
        return
    assert (ends[name]["code"], ends[name]["reporter"]) == (5, 0)
    word = "replica" if strategy == "mirrored" else "rank"
    message = ends[name]["message"]
    assert message.startswith(f"After step 6, the state of {word} 0 (host {socket.gethostname()}, digest ")
    assert f" and {word} 1 (host {socket.gethostname()}, digest " in message
    assert VARIABLES[name] in message
    assert "No majority tells which is right: 'distrain replay --step 6'" in message
    assert ends[name]["steps"] == [2, 4]


@pytest.mark.parametrize(
    ("case", "step"),
    [
        pytest.param("between saves", 5, id="--check-every finds it at once"),
        pytest.param("frozen, at the end", 8, id="an evaluation does not average it away"),
    ],
)
def test_a_flipped_bit_is_found_without_a_save_before(strategy, ends, case, step):
    if strategy == "single":
        assert ends[case]["code"] == 0
        return
    assert ends[case]["message"].startswith(f"After step {step}, the state of ")
    assert ends[case]["steps"] == []


@pytest.mark.parametrize("name", ["bfloat16", "infinite by design"])
def test_weights_that_numpy_lacks_or_that_are_infinite_by_design_are_saved(name, ends):
    assert (ends[name]["code"], ends[name]["message"]) == (0, "")


def test_the_same_command_goes_on_to_the_weights_of_an_undisturbed_run(strategy, ends):
    assert ends["undisturbed"]["code"] == 0
    if strategy != "single":  # one replica has trained with the flipped bit
        assert ends["weight, again"] == ends["undisturbed"]


@pytest.mark.parametrize(("name", "variable"), [("nan", "last/kernel"), ("nan average", "norm/moving_mean")])
def test_state_that_is_not_finite_is_not_saved(name, variable, ends, folder):
    assert (ends[name]["code"], ends[name]["reporter"]) == (6, 0)
    if name == "nan":  # the next step already computes with the weight
        assert (
            " is not finite at step 6 (epoch 1)" in ends[name]["message"] or "The loss is nan" in ends[name]["message"]
        )
    else:
        assert ends[name]["message"].startswith("The state is not finite after step 6: sequential")
        assert f"{variable}. This step is not saved." in ends[name]["message"]
    assert ends[name]["steps"] == [2, 4]
    for path in list_checkpoints(folder / name / "checkpoints"):
        assert all(np.isfinite(array).all() for array in load_checkpoint(path).arrays.values())
