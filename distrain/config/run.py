"""Settings of any run: its data, its devices, the batches of a step, and its checkpoints.

Decides: how a run reads, steps and resumes. Never: reads data, looks at devices, imports TensorFlow.

    >>> RunSettings(data="data", run="runs/1").replica_batch_size(4)
    32
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distrain.config.named_function import FUNCTION_NAME, FUNCTION_RULE
from distrain.config.setting import check_settings, require, setting

STRATEGIES = ("auto", "single", "mirrored", "horovod", "mpi")
COMPRESSIONS = ("none", "fp16")
MAX_BATCH_SIZE = 2**24  # a batch lies in memory, and its rows have int32 numbers
DEFAULT_GLOBAL_BATCH_SIZE = 128  # Google's text classification guide trains with it


@dataclass(frozen=True)
class RunSettings:
    """Settings of any run; `TrainConfig` adds the length of training, the optimizer and the shipped models."""

    data: Path = setting(
        "prepared data or its URL (s3://, gs://, hf://, https://), a folder of arrays, or a function that returns "
        "data, as package.module:function",
        metavar="DATA",
        may_differ=True,
        may_change=True,
        may_be_remote=True,
    )
    run: Path = setting(
        "run directory, made if it is missing; the chief alone uses it",
        metavar="DIR",
        may_differ=True,
        may_change=True,
    )
    strategy: str = setting(
        "how replicas train together; auto chooses by the number of processes and GPUs",
        default="auto",
        choices=STRATEGIES,
        may_change=True,
    )
    devices: str | None = setting(
        "devices of this process: cpu, cpu:N for N logical CPU devices, or gpu:0,1 for the GPUs with these numbers",
        default=None,
        default_text="all GPUs; the CPU if there is no GPU",
        pattern=r"cpu(:[1-9]\d{0,2})?|gpu:\d{1,4}(,\d{1,4})*",
        rule="cpu, cpu:N for N logical CPU devices, or gpu:0,1 for these GPUs",
        metavar="DEVICES",
        may_differ=True,
        may_change=True,
    )
    model: str | None = setting(
        "function that makes a model of your own, as package.module:function",
        default=None,
        default_text="the shipped model for the kind of data",
        pattern=FUNCTION_NAME,
        rule=FUNCTION_RULE,
        metavar="MODEL",
    )
    batch_size: int | None = setting(
        "examples per replica and batch, in place of --global-batch-size",
        default=None,
        at_least=1,
        at_most=MAX_BATCH_SIZE,
        metavar="B",
    )
    global_batch_size: int | None = setting(
        "examples per step over all replicas; the trained model depends on it, but not on the number of replicas",
        default=None,
        default_text=str(DEFAULT_GLOBAL_BATCH_SIZE),
        at_least=1,
        at_most=MAX_BATCH_SIZE,
        metavar="G",
    )
    accumulation_steps: int = setting(
        "batches that each replica takes for one update, if a global batch is too large for the memory of the devices",
        default=1,
        at_least=1,
        at_most=2**16,
        metavar="K",
        may_change=True,
    )
    steps_per_execution: int = setting(
        "steps in one call into TensorFlow, a loop in its graph that pays where steps take less than a few "
        "milliseconds; callbacks, checkpoints and stop requests wait for the end of the call",
        default=1,
        at_least=1,
        at_most=2**10,  # the batches of a call wait in memory together
        metavar="K",
        may_change=True,
    )
    compression: str = setting(
        "number format of gradients between processes; fp16 halves the traffic and costs exactness",
        default="none",
        choices=COMPRESSIONS,
    )
    data_workers: int = setting(
        "processes that read and transform the examples of a source of your own; 0 does so in threads of each rank",
        default=0,
        at_least=0,
        at_most=2**10,
        metavar="N",
        may_differ=True,
        may_change=True,
    )
    seed: int = setting(
        "random seed of the weights, the order of examples, and dropout", default=0, at_least=0, below=2**63
    )
    resume: str = setting(
        "where to continue: auto takes the newest checkpoint in --run, a path names any checkpoint, "
        "never refuses a run directory that holds a run already, but for restarts of one job",
        default="auto",
        metavar="auto|never|PATH",
        may_change=True,
    )
    checkpoint_every: int = setting(
        "steps between checkpoints; 0 saves at the end of each epoch only",
        default=0,
        at_least=0,
        metavar="STEPS",
        may_change=True,
    )
    check_every: int = setting(
        "steps between comparisons of weights and optimizer over all ranks; 0 compares before each checkpoint only",
        default=0,
        at_least=0,
        metavar="STEPS",
        may_change=True,
    )
    keep: int = setting(
        "newest checkpoints to keep, besides the best", default=2, at_least=1, metavar="N", may_change=True
    )
    deterministic: bool = setting(
        "compute the same bits in each run on the same devices, at the cost of speed; without it only CPUs do",
        default=False,
        may_change=True,
    )
    jit_compile: bool = setting(
        "do not compile the update of the weights by XLA", default=True, option="--no-jit", may_change=True
    )
    jit_model: bool = setting(
        "let XLA compile the forward and backward pass of your own model too, as Keras does with jit_compile=True",
        default=False,
        may_change=True,
    )

    def __post_init__(self) -> None:
        check_settings(self)
        both = self.batch_size is not None and self.global_batch_size is not None
        require(not both, "--global-batch-size", self.global_batch_size, "left out when --batch-size is given")

    @property
    def wanted_global_batch_size(self) -> int | None:
        """Examples per step over all replicas, G, as given or by default; None if `batch_size` is given."""
        if self.batch_size is not None:
            return None
        return self.global_batch_size or DEFAULT_GLOBAL_BATCH_SIZE

    def replica_batch_size(self, num_replicas: int) -> int:
        """Examples per replica and batch, B: as given, or G divided by replicas and accumulation steps, and rounded.

        Raises:
            ConfigurationError: a step has more batches than the global batch has examples.
        """
        if self.batch_size is not None:
            return self.batch_size
        wanted = self.wanted_global_batch_size
        assert wanted is not None
        num_batches = num_replicas * self.accumulation_steps
        rule = f"at least the number of replicas, {num_replicas}"
        if self.accumulation_steps > 1:
            rule = f"at least replicas x accumulation steps, {num_replicas} x {self.accumulation_steps}"
        require(wanted >= num_batches, "--global-batch-size", wanted, rule)
        return max(1, round(wanted / num_batches))
