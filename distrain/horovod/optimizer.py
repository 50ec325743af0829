"""An optimizer that joins the gradients of all ranks, and a callback that first broadcasts rank 0's weights.

Decides: when ranks communicate in training. Never: how tensors travel (`distribution` decides).

    model.compile(DistributedOptimizer("adam"), loss="mse")
    model.fit(batches, shuffle=False, callbacks=[BroadcastCallback()])
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from distrain.errors import ConfigurationError, RankError
from distrain.horovod import init
from distrain.horovod.batches import fitted_batches, forget_fitted_batches

ROUNDING = 1e-4  # of a variable's largest value; ranks on other processors may round the same update in another way


def DistributedOptimizer(optimizer: Any, *, compression: str = "none") -> Any:  # noqa: N802 - scripts use Horovod's name
    """Make an optimizer average its gradients over all ranks before it does anything else with them.

    Every call of `apply` averages first. If `fit` reads `RankBatches`, a rank weighs as many examples as it has in the
    step. Then the average is the gradient of the mean over the joint batch. So clipping, accumulation, weight decay,
    moving averages and the skipped steps of a `LossScaleOptimizer` use the global gradient, and agree on all ranks.
    With `gradient_accumulation_steps` each micro-step is averaged, which is exact and costs one reduction.

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
        self._shares = tf.Variable([1 / init().size], trainable=False, shape=[None], dtype=tf.float64)
        self._num_applied = tf.Variable(0, trainable=False)

    def expect(self, shares: Sequence[float]) -> None:
        """Set this rank's shares of the examples of the steps in the next execution."""
        self._shares.assign(shares)
        self._num_applied.assign(0)

    @property
    def num_applied(self) -> int:
        """Calls since `expect`."""
        return int(self._num_applied.numpy())

    def __call__(self, grads: Sequence[Any], trainable_variables: Any = None) -> Any:
        if not self.ranks_are_equal:
            raise ConfigurationError(
                "Each rank starts from weights of its own. Call fit(callbacks=[distrain.horovod.BroadcastCallback(), "
                "...])."
            )
        # A train_step may apply several times in its step; in several steps per execution, it applies once in each.
        share = self._shares[tf.minimum(self._num_applied, tf.size(self._shares) - 1)]
        self._num_applied.assign_add(1)
        averaged = list(grads)
        present = [index for index, gradient in enumerate(averaged) if gradient is not None]
        sums, _ = self._ranks.sum([_scaled(averaged[index], share) for index in present], [])
        for index, total in zip(present, sums, strict=True):
            averaged[index] = total
        return self._apply(averaged, trainable_variables)


def _scaled(gradient: Any, share: Any) -> Any:
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(_scaled(gradient.values, share), gradient.indices, gradient.dense_shape)
    return gradient * tf.cast(share, gradient.dtype)


class BroadcastCallback(keras.callbacks.Callback):
    """Give all ranks the weights and the optimizer's state of rank 0 whenever `fit` begins.

    Every `fit` needs this callback. It checks that all ranks train the same model with the same number of steps. Before
    each step it tells the optimizer how many examples this rank has. It turns off `jit_compile`, Keras' default on a
    GPU, because XLA cannot compile a reduction over ranks. If `compile` wrapped the optimizer in a `LossScaleOptimizer`
    (policy mixed_float16), averaging moves to the wrapper, so that all ranks skip the same steps.

    A model with a `train_step` of its own may keep several optimizers as attributes. Each must be distributed. The loss
    of such a step must be a mean over the examples of the batch that the step receives.

    Raises:
        ConfigurationError: when `fit` begins, if the model is not built or an optimizer is not distributed. Also if the
            loss is no mean over examples.
        RankError: the ranks have other models, optimizers, epochs or steps per epoch. Also if an epoch ends with other
            trainable weights on some rank, as an optimizer inside a part of the model leaves them.
    """

    def on_train_begin(self, logs: Any = None) -> None:
        """Check, build the optimizer, broadcast."""
        if init().size == 1:
            return
        model = self.model
        self._applies = _averaged_applies(model)
        _require_means(model)
        forget_fitted_batches()
        if not model.built or not model.trainable_variables:
            raise ConfigurationError(
                f"The model {model.name!r} has no weights before its first batch, and so there is nothing to "
                "broadcast. Begin it with keras.Input(shape), or call model.build(input_shape) before fit."
            )
        if model.optimizer is not None and not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        if model.jit_compile:
            model.jit_compile = False
            model.make_train_function(force=True)
        # An optimizer that its first step builds begins with the same zeros on all ranks.
        optimizers = _optimizers(model)
        variables = [*model.weights, *(variable for optimizer in optimizers for variable in optimizer.variables)]
        _require_alike(
            {
                "epochs": self.params["epochs"],
                "steps per epoch": self.params["steps"],
                "optimizer": ", ".join(type(optimizer).__name__ for optimizer in optimizers),
                "number of weights": len(variables),
                **{f"weight {number}": f"{v.dtype}{list(v.shape)}" for number, v in enumerate(variables)},
            }
        )
        _broadcast(variables)
        for apply in self._applies:
            apply.ranks_are_equal = True

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Tell the optimizers this rank's share of the examples of each step."""
        batches, size = fitted_batches(), init().size
        if size == 1:
            return
        shares = [1 / size]
        if batches is not None:
            steps = range(batch, min(batch + self.model.steps_per_execution, len(batches)))
            shares = [num_rows / num_all for num_rows, num_all in map(batches.rows, steps)]
        for apply in self._applies:
            apply.expect(shares)
        self._num_steps = len(shares)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Check that each step applied once, if an execution has several steps."""
        if init().size == 1 or self._num_steps == 1:
            return
        for apply in self._applies:
            if apply.num_applied != self._num_steps:
                raise ConfigurationError(
                    f"An optimizer was applied {apply.num_applied} times in {self._num_steps} steps of one execution; "
                    "exact gradients need once a step. Use compile(steps_per_execution=1)."
                )

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Check that all ranks still hold the same trainable weights."""
        if init().size > 1:
            _require_equal_weights(self.model, epoch)


