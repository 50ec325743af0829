"""What the contract suite gives to each replica and process; the judge adds the same up with NumPy.

tensors = CASES["few_rows"](replica=1, occasion=0)
content = contents("large", rank=1)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Rows(NamedTuple):
    """A gradient that touches some rows of `[num_rows, width]`.

    Attributes:
        values: `[touched, width]`.
        indices: int64 `[touched]`; a row may be named twice.
        num_rows: of the matrix.
    """

    values: np.ndarray
    indices: np.ndarray
    num_rows: int

    def dense(self) -> np.ndarray:
        """The whole matrix."""
        matrix = np.zeros((self.num_rows, self.values.shape[1]), self.values.dtype)
        np.add.at(matrix, self.indices, self.values)
        return matrix


class Tensors(NamedTuple):
    """What one replica gives to `Distribution.sum`."""

    gradients: list[np.ndarray | Rows]
    figures: list[np.ndarray]


def dense(*, replica: int, occasion: int) -> Tensors:
    """Several types and shapes, in turn; whole numbers, which add up exactly in any order."""
    whole = _whole_numbers(replica, occasion)
    return Tensors(
        [whole((3, 4), "f4"), whole((), "f4"), whole((5,), "f8"), whole((2, 1, 2), "f4"), whole((1,), "f8")],
        [whole((), "f4"), whole((2,), "i4"), whole((), "f8"), whole((), "i8"), whole((4,), "f4")],
    )


def figures(*, replica: int, occasion: int) -> Tensors:
    """No gradients, as in evaluation."""
    whole = _whole_numbers(replica, occasion)
    return Tensors([], [whole((), "f4"), whole((200,), "f4")])


def few_rows(*, replica: int, occasion: int) -> Tensors:
    """Rows that are touched twice on one replica, on several, or on one alone; the last replica has none of one."""
    whole = _whole_numbers(replica, occasion)
    indices = np.array([5, 5, 7 + replica, 199, 0, 5 + occasion][: 6 - replica])
    others = np.array([], np.int64) if replica == 1 else np.array([49, 3, 49])
    return Tensors(
        [
            whole((2,), "f4"),
            Rows(whole((len(indices), 3), "f4"), indices, 200),
            whole((2, 2), "f4"),
            Rows(whole((len(others), 2), "f8"), others, 50),
        ],
        [whole((), "f4")],
    )


def all_rows(*, replica: int, occasion: int) -> Tensors:
    """Every row is touched by one replica or another, with few rows and more entries."""
    whole = _whole_numbers(replica, occasion)
    indices = np.array([0, 1, 2, 3, 3, replica % 4, 1])
    return Tensors([Rows(whole((7, 2), "f4"), indices, 4), whole((3,), "f4")], [whole((), "f4")])


def many_rows(*, replica: int, occasion: int) -> Tensors:
    """Rows of a large matrix, other ones on each occasion."""
    whole = _whole_numbers(replica, occasion)
    indices = np.array([7, 2999 - replica, 1500, 40 * occasion, 1500])
    return Tensors([Rows(whole((5, 4), "f4"), indices, 3000), whole((3,), "f4")], [whole((), "f4")])


def half_precision(*, replica: int, occasion: int) -> Tensors:
    """A type in which neither MPI nor compiled kernels count."""
    whole = _whole_numbers(replica, occasion)
    rows = Rows(whole((3, 4), "f2"), np.array([7, 2999 - replica, 7]), 3000)
    return Tensors([whole((5,), "f2"), rows, whole((2000, 3), "f2"), whole((3,), "f4")], [whole((), "f4")])


def tall(*, replica: int, occasion: int) -> Tensors:
    """A dense gradient of many rows, few of which are not zero; on one occasion one replica has nothing at all."""
    whole = _whole_numbers(replica, occasion)
    matrix, cube = np.zeros((3000, 4), np.float32), np.zeros((1500, 2, 3), np.float32)
    rows = [0, 17 + replica, 2999]
    if occasion + replica != 1:
        matrix[rows] = whole((3, 4), "f4")
        matrix[17 + replica, :3] = 0  # something in the last place alone
        matrix[17 + replica, 3] = 1 + replica
        cube[rows[:2], 1] = 7
    return Tensors([matrix, cube, whole((3,), "f4")], [whole((), "f4")])


def full(*, replica: int, occasion: int) -> Tensors:
    """A dense gradient of many rows, most of which hold something on one replica or another."""
    whole = _whole_numbers(replica, occasion)
    matrix = whole((2000, 2), "f4")
    matrix[replica::5] = 0
    return Tensors([matrix], [])


def rounding(*, replica: int, occasion: int) -> Tensors:
    """Numbers whose sum depends on the order: equal sums on all ranks prove one common order."""
    rng = np.random.default_rng([replica, occasion])
    indices = rng.integers(0, 40, 60)
    return Tensors(
        [
            (rng.normal(size=(500, 100)) * 10.0 ** rng.integers(-3, 4, (500, 100))).astype(np.float32),
            Rows(rng.normal(size=(60, 8)).astype(np.float32), indices, 300),
            rng.normal(size=7),
        ],
        [rng.normal(size=()).astype(np.float32)],
    )


def _whole_numbers(replica: int, occasion: int) -> Callable[[tuple[int, ...], str], np.ndarray]:
    rng = np.random.default_rng([replica, occasion])
    return lambda shape, dtype: np.asarray(rng.integers(-99, 100, shape)).astype(dtype)


CASES: dict[str, Callable[..., Tensors]] = {
    case.__name__: case
    for case in (dense, figures, few_rows, all_rows, many_rows, half_precision, tall, full, rounding)
}


def contents(kind: str, *, rank: int) -> bytes:
    """What a process gives to `all_gather_bytes` and `broadcast`."""
    if kind == "nothing":
        return b""
    if kind == "odd ranks":
        return b"" if rank % 2 == 0 else b"\x00only odd ranks\xff"
    if kind == "even ranks":
        return b"" if rank % 2 else b"\x00only even ranks\xff" * (1 + rank)
    return np.random.default_rng(rank).bytes(5_000_000 + rank)


CONTENTS = ("nothing", "odd ranks", "even ranks", "large")


def variables(rank: int) -> dict[str, np.ndarray]:
    """What `synchronize` is given by each process; only floats that differ are averaged."""
    return {
        "mean": np.array([1.5, -2, 1000], np.float32) * (rank + 1),
        "half": np.array([0.5, -3], np.float16) * (rank + 1),
        "precise": np.array(2.0**-40 + rank, np.float64),
        "same": np.linspace(0.1, 0.9, 50).astype(np.float32),  # on three ranks, a sum over 3 would change last bits
        "count": np.array([3, rank], np.int32),
        "seed": np.array(rank, np.uint32),
    }
