"""The contract of `Distribution`: runs each operation once on this process and writes the results.

write_contract(choose, folder, apart=..., collectives=...)      # folder/contract.RANK.npz and .json; a judge reads them
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from ranks_buckets import digests_of_sums, small_buckets
from ranks_contract_inputs import CASES, CONTENTS, Rows, Tensors, contents, variables
from ranks_forward_sums import forward_sums
from ranks_notes import Notes

from distrain.distribution.base import Distribution


def write_contract(
    choose: Callable[[str], Distribution],
    folder: Path,
    *,
    apart: Callable[[], AbstractContextManager[None]],
    collectives: Any,
) -> None:
    """Call every operation and write the results.

    Args:
        choose: function from a compression to the distribution.
        folder: folder for the results.
        apart: context in which ranks find no memory to share.
        collectives: the backend's module, whose buffers are counted; None in one process.
    """
    run_on_all_ranks = Notes()
    arrays = {}
    if collectives is not None:
        sharing = choose("none")
        for name in CASES:
            sums = _sums(sharing, name, run_on_all_ranks, collectives)
            arrays |= {f"shared/{key}": array for key, array in sums.items()}
        arrays |= {f"forward and shared/{key}": each for key, each in forward_sums(sharing).items()}
    with apart():
        _write_what_travels(choose, folder, arrays, run_on_all_ranks, collectives)


def _write_what_travels(
    choose: Callable[[str], Distribution],
    folder: Path,
    arrays: dict[str, np.ndarray],
    run_on_all_ranks: Notes,
    collectives: Any,
) -> None:
    distribution = choose("none")
    notes = {name: Notes() for name in CASES}
    for name in CASES:
        arrays |= _sums(distribution, name, notes[name], collectives)
    arrays |= {f"two batches/0/{key}": value for key, value in _sum_of_two_batches(distribution).items()}
    arrays |= {f"forward/{key}": each for key, each in forward_sums(distribution).items()}
    if collectives is not None:
        halving = choose("fp16")
        for name in ("rounding", "figures"):
            arrays |= {f"fp16/{key}": sums for key, sums in _sums(halving, name, Notes(), collectives).items()}
    digests: list[str] = []
    if collectives is not None:
        with small_buckets():
            for name in CASES:
                sums = _sums(choose("none"), name, Notes(), collectives)
                arrays |= {f"buckets/{key}": value for key, value in sums.items()}
    if distribution.name == "horovod":  # as on a GPU, within the graph
        on_device, collectives.on_device = collectives.on_device, lambda: collectives
        for compression in ("none", "fp16"):
            on_gpu = choose(compression)
            sums = [_sums(on_gpu, name, Notes(), collectives) for name in ("dense", "few_rows", "all_rows", "rounding")]
            arrays |= {f"device {compression}/{key}": value for each in sums for key, value in each.items()}
            arrays |= {f"forward on device {compression}/{key}": each for key, each in forward_sums(on_gpu).items()}
        with small_buckets():
            in_buckets = choose("none")
            for name in CASES:
                sums = _sums(in_buckets, name, Notes(), collectives)
                arrays |= {f"device buckets/{key}": value for key, value in sums.items()}
            digests = digests_of_sums(in_buckets)
        arrays |= _sums_in_bfloat16(collectives, distribution.group.rank)
        collectives.on_device = on_device
    arrays |= {f"variables/{name}": value for name, value in _synchronized(distribution).items()}
    facts = {
        "name": distribution.name,
        "version": distribution.version,
        "num_replicas": distribution.num_replicas,
        "local_replicas": list(distribution.local_replicas),
        "num_processes": distribution.group.size,
        "rank": distribution.group.rank,
        "is_chief": distribution.group.is_chief,
        "prefetches": distribution.prefetches,
        "cores": len(os.sched_getaffinity(0)),
        "heard": {kind: _heard(distribution, kind) for kind in CONTENTS},
        "sent by ranks that share memory": run_on_all_ranks.sent.total(),
        "digests of sums": digests,
        "sent": {name: sorted(note.sent.elements()) for name, note in notes.items()},
    }
    np.savez(folder / f"contract.{distribution.group.rank}.npz", **arrays)
    (folder / f"contract.{distribution.group.rank}.json").write_text(json.dumps(facts), encoding="utf-8")


def _sums(distribution: Distribution, name: str, notes: Notes, collectives: Any) -> dict[str, np.ndarray]:
    """Sums of a case on two occasions, by "case/occasion/number"."""
    sample = CASES[name](replica=0, occasion=0)

    def replica_step(batches: Sequence[Any]) -> list[Any]:
        (batch,) = batches
        gradients, figures = distribution.sum(*_tensors(batch, sample))
        return [*gradients, *figures]

    sums = {}
    with notes.of_sending(collectives):
        step = distribution.compile(replica_step, _specs(sample))
        for occasion in (0, 1):
            outputs = step([_flat(CASES[name](replica=r, occasion=occasion)) for r in distribution.local_replicas])
            sums |= {f"{name}/{occasion}/{number}": output.numpy() for number, output in enumerate(outputs)}
    return sums


def _sums_in_bfloat16(collectives: Any, rank: int) -> dict[str, np.ndarray]:
    """A sum and a gather of tensors in bfloat16, as of gradients under Keras' policy of that name."""

    @tf.function(autograph=False)
    def step() -> list[Any]:
        own = tf.fill([3], tf.cast(rank + 1, tf.bfloat16))
        reduced = [*collectives.grouped_sum([own, tf.ones(2)]), collectives.gather(own)]
        return [tf.cast(tensor, tf.float32) for tensor in reduced if tensor.dtype == tf.bfloat16]

    return {f"bfloat16/{number}": total.numpy() for number, total in enumerate(step())}


