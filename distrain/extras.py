"""Packages that only some users need: the extras of pyproject.toml.

Decides: the message where one is missing, and the command that installs an extra. Never: installs anything.

    >>> install_command("cpu", "mpi")
    "pip install 'distrain[cpu,mpi]'"
    >>> require_extra("numpy", extra="parquet", what="Reading a.parquet")  # nothing to say: it is installed
    >>> require_extra("no_such_module", package="nowhere", extra="parquet", what="Reading a.parquet")
    Traceback (most recent call last):
    distrain.errors.ConfigurationError: Reading a.parquet needs nowhere, which is not installed. Install it with: \
pip install 'distrain[parquet]'
"""

from __future__ import annotations

import importlib

from distrain.errors import ConfigurationError


def install_command(*extras: str) -> str:
    """Return the command that adds extras to an installed distrain.

    pip finds distrain itself installed, so it takes the packages of the extra from the package index and distrain
    from nowhere. A first installation is made in a checkout, by `pip install '.[...]'`.
    """
    return f"pip install 'distrain[{','.join(extras)}]'"


def require_extra(module: str, *, extra: str, what: str, package: str = "") -> None:
    """Import a module of an extra, or say how to install its package.

    Args:
        module: name of the module.
        extra: name of the extra in pyproject.toml.
        what: what needs the module, such as "Reading data.h5".
        package: name under which pip knows the module; default: the module's name.

    Raises:
        ConfigurationError: the module is not installed.
    """
    try:
        importlib.import_module(module)
    except ImportError:
        raise ConfigurationError(
            f"{what} needs {package or module}, which is not installed. Install it with: {install_command(extra)}"
        ) from None
