"""Every private name of Keras and TensorFlow that distrain uses; `tf_data.py` has the names of tf.data.

Decides: which private names are in use, and what an error says if a release has renamed one. Never: what a caller does
with them.

    require_private_hooks()                      # before a strategy of TensorFlow trains a Keras model
    replace_batch_moments(layer, moments)        # mean and variance of a batch normalization by other means
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from copy import copy, deepcopy
from dataclasses import dataclass
from typing import Any

from distrain.batch import current_batch
from distrain.errors import ConfigurationError

TRIED_VERSIONS = {"keras": "3.15", "tensorflow": "2.21"}  # pyproject.toml allows no other minor versions
COLLECTIVE_KEYS_PER_STRATEGY = 1000  # far more collectives than one strategy makes


def require_private_hooks() -> None:
    """Check that the private names of Keras and TensorFlow exist that a mirrored run needs.

    Without this check a renamed hook trains wrong weights in silence: Keras would sum the gradients twice.

    Raises:
        ConfigurationError: a release of Keras or TensorFlow has renamed a hook.
    """
    import keras
    import tensorflow as tf

    mirrored = {"user": "--strategy mirrored", "cure": ", or use --strategy single"}
    _private(keras.optimizers.Optimizer, "_all_reduce_sum_gradients", **mirrored)
    _private(tf.distribute.MirroredStrategy, "_collective_key_base", library="tensorflow", **mirrored)


def all_layers(model: Any) -> list[Any]:
    """Return all layers of a model, with the layers inside models, wrappers and layers."""
    layers: list[Any] = _private(model, "_flatten_layers")(include_self=False)
    return layers


def state_variables(model: Any) -> list[Any]:
    """Return the variables that no optimizer trains, such as moving averages, without the weights of frozen layers."""
    layers = [model, *all_layers(model)]
    weights = {id(variable) for layer in layers for variable in _private(layer, "_trainable_variables")}
    return [variable for variable in model.non_trainable_variables if id(variable) not in weights]


def batch_moments(layer: Any, inputs: Any, mask: Any) -> Any:
    """Return mean and variance of `inputs`, as a `BatchNormalization` computes both by itself."""
    return type(layer)._moments(layer, inputs, mask)


def replace_batch_moments(layer: Any, moments: Callable[[Any, Any], Any]) -> None:
    """Let a `BatchNormalization` compute mean and variance by `moments(inputs, mask)`."""
    _private(type(layer), "_moments")
    layer._moments = moments


def compile_arguments(model: Any) -> dict[str, Any]:
    """Return the arguments with which `model.compile` was called last, as objects; empty if the model is not compiled.

    Raises:
        ConfigurationError: a release of Keras has renamed a hook.
    """
    return dict(_private(model, "_compile_config").config) if getattr(model, "compiled", False) else {}


def replace_losses(model: Any, replace: Callable[[Any], Any]) -> None:
    """Replace each loss of a compiled model, which has computed its loss once; `compile` keeps the user's losses.

    Raises:
        ConfigurationError: a release of Keras has renamed a hook.
    """
    compiled = _private(model, "_compile_loss")
    if compiled is not None:  # else the model trains on losses that layers add
        losses = _private(compiled, "_flat_losses") or []
        compiled._flat_losses = [entry._replace(loss=replace(entry.loss)) for entry in losses]


def mask_of(tensor: Any) -> Any:
    """Return the mask that Keras attached to a tensor, or None."""
    return getattr(tensor, "_keras_mask", None)


def masked(tensor: Any, mask: Any) -> Any:
    """Attach a mask to a tensor as Keras does, and return the tensor."""
    if mask is not None:
        tensor._keras_mask = mask
    return tensor


def loss_tracker(model: Any) -> Any:
    """Return the `keras.metrics.Mean` in which Keras tracks the loss of a compiled model."""
    return _private(model, "_loss_tracker")


def output_loss_trackers(model: Any) -> list[Any]:
    """Return the metrics in which Keras tracks the loss of each output, if there are several."""
    compiled = _private(model, "_compile_loss")
    return [] if compiled is None else list(compiled.metrics)


def keep_layer_losses_of_threads_apart(model: Any) -> None:
    """Let each thread read the losses that its own calls of a model's layers added.

    MirroredStrategy runs the replicas in turn, each in a thread. Keras forgets a layer's losses when any thread calls
    the model again, so a replica that waits for another one would lose them.
    """
    for layer in [model, *all_layers(model)]:
        _private(layer, "_loss_ids")
        layer._loss_ids = _IdsOfThread()


class _IdsOfThread:
    """A set per thread: what Keras uses of a set to know the losses of a layer."""

    def __init__(self) -> None:
        self._local = threading.local()

    def __contains__(self, number: int) -> bool:
        return number in self._ids()

    def add(self, number: int) -> None:
        self._ids().add(number)

    def clear(self) -> None:
        self._ids().clear()

    def _ids(self) -> set[int]:
        ids: set[int] = self._local.__dict__.setdefault("ids", set())
        return ids


def keep_losses_undivided() -> None:
    """Keep Keras from dividing a loss by the number of replicas of a strategy while distrain computes a share's loss.

    Raises:
        ConfigurationError: a release of Keras has renamed a hook.
    """
    from keras.src.losses import loss as keras_loss

    for name in ("scale_loss_for_distribution", "unscale_loss_for_distribution"):
        of_keras = _private(keras_loss, name)
        if not isinstance(of_keras, _UndividedInStep):
            setattr(keras_loss, name, _UndividedInStep(of_keras))


@dataclass(frozen=True)
class _UndividedInStep:
    """A function of Keras that divides or multiplies a loss by the number of replicas; in a step, the loss as it is."""

    of_keras: Callable[[Any], Any]

    def __call__(self, value: Any) -> Any:
        return self.of_keras(value) if current_batch() is None else value


def knows_direction(callback: Any) -> bool:
    """Return whether a callback knows which values of its figure are better, from its mode or the compiled metrics."""
    try:
        if hasattr(callback, "_set_monitor_op") and getattr(callback, "save_best_only", True):
            copy(callback)._set_monitor_op()  # on a copy, because each call flips the sign of `min_delta`
    except ValueError:
        return False
    return True


def is_under_strategy() -> bool:
    """Return whether variables are made for several devices of this process, by a strategy of TensorFlow."""
    import tensorflow as tf

    return bool(tf.distribute.has_strategy())


def made_in_scope(optimizer: Any) -> Any:
    """Return an optimizer that is not built yet, with variables of the current strategy: a copy where needed.

    Raises:
        ConfigurationError: the optimizer holds an object that Python cannot copy.
    """
    import keras
    import tensorflow as tf

    strategy = tf.distribute.get_strategy()
    innermost = getattr(optimizer, "inner_optimizer", optimizer)
    if not is_under_strategy() or _private(innermost, "_distribution_strategy") is strategy:
        return optimizer
    # Python copies the object as it is, schedules and exclusions included, around these variables.
    copies: dict[int, Any] = {
        id(v): keras.Variable(v.numpy(), dtype=v.dtype, trainable=False, name=v.name, aggregation=v.aggregation)
        for v in optimizer.variables
    }
    copies[id(innermost._distribution_strategy)] = strategy

    def copied(original: Any, memo: dict[int, Any]) -> Any:
        twin = memo[id(original)] = object.__new__(type(original))
        vars(twin).update(deepcopy(vars(original), memo))
        return twin

    kind: Any = keras.optimizers.Optimizer
    kind.__deepcopy__ = copied  # for this copy alone: Keras' own way goes by the configuration, which lacks exclusions
    try:
        return deepcopy(optimizer, copies)
    except TypeError as error:
        raise ConfigurationError(
            f"The optimizer {optimizer.name!r} cannot be copied for several devices ({error}). Give a function that "
            "makes it: optimizer=lambda: keras.optimizers.Adam(1e-3)."
        ) from None
    finally:
        del kind.__deepcopy__


def leave_strategy(model: Any) -> None:
    """Let Keras evaluate a model on one device, in callbacks and after training on several devices of this process.

    Under the strategy, Keras fails on a batch that does not divide by the devices. Its `fit` would sum no gradients.
    """
    if _private(model, "_distribute_strategy") is None:
        return

    def refuse(*_: Any, **__: Any) -> Any:
        raise ConfigurationError(
            "Several devices have trained this model, so Keras cannot train it any further. Call distrain.fit again, "
            "or save the model, load it by keras.models.load_model, and train the loaded model."
        )

    model._distribute_strategy = None
    model.make_train_function = refuse


def disable_gradient_all_reduce(optimizer: Any) -> None:
    """Keep `optimizer.apply` from summing gradients over replicas: Keras would clip each gradient before the sum."""
    optimizer = getattr(optimizer, "inner_optimizer", optimizer)
    for each in getattr(optimizer, "optimizers", [optimizer]):  # a built `MultiOptimizer` holds several
        each._all_reduce_sum_gradients = lambda grads_and_vars: grads_and_vars


def reserve_collective_keys() -> None:
    """Give the next `tf.distribute.MirroredStrategy` of this process collective keys of its own.

    Every strategy counts its collectives from one start. Without new keys, a second run in one process meets leftovers
    of the first run.
    """
    import tensorflow as tf

    tf.distribute.MirroredStrategy._collective_key_base += COLLECTIVE_KEYS_PER_STRATEGY


def _private(owner: Any, name: str, *, library: str = "keras", user: str = "this model", cure: str = "") -> Any:
    """Return a private attribute of a class, module or object of a library; an error names the tried versions."""
    if not hasattr(owner, name):
        raise ConfigurationError(
            f"{library} {sys.modules[library].__version__} has no {getattr(owner, '__name__', type(owner).__name__)}."
            f"{name}, which {user} needs. distrain was tried with {library} {TRIED_VERSIONS[library]}: "
            f"pip install '{library}=={TRIED_VERSIONS[library]}.*'{cure}."
        )
    return getattr(owner, name)
