"""The contract of `Distribution`, the same for every way of distributing; see programs/ranks_contract.py.

What the ranks wrote is compared with NumPy.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os

import numpy as np
import pytest
from launching import needs_horovod, needs_mpi
from ranks_contract_inputs import CASES, CONTENTS, Rows, contents, variables
from ranks_forward_sums import expected_forward_sums

pytestmark = pytest.mark.timeout(900)

LAUNCHES = [
    pytest.param("", "single", 1, id="single"),
    pytest.param("", "mirrored", 2, id="mirrored"),
    *[pytest.param("mpirun", "mpi", size, id=f"mpirun-mpi-{size}", marks=needs_mpi) for size in (1, 2, 3)],
    *[
        pytest.param(launcher, "horovod", size, id=f"{launcher}-horovod-{size}", marks=needs_horovod)
        for launcher, sizes in (("mpirun", (1, 2, 3)), ("horovodrun --gloo", (2, 3)), ("horovodrun --mpi", (2,)))
        for size in sizes
    ],
]
PARAMETERS = ("launcher", "strategy", "num_replicas")


@pytest.fixture
def ranks(launched, launcher, strategy, num_replicas):
    return launched(launcher, strategy, 1 if strategy == "mirrored" else num_replicas)


def expected_sums(case, num_replicas, occasion):
    """The sums over all replicas, in the order in which a step gives them."""
    given = [CASES[case](replica=replica, occasion=occasion) for replica in range(num_replicas)]
    dense = [
        [g.dense() if isinstance(g, Rows) else g for g in tensors.gradients] + tensors.figures for tensors in given
    ]
    return [np.sum(parts, axis=0, dtype=parts[0].dtype) for parts in zip(*dense, strict=True)]


def found_sums(arrays, case, occasion):
    prefix = f"{case}/{occasion}/"
    names = sorted((name for name in arrays if name.startswith(prefix)), key=lambda name: int(name.split("/")[-1]))
    return [arrays[name] for name in names]


def padded(*sizes, itemsize=4):
    """Numbers in a buffer of tensors of these sizes, each of which begins at a multiple of 64 bytes."""
    step = 64 // itemsize
    return sum(math.ceil(size / step) * step for size in sizes)


@pytest.mark.parametrize(PARAMETERS, LAUNCHES)
class TestContract:
    """Each test reads what one launch wrote."""

    @pytest.mark.parametrize("case", [case for case in CASES if case != "rounding"])
    @pytest.mark.parametrize("occasion", [0, 1])
    def test_whole_numbers_add_up_exactly(self, ranks, num_replicas, case, occasion):
        expected = expected_sums(case, num_replicas, occasion)
        for arrays in ranks.arrays("contract"):
            found = found_sums(arrays, case, occasion)
            assert [(a.dtype, a.shape) for a in found] == [(a.dtype, a.shape) for a in expected]
            for sums, wanted in zip(found, expected, strict=True):
                np.testing.assert_array_equal(sums, wanted)

    def test_sums_are_right_up_to_rounding(self, ranks, num_replicas):
        for occasion in (0, 1):
            expected = expected_sums("rounding", num_replicas, occasion)
            for sums, wanted in zip(
                found_sums(ranks.arrays("contract")[0], "rounding", occasion), expected, strict=True
            ):
                np.testing.assert_allclose(sums, wanted, rtol=1e-5, atol=1e-5)

    def test_all_ranks_hold_bitwise_the_same_sums(self, ranks):
        first, *others = ranks.arrays("contract")
        for arrays in others:
            assert arrays.keys() == first.keys()
            for name in set(first) - {"variables/count", "variables/seed"}:
                assert arrays[name].tobytes() == first[name].tobytes(), name

    def test_a_step_may_take_two_batches_of_each_replica(self, ranks, num_replicas):
        given = [[CASES["dense"](replica=r, occasion=o) for o in (0, 1)] for r in range(num_replicas)]
        of_replicas = [
            [10 * a + b for part in zip(first, second, strict=True) for a, b in zip(*part, strict=True)]
            for first, second in given
        ]
        expected = [np.sum(parts, axis=0) for parts in zip(*of_replicas, strict=True)]
        for sums, wanted in zip(found_sums(ranks.arrays("contract")[0], "two batches", 0), expected, strict=True):
            np.testing.assert_array_equal(sums, wanted)

    def test_halved_gradients_are_close_and_figures_exact(self, ranks, strategy, num_replicas):
        if strategy in ("single", "mirrored"):
            pytest.skip("nothing travels between processes")
        arrays = ranks.arrays("contract")[0]
        *fp16, figure = found_sums(arrays, "fp16/rounding", 0)
        *full, full_figure = found_sums(arrays, "rounding", 0)
        largest = np.abs(full[0]).max()
        assert figure == full_figure
        assert 0 < np.abs(fp16[0] - full[0]).max() <= 2e-3 * num_replicas * largest
        np.testing.assert_allclose(fp16[1], full[1], atol=2e-2)
        np.testing.assert_array_equal(fp16[2], full[2])  # double precision is not for halving
        for found, wanted in zip(found_sums(arrays, "fp16/figures", 1), found_sums(arrays, "figures", 1), strict=True):
            np.testing.assert_array_equal(found, wanted)

    def test_of_few_touched_rows_only_these_travel(self, ranks, strategy, num_replicas):
        if strategy in ("single", "mirrored"):
            pytest.skip("nothing travels between processes")
        for facts in ranks.facts("contract"):
            unions = [
                {
                    int(i)
                    for r in range(num_replicas)
                    for i in CASES["few_rows"](replica=r, occasion=o).gradients[place].indices
                }
                for o in (0, 1)
                for place in (1, 3)
            ]
            floats = [padded(2, 3 * len(unions[place]), 4, 1) for place in (0, 2)]
            doubles = [padded(2 * len(unions[place]), itemsize=8) for place in (1, 3)]
            assert facts["sent"]["few_rows"] == sorted(floats + doubles)
            assert facts["sent"]["all_rows"] == 2 * [padded(8, 3, 1)]  # the matrix as it is

    def test_of_a_tall_gradient_only_rows_with_anything_travel(self, ranks, strategy, num_replicas):
        for facts in ranks.facts("contract") if strategy in ("horovod", "mpi") else []:
            having = [[r for r in range(num_replicas) if r + occasion != 1] for occasion in (0, 1)]
            rows = [{row for r in have for row in (0, 17 + r, 2999)} for have in having]
            cube_rows = [{row for r in have for row in (0, 17 + r)} for have in having]
            sizes = [padded(4 * len(a), 6 * len(b), 3, 1) for a, b in zip(rows, cube_rows, strict=True)]
            assert facts["sent"]["tall"] == sorted(sizes)
            assert facts["sent"]["full"] == 2 * [padded(2000 * 2)]

    def test_sums_on_the_device_are_those_of_the_host(self, ranks, strategy):
        """Run on a CPU, as there is no GPU; what runs is the code for one."""
        for arrays in ranks.arrays("contract"):
            on_device = {name.partition("/")[2]: name for name in arrays if name.startswith("device none/")}
            assert bool(on_device) == (strategy == "horovod")
            for name, own in on_device.items():
                np.testing.assert_allclose(arrays[own], arrays[name], rtol=1e-5, atol=1e-5)
            fp16 = [name for name in arrays if name.startswith("device fp16/few_rows")]
            assert bool(fp16) == (strategy == "horovod")
            for name in fp16:  # small whole numbers survive
                np.testing.assert_array_equal(arrays[name], arrays[name.partition("/")[2]])

    @pytest.mark.parametrize("occasion", [0, 1])
    def test_sums_in_many_small_buckets_are_the_same(self, ranks, strategy, num_replicas, occasion):
        """On the host a thread sums buckets; on the device, run on a CPU, each bucket is a reduction of its own."""
        ways = {"horovod": ["buckets", "device buckets"], "mpi": ["buckets"]}.get(strategy, [])
        for arrays in ranks.arrays("contract") if ways else []:
            for way, case in itertools.product(ways, CASES):
                found = found_sums(arrays, f"{way}/{case}", occasion)
                expected = expected_sums(case, num_replicas, occasion)
                assert [(a.dtype, a.shape) for a in found] == [(a.dtype, a.shape) for a in expected]
                for sums, wanted in zip(found, expected, strict=True):
                    np.testing.assert_allclose(sums, wanted, rtol=1e-5, atol=1e-5 * (case == "rounding"))

    def test_buckets_add_up_to_the_same_bits_whatever_order_they_arrive_in(self, ranks, strategy):
        digests = [facts["digests of sums"] for facts in ranks.facts("contract")]
        assert all(found == digests[0] for found in digests)
        assert len(digests[0]) == (strategy == "horovod")

    def test_gradients_in_bfloat16_are_summed_on_the_device(self, ranks, strategy, num_replicas):
        if strategy != "horovod":
            pytest.skip("only Horovod sums on the device")
        for arrays in ranks.arrays("contract"):
            np.testing.assert_array_equal(arrays["bfloat16/0"], [sum(range(1, num_replicas + 1))] * 3)
            np.testing.assert_array_equal(arrays["bfloat16/1"], np.repeat(np.arange(1, num_replicas + 1), 3))

    @pytest.mark.parametrize("occasion", [0, 1])
    def test_ranks_that_share_memory_send_nothing_and_hold_the_same_sums(self, ranks, strategy, num_replicas, occasion):
        if strategy in ("single", "mirrored"):
            pytest.skip("one process shares with nobody")
        for facts, arrays in zip(ranks.facts("contract"), ranks.arrays("contract"), strict=True):
            assert (facts["sent by ranks that share memory"] == 0) == (num_replicas > 1)
            for case in CASES:
                expected = expected_sums(case, num_replicas, occasion)
                found = found_sums(arrays, f"shared/{case}", occasion)
                assert [(a.dtype, a.shape) for a in found] == [(a.dtype, a.shape) for a in expected]
                for sums, wanted in zip(found, expected, strict=True):
                    if case == "rounding":
                        np.testing.assert_allclose(sums, wanted, rtol=1e-5, atol=1e-5)
                    else:
                        np.testing.assert_array_equal(sums, wanted)

    def test_sums_inside_the_forward_pass_are_exact_and_so_are_their_gradients(self, ranks, strategy, num_replicas):
        """On parallel branches, in 60 steps, two in a call: a rank that took another order would hang or be wrong."""
        expected = expected_forward_sums(num_replicas)
        kinds = ["forward"]
        kinds += ["forward and shared"] if strategy in ("horovod", "mpi") else []
        kinds += ["forward on device none", "forward on device fp16"] if strategy == "horovod" else []
        for arrays in ranks.arrays("contract"):
            for kind in kinds:
                for name, wanted in expected.items():
                    found = arrays[f"{kind}/{name}"]
                    assert found.dtype == wanted.dtype
                    np.testing.assert_array_equal(found, wanted, err_msg=f"{kind}, {name}")

    def test_each_replica_is_fed_by_one_process(self, ranks, strategy, num_replicas):
        facts = ranks.facts("contract")
        assert [number for rank in facts for number in rank["local_replicas"]] == list(range(num_replicas))
        for number, rank in enumerate(facts):
            told = [rank[name] for name in ("name", "num_replicas", "num_processes", "rank", "is_chief")]
            assert told == [strategy, num_replicas, ranks.size, number, number == 0]
            assert any(digit.isdigit() for digit in rank["version"])

    def test_batches_are_made_beside_the_steps_where_a_process_has_several_cores(self, ranks):
        for rank in ranks.facts("contract"):
            cores = min(rank["cores"], os.cpu_count() // ranks.size)  # what a launcher does not share out, they do
            assert rank["prefetches"] == (cores > 1)

    @pytest.mark.parametrize("kind", CONTENTS)
    def test_bytes_reach_everyone(self, ranks, kind):
        everyone = [hashlib.sha256(contents(kind, rank=rank)).hexdigest() for rank in range(ranks.size)]
        for facts in ranks.facts("contract"):
            assert facts["heard"][kind]["exchange"] == everyone
            assert facts["heard"][kind]["broadcast"] == everyone[0]

    def test_synchronized_variables_are_the_mean(self, ranks):
        given = [variables(rank) for rank in range(ranks.size)]
        for rank, arrays in enumerate(ranks.arrays("contract")):
            for name in ("mean", "half", "precise"):
                found = arrays[f"variables/{name}"]
                assert found.dtype == given[0][name].dtype
                np.testing.assert_allclose(found, np.mean([own[name] for own in given], axis=0), rtol=1e-7)
            for name in ("same", "count", "seed"):
                np.testing.assert_array_equal(arrays[f"variables/{name}"], given[rank][name])
