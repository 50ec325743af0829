"""Finds a C++ compiler and a C compiler that work.

Decides: which compilers are tried. Never: installs a compiler.

    $ python -m distrain.install.compilers        # silent if there are two; else a sentence, exit code 2

This module serves before anything is installed: it needs Python's own library alone.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence

from distrain.errors import ConfigurationError

SECONDS = 60.0


def find_compilers(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the commands of both compilers as the variables CXX and CC. Variables that are set decide.

    Raises:
        ConfigurationError: no compiler works.
    """
    cxx = [environ["CXX"]] if environ.get("CXX") else ["c++", "g++", "clang++"]
    cc = [environ["CC"]] if environ.get("CC") else ["cc", "gcc", "clang"]
    found = {"CXX": _first(cxx, ["-std=c++17", "-fsyntax-only", "-x", "c++", "-"], "#include <optional>\n", environ)}
    if not found["CXX"]:
        raise ConfigurationError(
            f"no C++ compiler was found that knows C++17 (tried: {' '.join(cxx)}), and Horovod comes as source. "
            "Install a compiler (on Debian and Ubuntu: sudo apt-get install g++; on Fedora and RHEL: sudo dnf install "
            "gcc-c++), or name it: CXX=/path/to/g++. Without Horovod, --strategy mpi runs on many processes too."
        )
    found["CC"] = _first(cc, ["-fsyntax-only", "-x", "c", "-"], "#include <stdio.h>\n", environ)
    if not found["CC"]:
        raise ConfigurationError(
            f"no C compiler was found (tried: {' '.join(cc)}); Horovod needs {found['CXX']} and a C compiler. Install "
            "gcc, or name a compiler: CC=/path/to/gcc."
        )
    return found


def _first(compilers: Sequence[str], options: Sequence[str], program: str, environ: Mapping[str, str]) -> str:
    for compiler in compilers:  # CXX and CC may hold several words, as for CMake
        try:
            done = subprocess.run(
                [*shlex.split(compiler), *options],
                input=program,
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
                env=dict(environ),
            )
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return compiler
    return ""


if __name__ == "__main__":
    try:
        find_compilers(os.environ)
    except ConfigurationError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