def _sum_of_two_batches(distribution: Distribution) -> dict[str, np.ndarray]:
    """Sums of 10 * first batch + second batch."""
    sample = CASES["dense"](replica=0, occasion=0)

    def replica_step(batches: Sequence[Any]) -> list[Any]:
        first, second = (_tensors(batch, sample) for batch in batches)
        joined = [[10 * a + b for a, b in zip(*parts, strict=True)] for parts in zip(first, second, strict=True)]
        gradients, figures = distribution.sum(*joined)
        return [*gradients, *figures]

    step = distribution.compile(replica_step, _specs(sample), num_batches=2)
    both = [_flat(CASES["dense"](replica=r, occasion=o)) for r in distribution.local_replicas for o in (0, 1)]
    return {str(number): output.numpy() for number, output in enumerate(step(both))}


def _flat(tensors: Tensors) -> list[np.ndarray]:
    """A batch: the arrays one after the other."""
    arrays: list[np.ndarray] = []
    for gradient in tensors.gradients:
        arrays += [gradient.values, gradient.indices] if isinstance(gradient, Rows) else [gradient]
    return arrays + tensors.figures


def _specs(sample: Tensors) -> list[tf.TensorSpec]:
    specs = []
    for gradient in sample.gradients:
        if isinstance(gradient, Rows):
            specs += [
                tf.TensorSpec((None, gradient.values.shape[1]), gradient.values.dtype),
                tf.TensorSpec((None,), "int64"),
            ]
        else:
            specs.append(tf.TensorSpec(gradient.shape, gradient.dtype))
    return specs + [tf.TensorSpec(figure.shape, figure.dtype) for figure in sample.figures]


def _tensors(batch: Sequence[Any], sample: Tensors) -> tuple[list[Any], list[Any]]:
    """The batch's tensors as gradients and figures, of shapes that are known, as a step's are."""
    fields = iter(batch)
    gradients = []
    for gradient in sample.gradients:
        if isinstance(gradient, Rows):
            shape = tf.constant((gradient.num_rows, gradient.values.shape[1]), tf.int64)
            gradients.append(tf.IndexedSlices(next(fields), next(fields), shape))
        else:
            gradients.append(tf.ensure_shape(next(fields), gradient.shape))
    return gradients, [tf.ensure_shape(next(fields), figure.shape) for figure in sample.figures]


def _synchronized(distribution: Distribution) -> dict[str, np.ndarray]:
    own = {
        name: keras.Variable(value, dtype=value.dtype.name, trainable=False, name=name)
        for name, value in variables(distribution.group.rank).items()
    }
    distribution.synchronize([])
    distribution.synchronize([own["seed"]])
    distribution.synchronize(list(own.values()))
    return {name: variable.numpy() for name, variable in own.items()}


def _heard(distribution: Distribution, kind: str) -> dict[str, Any]:
    """Digests of what `all_gather_bytes` and `broadcast` gave."""
    content = contents(kind, rank=distribution.group.rank)
    everyone = [hashlib.sha256(heard).hexdigest() for heard in distribution.group.all_gather_bytes(content)]
    return {"exchange": everyone, "broadcast": hashlib.sha256(distribution.group.broadcast(content)).hexdigest()}
