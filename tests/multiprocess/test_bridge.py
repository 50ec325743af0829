"""`distrain.horovod` in a user's own `model.fit` script, under real launchers; see programs/bridge_cases.py."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from launching import environment, needs_horovod, run_ranks
from preloaded import preloaded_python

HERE = Path(__file__).parent
CASES = HERE / "programs" / "bridge_cases.py"
SECONDS = 500  # the longest launch takes 90 s on two idle cores

pytestmark = [needs_horovod, pytest.mark.timeout(SECONDS + 60)]

ALONE = ("clipping", "figures")
FEW = (*ALONE, "adam")
ALL = (*FEW, "average_of_weights", "accumulation", "eager", "xla", "loss_scale", "compression", "refusals", "stock")
WITHOUT_REFERENCE = ("loss_scale", "refusals", "stock")
JOINT_BATCH = 24
NUM_EXAMPLES = {"clipping": 157, "adam": 149}  # the cases that note what they are fed
LAUNCHES = {  # name: launcher, ranks, cases
    "one process": (None, 1, ALONE),
    "mpirun 2": ("mpirun", 2, ALL),
    "mpirun 3": ("mpirun", 3, FEW),
    "gloo 2": ("horovodrun --gloo", 2, FEW),
}


@dataclass(frozen=True)
class Ranks:
    """What all ranks of one launch wrote."""

    folder: Path
    size: int
    reference: Path

    def facts(self, case):
        """Each rank's facts."""
        return [json.loads((self.folder / f"{case}.{rank}.json").read_text()) for rank in range(self.size)]

    def arrays(self, case, name):
        """Each rank's arrays "weights" or "expected"."""
        found = []
        for rank in range(self.size):
            with np.load(self.folder / f"{case}.{rank}.npz") as archive:
                count = sum(key.startswith(name) for key in archive.files)
                found.append([archive[f"{name}{number}"] for number in range(count)])
        return found

    def expected(self, case):
        """The arrays of the reference."""
        with np.load(self.reference / f"{case}.expected.npz") as archive:
            return [archive[f"expected{number}"] for number in range(len(archive.files))]

    def expected_history(self, case):
        """The figures of the reference."""
        return json.loads((self.reference / f"{case}.expected.json").read_text())["history"]

    def weights_are_equal(self, case):
        """Whether all ranks hold bitwise the same."""
        first, *others = self.arrays(case, "weights")
        assert first
        return all(np.array_equal(a, b) for other in others for a, b in zip(first, other, strict=True))

    def distance(self, case):
        """Largest difference to the reference, relative to the largest entry of its array."""
        pairs = zip(self.arrays(case, "weights")[0], self.expected(case), strict=True)
        return max(float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-6)) for a, b in pairs)


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    """The folder of what plain Keras in one process leaves behind, with which all launches compare."""
    folder = tmp_path_factory.mktemp("reference")
    launch(None, 1, [folder, "expected", *(case for case in ALL if case not in WITHOUT_REFERENCE)])
    return folder


@pytest.fixture(scope="module")
def ranks(tmp_path_factory, reference):
    """`ranks(launch)`: what its cases left behind; each is launched once."""
    done = {}

    def of(name):
        if name not in done:
            launcher, size, cases = LAUNCHES[name]
            folder = tmp_path_factory.mktemp("bridge")
            launch(launcher, size, [folder, "trained", *cases])
            done[name] = Ranks(folder, size, reference)
        return done[name]

    return of


def launch(launcher, size, arguments):
    """Run the cases on ranks, or in one process without a launcher."""
    command = [*preloaded_python(), str(CASES), *map(str, arguments)]
    if launcher is None:
        ended = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False)
    else:
        ended = run_ranks(launcher, size, command, timeout=SECONDS)
    assert ended.returncode == 0, ended.stderr[-4000:]


TRAINED = [
    (launch, case)
    for launch, (_, _, cases) in LAUNCHES.items()
    for case in cases
    if case not in (*WITHOUT_REFERENCE, "compression")
]


@pytest.mark.parametrize(("launch", "case"), TRAINED)
def test_ranks_end_with_the_weights_of_one_process(launch, case, ranks):
    """Optimizer state included, after three epochs whose last step is ragged or empty on some rank."""
    assert ranks(launch).weights_are_equal(case)
    assert ranks(launch).distance(case) <= 1e-5


def test_horovods_own_wrapper_synchronizes_nothing(ranks):
    """Silently: the script ends with 0. The bridge in the same script is what makes the ranks equal."""
    stock = ranks("mpirun 2")
    first, second = stock.arrays("stock", "weights")
    assert all(np.array_equal(a, b) for a, b in zip(*stock.arrays("stock", "expected"), strict=True))
    assert max(float(np.abs(a - b).max()) for a, b in zip(first, second, strict=True)) > 1e-2


