"""An optimizer that averages gradients over all ranks, and a callback that first broadcasts rank 0's weights.

Decides: when ranks communicate in training. Never: how tensors travel (`distribution` decides).

    model.compile(DistributedOptimizer("adam"), loss="mse")
    model.fit(batches, shuffle=False, callbacks=[BroadcastCallback()])
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from distrain.errors import ConfigurationError, RankError
from distrain.horovod import init


def DistributedOptimizer(optimizer: Any, *, compression: str = "none") -> Any:  # noqa: N802 - scripts use Horovod's name
    """Make an optimizer average its gradients over all ranks before it does anything else with them.

    Every call of `apply` averages first. So clipping, accumulation, weight decay, moving averages and the skipped steps
    of a `LossScaleOptimizer` use the global gradient, and agree on all ranks. With `gradient_accumulation_steps` each
    micro-step is averaged, which is exact and costs one reduction.

    Of an embedding's gradient only touched rows travel, and the average is dense. Keras in one process squares and
    clips repeated rows one by one, so its result differs there (Keras 3.15).

    Args:
        optimizer: a Keras optimizer, built or not, or its name. This function changes the optimizer in place: state,
            class, schedule and configuration stay. A saved model holds the plain optimizer, so a script calls
            `DistributedOptimizer(model.optimizer)` again after loading.
        compression: "fp16" sends gradients in half precision; "none" in their own.

    Returns:
        The same optimizer.

    Raises:
        ConfigurationError: the compression is unknown; later, in `fit`: `BroadcastCallback` is missing.
    """
    if compression not in ("none", "fp16"):
        raise ConfigurationError(f"compression is {compression!r}, but it must be 'none' or 'fp16'.")
    optimizer = keras.optimizers.get(optimizer)
    if init().size > 1 and not isinstance(optimizer.apply, _AveragedApply):
        optimizer.apply = _AveragedApply(optimizer.apply, compression)
    return optimizer


class _AveragedApply:
    """Replaces an optimizer's `apply`; refuses to work before `BroadcastCallback` made the ranks equal."""

    def __init__(self, apply: Any, compression: str) -> None:
        from distrain.distribution.collectives import horovod
        from distrain.distribution.multi_process import MultiProcess

        self.compression = compression
        self.ranks_are_equal = False
        self._apply = apply
        init()
        self._ranks = MultiProcess(horovod, horovod.HorovodGroup(), compression=compression)

    def __call__(self, grads: Sequence[Any], trainable_variables: Any = None) -> Any:
        if not self.ranks_are_equal:
            raise ConfigurationError(
                "Each rank starts from weights of its own. Call fit(callbacks=[distrain.horovod.BroadcastCallback(), "
                "...])."
            )
        averaged = list(grads)
        present = [index for index, gradient in enumerate(averaged) if gradient is not None]
        sums, _ = self._ranks.sum([averaged[index] for index in present], [])
        for index, total in zip(present, sums, strict=True):
            averaged[index] = total / init().size
        return self._apply(averaged, trainable_variables)


class BroadcastCallback(keras.callbacks.Callback):
    """Give all ranks the weights and the optimizer's state of rank 0 whenever `fit` begins.

    Every `fit` needs this callback. It checks that all ranks train the same model with the same number of steps. It
    turns off `jit_compile`, Keras' default on a GPU, because XLA cannot compile a reduction over ranks. If `compile`
    wrapped the optimizer in a `LossScaleOptimizer` (policy mixed_float16), averaging moves to the wrapper, so that all
    ranks skip the same steps.

    Raises:
        ConfigurationError: when `fit` begins, if the model is not built or its optimizer is not distributed.
        RankError: the ranks have other models, optimizers, epochs or steps per epoch.
    """

    def on_train_begin(self, logs: Any = None) -> None:
        """Check, build the optimizer, broadcast."""
        if init().size == 1:
            return
        model = self.model
        apply = _averaged_apply(model.optimizer)
        if not model.built or not model.trainable_variables:
            raise ConfigurationError(
                f"The model {model.name!r} has no weights before its first batch, and so there is nothing to "
                "broadcast. Begin it with keras.Input(shape), or call model.build(input_shape) before fit."
            )
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        if model.jit_compile:
            model.jit_compile = False
            model.make_train_function(force=True)
        variables = [*model.weights, *model.optimizer.variables]
        _require_alike(
            {
                "epochs": self.params["epochs"],
                "steps per epoch": self.params["steps"],
                "optimizer": type(model.optimizer).__name__,
                "number of weights": len(variables),
                **{f"weight {number}": f"{v.dtype}{list(v.shape)}" for number, v in enumerate(variables)},
            }
        )
        _broadcast(variables)
        apply.ranks_are_equal = True


def _averaged_apply(optimizer: Any) -> _AveragedApply:
    inner = getattr(getattr(optimizer, "inner_optimizer", None), "apply", None)
    if isinstance(inner, _AveragedApply):
        del optimizer.inner_optimizer.apply
        optimizer.apply = _AveragedApply(optimizer.apply, inner.compression)
    if not isinstance(optimizer.apply, _AveragedApply):
        raise ConfigurationError(
            f"The optimizer {optimizer.name!r} does not average gradients over the ranks, which would train a model "
            "each. Use model.compile(distrain.horovod.DistributedOptimizer(optimizer), ...)."
        )
    return optimizer.apply


def _require_alike(facts: dict[str, Any]) -> None:
    from distrain.distribution.collectives.horovod import HorovodGroup

    of_ranks = [json.loads(content) for content in HorovodGroup().all_gather_bytes(json.dumps(facts).encode())]
    for rank, theirs in enumerate(of_ranks):
        for name, value in of_ranks[0].items():
            if theirs[name] != value:
                raise RankError(
                    f"Rank {rank} has {name} {theirs[name]}, rank 0 has {value}. All ranks must build the same "
                    "model and take the same number of steps: run one script with the same arguments on all of them."
                )


def _broadcast(variables: Sequence[Any]) -> None:
    from distrain.distribution.collectives.horovod import HorovodGroup

    group = HorovodGroup()
    for variable in variables:  # one by one, so that no rank holds a large model twice
        own = variable.numpy()
        variable.assign(np.frombuffer(group.broadcast(own.tobytes()), own.dtype).reshape(own.shape))
