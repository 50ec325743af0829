"""A model of a user's own as the configuration that Keras saves, rebuilt without the user's code.

Decides: which classes and functions a saved configuration may name. Never: imports a module that a file names.

    saved = architecture_of(model)                # JSON values for a checkpoint, or None
    foreign_part(saved)                           # "models.Tower", or None if all parts are of Keras or distrain
    model = rebuilt(saved)                        # compiled as it was

Keras creates the objects that a configuration names, and calls functions in it with tensors. A file from a stranger may
name anything, so `foreign_part` looks at every name first. It accepts classes of models and their parts, and functions
of `keras.activations`, `keras.losses` and `keras.metrics`. It refuses the layers that carry code or load programs.
"""

from __future__ import annotations

import inspect
import json
import sys
from typing import Any

import keras

from distrain.errors import CheckpointError
from distrain.models import layers, ngram_mlp, optimizers, packed, sepcnn  # register distrain's own classes

_OWN_MODULES = frozenset(module.__name__ for module in (layers, ngram_mlp, optimizers, packed, sepcnn))
_PARTS = (
    keras.Operation,  # layers and models too
    keras.optimizers.Optimizer,
    keras.optimizers.schedules.LearningRateSchedule,
    keras.losses.Loss,
    keras.metrics.Metric,
    keras.initializers.Initializer,
    keras.regularizers.Regularizer,
    keras.constraints.Constraint,
    keras.DTypePolicy,
    keras.random.SeedGenerator,
)
_CARRY_CODE = ("Lambda", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer")
_VALUES = ("__keras_tensor__", "__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__")
_FUNCTIONS = (keras.activations, keras.losses, keras.metrics)
_NO_PARTS = ("get", "serialize", "deserialize")  # functions of these modules that make other objects


def architecture_of(model: Any) -> dict[str, Any] | None:
    """Return what a compiled model consists of as JSON values, or None if Keras cannot save it."""
    try:
        return dict(json.loads(json.dumps(keras.saving.serialize_keras_object(model))))
    except Exception:  # `get_config` of a user's class may raise anything
        return None


def foreign_part(architecture: Any) -> str | None:
    """Return the first name in a saved configuration that is no part of Keras or distrain, or None."""
    remaining = [architecture]
    while remaining:
        value = remaining.pop()
        if isinstance(value, dict):
            if "class_name" in value and not _is_known(value):
                return f"{value.get('module')}.{_name_of(value)}"
            remaining += value.values()
        elif isinstance(value, list):
            remaining += value
    return None


def rebuilt(architecture: Any) -> Any:
    """Return the compiled model of a saved configuration in which `foreign_part` finds nothing.

    Raises:
        CheckpointError: Keras cannot make a model of the configuration.
    """
    assert foreign_part(architecture) is None
    try:
        model = keras.saving.deserialize_keras_object(architecture, safe_mode=True)
    except Exception as error:  # Keras raises many types for a configuration that was changed
        raise CheckpointError(f"The saved configuration of the model is damaged: {error}") from error
    if not isinstance(model, keras.Model):
        raise CheckpointError("The saved configuration of the model is damaged: it is not of a model.")
    return model


def _name_of(value: dict[str, Any]) -> Any:
    return value.get("config") if value["class_name"] == "function" else value["class_name"]


def _is_known(value: dict[str, Any]) -> bool:
    """Whether Keras would make a value, a part of a model or a known function of `value`, and nothing else."""
    name, module, registered_name = _name_of(value), value.get("module"), value.get("registered_name")
    if value["class_name"] in _VALUES:
        return True
    if not isinstance(name, str) or not isinstance(module, str):
        return False
    if value["class_name"] == "function":
        return _is_function(name, module)
    kind = keras.saving.get_registered_object(registered_name) if isinstance(registered_name, str) else None
    if kind is not None:  # Keras takes a registered class by this name alone
        return isinstance(kind, type) and kind.__module__ in _OWN_MODULES
    kind = getattr(sys.modules.get(module), name, None) if module.split(".")[0] == "keras" else None
    is_part = isinstance(kind, type) and issubclass(kind, _PARTS) and kind.__module__.split(".")[0] == "keras"
    return is_part and name not in _CARRY_CODE


def _is_function(name: str, module: str) -> bool:
    homes = [home.__name__ for home in _FUNCTIONS if inspect.isfunction(getattr(home, name, None))]
    is_registered = keras.saving.get_registered_object(name) is not None  # Keras would take that function
    return bool(homes) and module in ("builtins", *homes) and name not in _NO_PARTS and not is_registered
