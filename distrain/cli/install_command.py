"""The command `distrain install-horovod`: builds Horovod into the environment that runs distrain.

Decides: its options. Never: builds anything itself.

    $ distrain install-horovod --gpu
"""

from __future__ import annotations

import argparse
from typing import Any


def add_install_horovod(commands: Any) -> None:
    """Add `distrain install-horovod`."""
    command = commands.add_parser(
        "install-horovod",
        help="build Horovod for the TensorFlow of this environment",
        description="Builds Horovod 0.28.1 for the TensorFlow of this environment, installs it here, and tries it with "
        "two processes. A C++ compiler must be there; the Python package index has everything else. The wheel stays in "
        "~/.cache/distrain/horovod, or below $XDG_CACHE_HOME. Default: the kind that is installed; else --gpu if there "
        "are a GPU and TensorFlow's build for GPUs; else --cpu.",
    )
    kinds = command.add_mutually_exclusive_group()
    kinds.add_argument("--cpu", dest="kind", action="store_const", const="cpu", help="build with Gloo and MPI")
    kinds.add_argument(
        "--gpu",
        dest="kind",
        action="store_const",
        const="gpu",
        help="build with NCCL too, on the CUDA runtime that TensorFlow brings; needs no CUDA and no nvcc",
    )
    command.set_defaults(command=_install)


def _install(options: argparse.Namespace) -> None:
    from distrain.install.horovod import install_horovod

    install_horovod(options.kind)
