"""What a model consists of and how it is compiled, as JSON values that two builds of one model share.

Decides: which differences between two models count. Never: stores a description.

    now = describe(model)                               # before training moves the learning rate
    difference(before, now)                             # "optimizer.learning_rate = 0.01, not 0.001", or None

Keras numbers the names of layers as a process makes them, so names count up to their number. The code of a lambda
counts by its digest, because the bytes that Keras saves change with the lines around it.
"""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Callable, Iterator
from typing import Any

from distrain.models.code import code_of

_HOW_FAST = ("jit_compile", "run_eagerly", "steps_per_execution")  # none of these changes what is trained
_NUMBERS_OF_THE_PROCESS = ("shared_object_id", "build_config")
MAX_SHOWN = 80  # characters of a value in a message


def describe(model: Any) -> dict[str, Any]:
    """Return the layers of a compiled model, its optimizer, and its other arguments of `compile`."""
    compiled = _config_of(model.get_compile_config)
    optimizer = model.optimizer
    described = {
        "model": _layers(model),
        "optimizer": {"class": type(optimizer).__name__, **_config_of(optimizer.get_config)},
        "compile": {name: value for name, value in compiled.items() if name not in ("optimizer", *_HOW_FAST)},
    }
    plain = json.loads(json.dumps(described, default=_plain, skipkeys=True))
    code = {"python": platform.python_version().rpartition(".")[0], "code": code_of(model)}
    return _canonical(plain, _renumbered(_names(plain))) | code


def difference(before: dict[str, Any], now: dict[str, Any]) -> str | None:
    """Return the first difference of two descriptions, as in "optimizer.learning_rate = 0.01, not 0.001", or None."""
    ignored = ("python",) if before.get("python") == now["python"] else ("python", "code")
    before, now = ({key: value for key, value in one.items() if key not in ignored} for one in (before, now))
    return _difference(before, now, "")


def _difference(before: Any, now: Any, path: str) -> str | None:
    if isinstance(before, dict) and isinstance(now, dict):
        keys = [*before, *(key for key in now if key not in before)]
        pairs = [(f"{path}.{key}" if path else key, before.get(key), now.get(key)) for key in keys]
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = [(f"{path}[{number}]", *pair) for number, pair in enumerate(zip(before, now, strict=True))]
    elif before == now:
        return None
    elif path.startswith("code."):
        return f"other code in {path.removeprefix('code.')}"
    else:
        return f"{path} = {_shown(before)}, not {_shown(now)}"
    return next((found for name, old, new in pairs if (found := _difference(old, new, name))), None)


def _layers(model: Any) -> Any:
    config = _config_of(model.get_config)
    if "layers" in config:
        return config
    layers = [_layers(layer) if getattr(layer, "layers", None) else _layer(layer) for layer in model.layers]
    return {"class": type(model).__name__, "config": config, "layers": layers}


def _layer(layer: Any) -> dict[str, Any]:
    return {"class": type(layer).__name__, "config": _config_of(layer.get_config)}


def _config_of(get_config: Callable[[], Any]) -> dict[str, Any]:
    try:
        return dict(get_config() or {})
    except Exception:  # a class of the user's own may not be able to name its arguments; its weights' shapes count
        return {}


def _plain(value: Any) -> str:
    name = getattr(value, "__qualname__", None) or getattr(value, "name", None) or type(value).__qualname__
    return f"{type(value).__name__} {name}"


def _names(plain: Any) -> Iterator[str]:
    """Yield the values of all entries "name", in order."""
    if isinstance(plain, dict):
        if isinstance(plain.get("name"), str):
            yield plain["name"]
        for value in plain.values():
            yield from _names(value)
    elif isinstance(plain, list):
        for value in plain:
            yield from _names(value)


def _renumbered(names: Iterator[str]) -> dict[str, str]:
    """Return new names by name: "dense_7", "dense_9" -> "dense", "dense_1"."""
    counts: dict[str, int] = {}
    numbered = {}
    for name in dict.fromkeys(names):
        base = re.sub(r"_\d+$", "", name)
        counts[base] = counts.get(base, 0) + 1
        numbered[name] = base if counts[base] == 1 else f"{base}_{counts[base] - 1}"
    return numbered


def _canonical(plain: Any, names: dict[str, str]) -> Any:
    if isinstance(plain, dict):
        if plain.get("class_name") == "__lambda__":
            return {"class_name": "__lambda__"}
        kept = {key: value for key, value in plain.items() if key not in _NUMBERS_OF_THE_PROCESS}
        return {names.get(key, key): _canonical(value, names) for key, value in kept.items()}
    if isinstance(plain, list):
        return [_canonical(value, names) for value in plain]
    if isinstance(plain, str):
        return names.get(plain, re.sub(r" at 0x[0-9a-f]+", "", plain))
    return plain


def _shown(value: Any) -> str:
    text = f"{value:.7g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 3]}..."