@pytest.mark.parametrize("launch", LAUNCHES)
@pytest.mark.parametrize("case", ALONE)
def test_figures_are_those_of_one_process(launch, case, ranks):
    """Of training and validation, each epoch, and the learning rate that followed from them."""
    expected = ranks(launch).expected_history(case)
    for facts in ranks(launch).facts(case):
        assert facts["history"] == ranks(launch).facts(case)[0]["history"]
        assert facts["history"].keys() == expected.keys()
        for name, values in expected.items():
            np.testing.assert_allclose(facts["history"][name], values, rtol=1e-6, atol=1e-6, err_msg=name)


def test_the_learning_rate_was_lowered_in_these_runs(ranks):
    rates = ranks("mpirun 2").facts("figures")[0]["history"]["learning_rate"]
    np.testing.assert_allclose(rates, [0.3, 0.4, 0.2], rtol=1e-6)


@pytest.mark.parametrize(("launch", "case"), [(name, case) for name, case in TRAINED if case in NUM_EXAMPLES])
def test_every_example_is_fed_once_an_epoch(launch, case, ranks):
    of_ranks = ranks(launch)
    num_examples = NUM_EXAMPLES[case]
    fed = [facts["fed"] for facts in of_ranks.facts(case)]
    orders = []
    for epoch in range(3):
        steps = {len(of_rank[epoch]) for of_rank in fed}
        assert steps == {-(-num_examples // JOINT_BATCH)}
        batches = [batch for step in zip(*(of_rank[epoch] for of_rank in fed), strict=True) for batch in step]
        orders.append([row for batch in batches for row, weight in batch if weight > 0])
        assert sorted(orders[-1]) == list(range(num_examples))
    if case == "adam":
        assert orders[0] != orders[1] != orders[2]
    else:
        assert orders == [list(range(num_examples))] * 3


def test_all_skip_the_step_in_which_one_overflows(ranks):
    """`compile` wraps the optimizer for mixed_float16; the decision to skip is taken on the joint gradient."""
    two = ranks("mpirun 2")
    assert two.weights_are_equal("loss_scale")
    for facts in two.facts("loss_scale"):
        assert facts["optimizers"] == ["LossScaleOptimizer"] * 2
        assert facts["updates"][1] == facts["updates"][0] - 3
        assert facts["scales"][1] == facts["scales"][0] / 2**3


def test_half_precision_on_the_wire_costs_little(ranks):
    two = ranks("mpirun 2")
    assert two.weights_are_equal("compression")
    assert 1e-6 < two.distance("compression") < 1e-2


def test_a_saved_model_is_a_plain_one_and_goes_on(ranks):
    """Weights after another epoch are compared above; this is about the file."""
    two = ranks("mpirun 2")
    facts = two.facts("xla")[0]
    facts.pop("history")
    assert facts == {"saved_class": "SGD", "same": True, "jit_compile": False}
    with zipfile.ZipFile(two.folder / "saved.0.keras") as saved:
        config = saved.read("config.json").decode()
    assert "SGD" in config
    assert "distrain" not in config


@pytest.mark.parametrize(
    ("mistake", "kind", "code", "message"),
    [
        ("no broadcast", "ConfigurationError", 2, r"BroadcastCallback\(\)"),
        ("plain optimizer", "ConfigurationError", 2, "distrain.horovod.DistributedOptimizer"),
        ("not built", "ConfigurationError", 2, "keras.Input"),
        ("other model", "RankError", 5, "Rank 1 has number of weights 5, rank 0 has 6"),
        ("other steps", "RankError", 5, "Rank 1 has steps per epoch 4, rank 0 has 7"),
        ("steps per execution", "ConfigurationError", 2, "steps_per_execution is 2"),
        ("compression", "ConfigurationError", 2, "'zip'"),
        ("batch size", "ConfigurationError", 2, "batch_size is 0"),
    ],
)
def test_mistakes_are_refused_on_all_ranks(mistake, kind, code, message, ranks):
    for facts in ranks("mpirun 2").facts("refusals"):
        found_kind, found_code, text = facts["found"][mistake]
        assert (found_kind, found_code) == (kind, code)
        assert re.search(message, text)


def test_shuffling_by_fit_is_refused(ranks):
    for facts in ranks("mpirun 2").facts("refusals"):
        assert "Call fit(..., shuffle=False)" in facts["found"]["shuffled"][2]


def test_a_rank_without_anything_to_evaluate_is_told(ranks):
    found = [facts["found"]["nothing to evaluate"] for facts in ranks("mpirun 2").facts("refusals")]
    assert found[0] is None
    assert "leave rank 1 of 2 nothing to evaluate" in found[1][2]


def test_importing_the_bridge_loads_neither_tensorflow_nor_horovod():
    code = "import sys, distrain.horovod; print([m for m in ('tensorflow', 'keras', 'horovod') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=HERE.parents[1], check=True)
    assert done.stdout.strip() == "[]"
