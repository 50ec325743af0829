"""Digests of the functions and methods that a user wrote for a model.

Decides: which code belongs to a model, and what changes its digest. Never: stores or compares digests.

    code_of(model)       # {"Tower.call": "9f2c...", "own_loss": "03ab..."}

A digest covers bytecode, constants, default values and captured values. It ignores comments and line numbers.
Bytecode depends on Python's version, so digests of two versions do not compare.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from types import CodeType, FunctionType
from typing import Any

from distrain.keras_backend.private_names import all_layers, compile_arguments

_NOT_OF_THE_USER = ("keras", "tensorflow", "distrain", "builtins")


def code_of(model: Any) -> dict[str, str]:
    """Return a digest of each function that a user wrote for a model, its layers or its `compile`, by name."""
    import keras

    arguments = compile_arguments(model)
    named = [arguments.get(name) for name in ("loss", "metrics", "weighted_metrics")]
    parts = [model, *all_layers(model), model.optimizer, *keras.tree.flatten(named)]
    digests: dict[str, list[str]] = {}
    for part in parts:
        for name, function in _functions_of(part):
            digests.setdefault(name, []).append(hashlib.sha256("\n".join(_described(function)).encode()).hexdigest())
    return {name: " ".join(sorted(set(found))) for name, found in sorted(digests.items())}


def _functions_of(part: Any) -> Iterator[tuple[str, FunctionType]]:
    """Yield the functions of a layer, loss, metric or optimizer that are no part of a package, with their names."""
    part = part.func if isinstance(part, partial) else part
    if isinstance(part, FunctionType):
        if _is_of_user(part):
            yield part.__qualname__, part
        return
    for kind in type(part).__mro__:
        for value in vars(kind).values() if _is_of_user(kind) else ():
            value = getattr(value, "fget", None) or getattr(value, "__func__", value)  # a property, a class method
            if isinstance(value, FunctionType):
                yield value.__qualname__, value
    for held in ("function", "fn", "_fn"):  # of a Lambda layer, a loss or a metric
        if isinstance(value := getattr(part, held, None), FunctionType) and _is_of_user(value):
            yield value.__qualname__, value


def _is_of_user(thing: Any) -> bool:
    return str(thing.__module__).split(".")[0] not in _NOT_OF_THE_USER


def _described(value: Any, depth: int = 0) -> Iterator[str]:
    """Yield what a function computes with, as text that is equal in each process."""
    if depth > 5:  # a function may capture itself
        return
    if isinstance(value, FunctionType):
        yield from _described(value.__code__, depth + 1)
        captured = [cell.cell_contents for cell in value.__closure__ or () if cell != type(cell)()]
        for each in (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values(), *captured):
            yield from _described(each, depth + 1)
    elif isinstance(value, CodeType):
        yield f"{value.co_code.hex()} {value.co_names} {value.co_varnames} {value.co_freevars}"
        yield from _described(value.co_consts, depth)
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _described(each, depth + 1)
    elif isinstance(value, frozenset | set):
        yield from sorted(map(repr, value))
    elif value is None or value is Ellipsis or isinstance(value, bool | int | float | complex | str | bytes):
        yield repr(value)
    else:
        yield type(value).__qualname__
