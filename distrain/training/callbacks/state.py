"""The state of callbacks, as a checkpoint stores it.

Decides: which attributes of a callback make up its state. Never: when state is saved, or where it is stored.

    baseline = attributes_of(callback)           # after on_train_begin
    ...
    state, arrays = packed({"EarlyStopping.0": changed(baseline, attributes_of(callback))})
    restore(callback, unpacked(state, arrays)["EarlyStopping.0"])

State is what training changed: attributes with another value than after `on_train_begin`. A checkpoint holds numbers,
text, None, lists and dicts of these, NumPy arrays and lists of arrays. It holds no tuples and no other objects, because
JSON has none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from distrain.errors import CheckpointError

_PREFIX = "callbacks"
_CONTAINERS = (list, tuple, dict, set)


@dataclass(frozen=True)
class Attribute:
    """The value of one attribute, detached from its callback.

    Attributes:
        kind: "json", "array" or "arrays" (a list of arrays); "other" for what a checkpoint cannot hold.
        text: the value as JSON, or for "other" something that differs once the value differs.
        arrays: the arrays.
        held: for "other", the objects behind `text`. While they live, no other object takes their addresses.
    """

    kind: str
    text: str = ""
    arrays: tuple[np.ndarray, ...] = ()
    held: Any = None

    def is_same(self, other: Attribute) -> bool:
        """Return whether both hold one value."""
        return (
            (self.kind, self.text, len(self.arrays)) == (other.kind, other.text, len(other.arrays))
            and all(a.dtype == b.dtype and a.shape == b.shape for a, b in zip(self.arrays, other.arrays, strict=True))
            and all(a.tobytes() == b.tobytes() for a, b in zip(self.arrays, other.arrays, strict=True))
        )


def attributes_of(callback: Any) -> dict[str, Attribute]:
    """Return copies of a callback's attributes, by name."""
    # Keras flips the sign of `min_delta` whenever it looks up `monitor_op`, and a resumed process looks that up again.
    skipped = {"_model", "model", *(["min_delta", "monitor_op"] if hasattr(callback, "monitor_op") else [])}
    return {name: _attribute(value) for name, value in vars(callback).items() if name not in skipped}


def changed(baseline: Mapping[str, Attribute], now: Mapping[str, Attribute]) -> dict[str, Attribute]:
    """Return the attributes of `now` whose values differ from `baseline`."""
    return {name: one for name, one in now.items() if name not in baseline or not one.is_same(baseline[name])}


def restore(callback: Any, attributes: Mapping[str, Attribute]) -> list[str]:
    """Set attributes of a callback; return the names of those that the checkpoint could not hold.

    Raises:
        CheckpointError: the attributes do not fit the callback.
    """
    for name, one in attributes.items():
        is_part_of_class = name.startswith("__") or callable(getattr(type(callback), name, None))
        if is_part_of_class or (one.kind == "array" and not one.arrays):
            raise CheckpointError(
                f"The checkpoint holds a state of {type(callback).__name__} that is forged or damaged: {name!r}."
            )
        if one.kind == "json":
            setattr(callback, name, json.loads(one.text))
        elif one.kind == "array":
            setattr(callback, name, one.arrays[0].copy()[()])
        elif one.kind == "arrays":
            setattr(callback, name, [array.copy() for array in one.arrays])
    return sorted(name for name, one in attributes.items() if one.kind == "other")


def packed(states: Mapping[str, Mapping[str, Attribute]]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return states of callbacks as JSON values and arrays of a checkpoint."""
    arrays = {
        f"{_PREFIX}/{callback}/{name}/{number:04d}": array
        for callback, attributes in states.items()
        for name, one in attributes.items()
        for number, array in enumerate(one.arrays)
    }
    values = {
        callback: {
            name: {"kind": one.kind, **({"value": json.loads(one.text)} if one.kind == "json" else {})}
            for name, one in attributes.items()
        }
        for callback, attributes in states.items()
    }
    return values, arrays


def unpacked(values: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, Attribute]]:
    """Return the states of callbacks that `packed` packed."""

    def attribute(prefix: str, stored: Mapping[str, Any]) -> Attribute:
        own = tuple(arrays[name] for name in sorted(arrays) if name.startswith(f"{prefix}/"))
        return Attribute(stored["kind"], json.dumps(stored.get("value")) if stored["kind"] == "json" else "", own)

    return {
        callback: {name: attribute(f"{_PREFIX}/{callback}/{name}", stored) for name, stored in attributes.items()}
        for callback, attributes in values.items()
    }


def _attribute(value: Any) -> Attribute:
    if _is_json(value):
        return Attribute("json", json.dumps(value))
    if _is_array(value):
        return Attribute("array", arrays=(_copied(value),))
    if type(value) is list and value and all(map(_is_array, value)):
        return Attribute("arrays", arrays=tuple(map(_copied, value)))
    text = repr(value) if isinstance(value, _CONTAINERS) else f"{type(value)} {id(value)}"
    return Attribute("other", text, held=_objects_in(value))


def _objects_in(value: Any) -> Any:
    """Return a list of lists of what containers hold now; anything else is itself."""
    if not isinstance(value, _CONTAINERS):
        return value
    return [_objects_in(each) for each in (value.items() if isinstance(value, dict) else value)]


def _is_json(value: Any) -> bool:
    if type(value) is list:
        return all(map(_is_json, value))
    if type(value) is dict:
        return all(type(key) is str and _is_json(item) for key, item in value.items())
    return value is None or type(value) in (bool, int, float, str)


def _is_array(value: Any) -> bool:
    is_bfloat16 = getattr(value, "dtype", None) is not None and str(value.dtype) == "bfloat16"
    return isinstance(value, np.ndarray | np.generic) and (value.dtype.kind in "biuf" or is_bfloat16)


def _copied(value: Any) -> np.ndarray:
    array = np.array(value)
    return array.astype(np.float32) if array.dtype.kind == "V" else array  # as `ModelState.arrays` stores weights