def _optimizers(model: Any) -> list[Any]:
    """Return the compiled optimizer, and the optimizers that a model with a `train_step` of its own keeps."""
    kept: list[Any] = []
    for value in vars(model).values():
        kept += value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else [value]
    found = [optimizer for optimizer in [model.optimizer, *kept] if isinstance(optimizer, keras.optimizers.Optimizer)]
    return list({id(optimizer): optimizer for optimizer in found}.values())


def _averaged_applies(model: Any) -> list[_AveragedApply]:
    optimizers = _optimizers(model)
    if not optimizers:
        raise ConfigurationError(
            f"The model {model.name!r} keeps no optimizer. Give model.compile an optimizer, or keep your train_step's "
            "optimizers as attributes of the model: distrain.horovod.DistributedOptimizer(optimizer)."
        )
    return [_averaged_apply(optimizer) for optimizer in optimizers]


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


def _require_means(model: Any) -> None:
    """Refuse compiled losses that are no mean over the rows of a rank, as averages of ranks would be wrong."""
    if type(model).train_step is not keras.Model.train_step:
        return  # the rule of a train_step of one's own: its loss is a mean over the examples of its batch
    for loss in keras.tree.flatten(model.loss):
        reduction = getattr(loss, "reduction", "sum_over_batch_size")
        if reduction not in ("sum_over_batch_size", "mean"):
            raise ConfigurationError(
                f"The loss {loss.name!r} has reduction {reduction!r}, which ranks cannot join exactly: they average "
                "means over examples. Use reduction='sum_over_batch_size', or train by distrain.fit."
            )


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


def _require_equal_weights(model: Any, epoch: int) -> None:
    """Raise a `RankError` if some rank's trainable weights differ from the chief's by more than rounding."""
    from distrain.distribution.collectives.horovod import HorovodGroup

    group, variables = HorovodGroup(), model.trainable_variables
    digests = [hashlib.sha256(variable.numpy().tobytes()).hexdigest() for variable in variables]
    of_ranks = [json.loads(content) for content in group.all_gather_bytes(json.dumps(digests).encode())]
    for variable, *of_variable in zip(variables, *of_ranks, strict=True):
        if len(set(of_variable)) == 1:
            continue
        own = variable.numpy()
        of_chief = np.frombuffer(group.broadcast(own.tobytes()), own.dtype).reshape(own.shape).astype(np.float64)
        difference = float(np.abs(own - of_chief).max() / max(np.abs(of_chief).max(), np.finfo(np.float32).tiny))
        for rank, content in enumerate(group.all_gather_bytes(json.dumps(difference).encode())):
            if not json.loads(content) <= ROUNDING:  # also for NaN
                raise RankError(
                    f"Rank {rank} ends epoch {epoch + 1} with other values of {variable.path!r} than rank 0: each "
                    "rank trains a model of its own. Wrap each optimizer that train_step applies in "
                    "DistributedOptimizer, and keep it as an attribute of the model."
                )


def _broadcast(variables: Sequence[Any]) -> None:
    from distrain.distribution.collectives.horovod import HorovodGroup

    group = HorovodGroup()
    for variable in variables:  # one by one, so that no rank holds a large model twice
        own = variable.numpy()
        variable.assign(np.frombuffer(group.broadcast(own.tobytes()), own.dtype).reshape(own.shape))
