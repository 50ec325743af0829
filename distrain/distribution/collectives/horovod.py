"""Collectives over Horovod's low-level operations: the only file that imports Horovod.

Decides: how Horovod carries tensors and bytes between ranks. Never: uses Horovod's optimizer wrapper, gradient tape,
callbacks or objects: on Keras 3 these synchronize nothing, or pickle.

    start(find_world(os.environ))
    all_reduce_sum(np.ones(5, np.float32), fp16=False)
    on_device().grouped_sum([tf.ones(3), tf.ones(2)])        # with a GPU: inside a tf.function or outside
    HorovodGroup().all_gather_bytes(b"mine")     # [b"of rank 0", b"of rank 1", ...]
"""

from __future__ import annotations

import itertools
import logging
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import horovod
import numpy as np
import tensorflow as tf

from distrain.cluster.process_group import ProcessGroup
from distrain.cluster.rendezvous import rendezvous
from distrain.cluster.world import World
from distrain.errors import ConfigurationError

try:
    import horovod.tensorflow as hvd
except (ImportError, OSError, tf.errors.OpError) as error:  # a library is missing, or was built for another TensorFlow
    raise ConfigurationError(
        f"Horovod cannot be loaded: {' '.join(str(error).split())}. Build it again with distrain install-horovod, "
        "or use --strategy mpi."
    ) from None

_LOG = logging.getLogger(__name__)

NAME = "horovod"
VERSION = f"horovod {horovod.__version__}"

# Longer than the heartbeat's 30 s, because only the heartbeat knows which rank was lost.
GLOO_TIMEOUT_SECONDS = "60"

_numbers = itertools.count()  # all ranks trace the same functions in the same order, so the names agree


def start(world: World) -> ProcessGroup:
    """Join the other ranks until the process exits; harmless when called twice.

    Args:
        world: what the environment says.

    Raises:
        RankError: the others do not come, or two processes claim one rank.
    """
    if hvd.is_initialized():
        return HorovodGroup()
    os.environ.setdefault("HOROVOD_GLOO_TIMEOUT_SECONDS", GLOO_TIMEOUT_SECONDS)
    if world.rank == 0:
        _warn_of_fusion(os.environ)
    os.environ.setdefault("HOROVOD_FUSION_THRESHOLD", "0")
    with rendezvous(world, os.environ):
        hvd.init()
    return HorovodGroup()


def _warn_of_fusion(environ: Mapping[str, str]) -> None:
    """Warn if the user lets Horovod join reductions by their time of arrival."""
    names = ("HOROVOD_FUSION_THRESHOLD", "HOROVOD_AUTOTUNE")
    # Horovod takes any other word for 0.
    chosen = [name for name in names if re.match(r"\s*\+?0*[1-9]", environ.get(name, ""))]
    if chosen:
        _LOG.warning(
            f"{' and '.join(f'{name}={environ[name][:20]}' for name in chosen)} lets Horovod join sums in the order of "
            "arrival. With three ranks or more, the weights may then differ in their last bits from run to run. Unset "
            f"{'it' if len(chosen) == 1 else 'both'}: distrain joins gradients in a fixed order."
        )


def check_gpu_support() -> None:
    """Check that Horovod can sum on GPUs.

    Raises:
        ConfigurationError: Horovod was built without NCCL.
    """
    if not hvd.nccl_built():
        raise ConfigurationError(
            "Horovod was built without NCCL, so that gradients would not travel between GPUs. Build it again with "
            "distrain install-horovod --gpu, use --strategy mpi, or train on the CPU with --devices cpu:1."
        )


def stop() -> None:
    """Leave the other ranks for good; all ranks must call this."""
    hvd.shutdown()


def on_device() -> Any:
    """Return this module, for `grouped_sum` and `gather`, if this process has a GPU."""
    return sys.modules[__name__] if tf.config.list_logical_devices("GPU") else None


