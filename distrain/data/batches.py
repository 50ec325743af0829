"""Plan + examples -> the batches that this process feeds to its replicas.

Decides: what a batch holds, how far ahead it is made. Never: how many replicas there are, or what is done with a batch.

    for batches in epoch_batches(examples, plan, order, replicas=range(0, 2)):
        ...                                                # one Batch per local replica
    for x, y in BatchGenerator(x, y, num_features, batch_size, rank, size).epoch():
        ...                                                # a user's own loop

A replica whose batch is empty in the last step is fed one example with weight zero: it takes part in every
collective and adds exactly nothing.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import numpy as np
import scipy.sparse

from distrain.batch import Batch, Memory, step_flags
from distrain.data.collate import RowStream, sparse_rows, word_rows
from distrain.data.examples import CsrRows, Examples, Features, PackedRows, Take, array_examples
from distrain.data.plan import Block, EpochPlan, ShuffledOrder, epoch_order, steps_per_epoch
from distrain.errors import ConfigurationError

PREFETCH_STEPS = 4  # steps made ahead of the device, at least
PREFETCH_BYTES = 2**25  # and as many more as fit in here: small batches outrun the reading of a block
MAX_PREFETCH_STEPS = 64

Item = TypeVar("Item")


def epoch_batches(
    examples: Examples, plan: EpochPlan, order: ShuffledOrder, *, replicas: range, epoch: int = 0
) -> Iterator[list[Batch]]:
    """Yield, for each step of the plan, one `Batch` per replica in `replicas`."""
    reader = _BlockReader(examples, plan, order, replicas)
    streams = {name: RowStream(sizes, order) for name, sizes in examples.sizes.items()}
    for step in range(plan.num_steps):
        of_all = plan.global_positions(step)
        global_weight = reader.weights(of_all).sum(dtype=np.float64)
        batches = []
        for replica in replicas:
            positions = plan.positions(step, replica)
            fed = positions or of_all[:1]
            features, labels = reader.take(positions) if positions else _one(examples, order, fed.start)
            weights = reader.weights(positions) if positions else np.zeros(1, np.float32)
            features = _placed(features, streams, fed, examples.num_columns)
            batches.append(
                Batch(
                    features,
                    labels,
                    weights,
                    epoch=np.int64(epoch),
                    first_position=np.int64(positions.start),
                    global_weight=np.float32(global_weight),
                    step_flags=step_flags(replica),
                )
            )
        if step + 1 < plan.num_steps:
            next_own = plan.positions(step + 1, replicas.start)
            if next_own and order.block_of(next_own.start).first_position < of_all.stop:
                # Others need that block in this step already. It takes long to read, so all read it now: else those who
                # need it next would do so then, and all would wait twice.
                reader.hold(order.block_of(next_own.start))
                for stream in streams.values():
                    stream.before(next_own.start)
        yield batches


def sample_batch(examples: Examples) -> Batch:
    """The first one or two examples as a batch, to build a model on."""
    plan = EpochPlan(examples.num_examples, 1, min(2, examples.num_examples))
    order = epoch_order(plan.num_examples, seed=0, epoch=0, shuffle=False)
    (batch,) = next(epoch_batches(examples, plan, order, replicas=range(1)))
    return batch


def zero_weight_batch(sample: Batch, replica: int) -> Batch:
    """A batch that weighs nothing, for a replica that has nothing to feed but must take part in a step."""
    weights = np.zeros_like(sample.weights)
    return sample._replace(weights=weights, global_weight=np.float32(0), step_flags=step_flags(replica))


def _one(examples: Examples, order: ShuffledOrder, position: int) -> tuple[Features, np.ndarray]:
    """Features and labels at one position."""
    (example,) = order.examples(range(position, position + 1))
    return examples.load(np.array([[example, example + 1]]), np.zeros(1, np.int64))(0, 1)


class _BlockReader:
    """Reads what some replicas are fed, in the order of the steps, block by block: one is held."""

    def __init__(self, examples: Examples, plan: EpochPlan, order: ShuffledOrder, replicas: range) -> None:
        self._examples = examples
        self._plan = plan
        self._order = order
        self._replicas = replicas
        self._first_position = -1  # of the block that is held
        self._positions = np.zeros(0, np.int64)  # those of it that are fed
        self._take: Take | None = None
        self._memory = _KeptMemory()
        self._weights: tuple[int, np.ndarray] | None = None

    def take(self, positions: range) -> tuple[Features, np.ndarray]:
        """Features and labels at `positions`, neighbours that one of the replicas is fed."""
        pieces = []
        for block, rows in self._rows(positions):
            take = self.hold(block)
            start = int(np.searchsorted(self._positions, block.first_position + rows.start))
            pieces.append(take(start, start + len(rows)))
        return _concatenate(pieces)

    def hold(self, block: Block) -> Take:
        """Read a block, in place of the one that is held, unless it is that one; gives what is fed of it."""
        if self._take is not None and self._first_position == block.first_position:
            return self._take
        stop = block.first_position + block.size
        self._first_position = block.first_position
        self._positions = self._plan.positions_between(block.first_position, stop, self._replicas)
        rows = self._positions - block.first_position
        chosen = rows if block.permutation is None else block.permutation[rows]
        if self._take is None:
            self._examples.expect(block.runs)
        self._take = self._examples.load(block.runs, chosen, self._memory.again())
        self._examples.expect(self._order.runs_after(block))  # read from disk while steps compute
        return self._take

    def weights(self, positions: range) -> np.ndarray:
        """Weights at `positions`, float32."""
        if self._examples.weights is None:
            return np.ones(len(positions), np.float32)
        pieces = []
        for block, rows in self._rows(positions):
            if self._weights is None or self._weights[0] != block.first_position:
                self._weights = (block.first_position, self._examples.weights[block.examples()])
            pieces.append(self._weights[1][rows.start : rows.stop])
        return np.concatenate(pieces)

    def _rows(self, positions: range) -> Iterator[tuple[Block, range]]:
        start = positions.start
        while start < positions.stop:
            block = self._order.block_of(start)
            stop = min(positions.stop, block.first_position + block.size)
            yield block, range(start - block.first_position, stop - block.first_position)
            start = stop


class _KeptMemory:
    """Memory for one block after the other: each is given what the one before was given.

    The system sets fresh memory to zero, page by page, which took longer than copying a block's rows there.
    """

    def __init__(self) -> None:
        self._kept: list[np.ndarray] = []
        self._num_given = 0

    def again(self) -> Memory:
        """For the next block; the one before is no more."""
        self._num_given = 0
        return self._give

    def _give(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        number, self._num_given = self._num_given, self._num_given + 1
        if number == len(self._kept):
            self._kept.append(np.empty(0, np.uint8))
        if size > len(self._kept[number]):
            self._kept[number] = np.empty(size + size // 16, np.uint8)  # blocks differ by little
        return self._kept[number][:size].view(dtype).reshape(shape)


def _concatenate(pieces: list[tuple[Features, np.ndarray]]) -> tuple[Features, np.ndarray]:
    if len(pieces) == 1:
        return pieces[0]
    labels = [piece_labels for _, piece_labels in pieces]
    first_rows = np.cumsum([0, *(len(piece) for piece in labels[:-1])])

    def join(features: list[Features]) -> Features:
        if isinstance(features[0], dict):
            return {name: join([piece[name] for piece in features]) for name in features[0]}
        if isinstance(features[0], (CsrRows, PackedRows)):
            row_ids = [piece.row_ids + np.int32(first) for piece, first in zip(features, first_rows, strict=True)]
            others = zip(*(piece[1:] for piece in features), strict=True)
            return type(features[0])(np.concatenate(row_ids), *map(np.concatenate, others))
        return np.concatenate(features)

    return join([features for features, _ in pieces]), np.concatenate(labels)


def _placed(
    features: Features, streams: Mapping[str, RowStream], fed: range, num_columns: Mapping[str, int], name: str = ""
) -> Features:
    """Rows of any length as a step takes them; other features as they are."""
    if isinstance(features, dict):
        return {key: _placed(value, streams, fed, num_columns, key) for key, value in features.items()}
    if isinstance(features, PackedRows):
        return word_rows(features, streams[name].before(fed.start), num_columns[name])
    if isinstance(features, CsrRows):
        return sparse_rows(features, streams[name].before(fed.start), len(fed))
    return features


@contextmanager
def prefetched(items: Iterator[Item], *, depth: int = PREFETCH_STEPS, beside: bool = True) -> Iterator[Iterator[Item]]:
    """Make items in a thread beside their consumer; the thread ends with the context.

    An exception of `items` reaches the consumer in its place. Items are made in bursts: once the thread is `depth`
    ahead it sleeps until three quarters of that are taken, as every time that it wakes it takes the interpreter from
    its consumer for a moment (a tenth of a small step).

    Args:
        items: batches, alone or in lists.
        depth: items made ahead, at most; more, where items are like the first and fit into `PREFETCH_BYTES`.
        beside: False: there is no thread, and each item is made when it is asked for.
    """
    if not beside:
        yield items
        return
    ready: deque[tuple[str, Any]] = deque()
    changed = threading.Condition()
    limit = depth
    closed = False

    def put(kind: str, content: Any = None) -> None:
        with changed:
            if len(ready) >= limit:
                changed.wait_for(lambda: closed or len(ready) <= limit // 4)
            ready.append((kind, content))
            if len(ready) == 1:
                changed.notify_all()

    def produce() -> None:
        nonlocal limit
        try:
            for number, item in enumerate(items):
                if number == 0:
                    limit = prefetch_depth(_bytes_of(item), at_least=depth)
                put("item", item)
                if closed:
                    return
            put("end")
        except BaseException as error:  # whatever it is, it belongs to the consumer
            put("error", error)

    def consume() -> Iterator[Item]:
        while True:
            if not ready:
                with changed:
                    changed.wait_for(lambda: ready)
            kind, content = ready.popleft()
            if len(ready) == limit // 4:
                with changed:
                    changed.notify_all()
            if kind == "end":
                return
            if kind == "error":
                raise content
            yield content

    thread = threading.Thread(target=produce, name="distrain-prefetch", daemon=True)
    thread.start()
    try:
        yield consume()
    finally:
        with changed:
            closed = True
            changed.notify_all()
        thread.join()


def prefetch_depth(num_bytes: int, *, at_least: int = PREFETCH_STEPS) -> int:
    """Items of so many bytes that are made ahead, at most; `at_least` where their size is not known, 0."""
    return max(at_least, min(MAX_PREFETCH_STEPS, PREFETCH_BYTES // num_bytes) if num_bytes else 0)


def _bytes_of(item: Any) -> int:
    """Bytes of the arrays in a structure of tuples, lists and dicts."""
    if isinstance(item, dict):
        return sum(map(_bytes_of, item.values()))
    if isinstance(item, (list, tuple)):
        return sum(map(_bytes_of, item))
    return item.nbytes if isinstance(item, np.ndarray) else 0


class BatchGenerator:
    """One rank's batches, for a user's own training loop.

    Rank r of `size` gets the batches r, r + size, r + 2 * size, ... of the epoch. Every rank gets the same number of
    batches; where there are fewer left than ranks, the last one is empty (`[0, num_features]`), so that ranks that
    meet in a collective at each step do not wait for ever.

    Args:
        x: `[n, num_features]` array, `np.memmap` or SciPy sparse matrix; sparse batches are made dense.
        y: `[n, ...]` labels.
        num_features: width of `x`.
        batch_size: examples per batch; the last one is shorter.
        rank: this replica, 0 .. size - 1.
        size: number of replicas.
        shuffle: take the epoch's order instead of the order of the data.
        seed: of that order.

    Raises:
        ConfigurationError: a value is out of range, or the shapes do not fit.
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        num_features: int,
        batch_size: int,
        rank: int = 0,
        size: int = 1,
        *,
        shuffle: bool = False,
        seed: int = 0,
    ) -> None:
        if batch_size < 1:
            raise ConfigurationError(f"batch_size is {batch_size}, but it must be at least 1.")
        if not 0 <= rank < size:
            raise ConfigurationError(f"rank is {rank}, but it must be in 0..{size - 1}, as size is {size}.")
        if len(x.shape) < 2 or x.shape[1] != num_features:
            raise ConfigurationError(f"x has shape {x.shape}, but num_features is {num_features}.")
        array_examples(x, y)  # refuses what cannot be fed
        self._x = x.tocsr() if scipy.sparse.issparse(x) else x
        self._y = np.asanyarray(y)
        self._plan = EpochPlan(x.shape[0], size, batch_size)
        self._rank = rank
        self._shuffle = shuffle
        self._seed = seed

    @property
    def steps_per_epoch(self) -> int:
        """Batches per epoch, the same on every rank: ceil(ceil(n / batch_size) / size)."""
        return self._plan.num_steps

    def epoch(self, epoch: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield this rank's `steps_per_epoch` batches (x, y) of one epoch."""
        order = epoch_order(self._plan.num_examples, seed=self._seed, epoch=epoch, shuffle=self._shuffle)
        for step in range(self._plan.num_steps):
            chosen = order.examples(self._plan.positions(step, self._rank))
            x = self._x[chosen]
            yield (x.toarray() if scipy.sparse.issparse(x) else np.asarray(x)), np.asarray(self._y[chosen])

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the batches of epoch 0, 1, 2, ... without end; `steps_per_epoch` of them make an epoch."""
        epoch = 0
        while True:
            yield from self.epoch(epoch)
            epoch += 1

    def __len__(self) -> int:
        return self.steps_per_epoch


def validation_steps(num_examples: int, batch_size: int, size: int = 1) -> int:
    """Steps that cover `num_examples` of validation once over `size` ranks; the same rule as for training."""
    return steps_per_epoch(num_examples, batch_size, size)
