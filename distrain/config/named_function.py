"""Functions of a user's own that a setting names, as package.module:function.

Decides: where distrain looks for a function, and how a refusal reads. Never: whether a function may run: callers ask.

    build = find_function("models:build_model", "--model")
    data = call_function("shop:data", "--data")

Modules in the current folder are found too.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distrain.errors import ConfigurationError, DistrainError, cause

FUNCTION_NAME = r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*"
FUNCTION_RULE = "package.module:function"


def find_function(name: str, option: str = "--model") -> Callable[..., Any]:
    """Return the function that "package.module:function" names.

    Args:
        name: module and function.
        option: option that names the function, for messages.

    Raises:
        ConfigurationError: the module or the function does not exist, or the module fails while it is imported.
    """
    module_name, _, function_name = name.partition(":")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except DistrainError:
        raise
    except ModuleNotFoundError as error:
        raise ConfigurationError(f"{option} {name} cannot be found: {error}. {_way_on(module_name)}.") from None
    except (Exception, SystemExit) as error:
        raise ConfigurationError(f"{option} {name}: the module fails while it is imported: {cause(error)}.") from error
    function = getattr(module, function_name, None)
    if function is None:
        raise ConfigurationError(f"{option} {name} cannot be found: {module_name} has no {function_name!r}.")
    if not callable(function):
        raise ConfigurationError(f"{option} {name} is not a function.")
    return function


def call_function(name: str, option: str) -> Any:
    """Return what a function without arguments returns; see `find_function`.

    Raises:
        ConfigurationError: the function cannot be found, takes arguments, or fails.
    """
    function = find_function(name, option)
    if _needs_arguments(function):
        raise ConfigurationError(f"{option} {name} takes arguments, but it is called with none; give each a default.")
    try:
        return function()
    except DistrainError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigurationError(f"{option} {name} fails: {cause(error)}.") from error


def _needs_arguments(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind()
    except TypeError:
        return True
    except ValueError:  # a function in C may hide its arguments
        return False
    return False


def _way_on(module_name: str) -> str:
    if module_name.endswith(".py"):
        return f"Name the module without .py: {module_name.removesuffix('.py')}:function"
    return f"Name it as {FUNCTION_RULE}, and start in the folder that holds the module"