def all_reduce_sum(buffer: np.ndarray, *, fp16: bool) -> None:
    """Sum a one-dimensional buffer in place over all ranks; `fp16` sends half precision."""
    with np.errstate(over="ignore"):  # an overflow becomes infinite, which the step detects
        wire = tf.constant(buffer.astype(np.float16) if fp16 else buffer)
    buffer[:] = hvd.allreduce(wire, op=hvd.Sum, name=f"distrain.host.sum.{wire.dtype.name}").numpy()


def all_reduce_or(mask: np.ndarray) -> None:
    """Set a uint8 mask in place to its bitwise or over all ranks."""
    mask[:] = hvd.allreduce(tf.constant(mask), op=hvd.Max, name="distrain.host.or").numpy()


def grouped_sum(tensors: Sequence[Any], *, compression: str = "none") -> list[Any]:
    """Return each dense tensor summed over all ranks, by one reduction per dtype.

    This function concatenates the tensors itself. `hvd.grouped_allreduce` orders tensors by arrival in the first step
    of a process, and differently later. With three ranks or more the order decides how a sum rounds, so a resumed run
    would not end at the same bits.

    Args:
        tensors: tensors whose shapes are the same on every rank.
        compression: "fp16" sends float32 tensors in half precision; "none" as they are.
    """
    sums = list(tensors)
    wire = [_on_wire(tensor, compression) for tensor in tensors]
    for dtype in dict.fromkeys(tensor.dtype for tensor in wire):
        indices = [index for index, tensor in enumerate(wire) if tensor.dtype == dtype]
        flat = [tf.reshape(wire[index], [-1]) for index in indices]
        joined = tf.concat(flat, axis=0) if len(flat) > 1 else flat[0]  # TensorFlow copies even a single tensor
        total = hvd.allreduce(joined, op=hvd.Sum, name=_name(f"distrain.sum.{dtype.name}"))
        parts = tf.split(total, [tf.size(each) for each in flat]) if len(flat) > 1 else [total]
        for index, part in zip(indices, parts, strict=True):
            sums[index] = tf.cast(tf.reshape(part, tf.shape(tensors[index])), tensors[index].dtype)
    return sums


def gather(tensor: Any) -> Any:
    """Return the rows of all ranks, rank after rank, in the dtype of `tensor`."""
    return tf.cast(hvd.allgather(_on_wire(tensor), name=_name("distrain.gather")), tensor.dtype)


class HorovodGroup(ProcessGroup):
    """All ranks of the run, once Horovod has started. Its methods work outside compiled functions only.

    Bytes travel between hosts' memories: ranks exchange bytes before they know whether all of them have a GPU.
    """

    def __init__(self) -> None:
        self.rank, self.size = hvd.rank(), hvd.size()

    def all_gather_bytes(self, content: bytes) -> list[bytes]:
        """See `ProcessGroup`."""
        with tf.device("CPU:0"):
            sizes = hvd.allgather(tf.constant([len(content)], tf.int64), name="distrain.exchange.sizes").numpy()
            buffer = tf.constant(np.frombuffer(content, np.uint8))
            joined = hvd.allgather(buffer, name="distrain.exchange").numpy().tobytes()
        ends = np.cumsum(sizes)
        return [joined[end - size : end] for size, end in zip(sizes, ends, strict=True)]

    def broadcast(self, content: bytes) -> bytes:
        """See `ProcessGroup`."""
        with tf.device("CPU:0"):
            size = int(hvd.broadcast(tf.constant(len(content), tf.int64), 0, name="distrain.broadcast.size").numpy())
            buffer = np.frombuffer(content, np.uint8) if self.is_chief else np.zeros(size, np.uint8)
            return hvd.broadcast(tf.constant(buffer), 0, name="distrain.broadcast").numpy().tobytes()


def _name(kind: str) -> str:
    """Return the name by which Horovod matches tensors; numbered, as a compiled function may hold several."""
    return kind if tf.executing_eagerly() else f"{kind}.{next(_numbers)}"


def _on_wire(tensor: Any, compression: str = "none") -> Any:
    if tensor.dtype == tf.bfloat16:  # Horovod's operations do not know it
        return tf.cast(tensor, tf.float32)
    return tf.cast(tensor, tf.float16) if compression == "fp16" and tensor.dtype == tf.float32 else tensor
