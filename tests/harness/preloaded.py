"""Python that has imported TensorFlow, Keras and distrain: processes forked from one server, which imported all once.

subprocess.run([*preloaded_python(), "-m", "distrain", "train", ...])     # starts in 0.1 s in place of 4 s

Decides: where the server listens, how long it lives. Never: what a forked process does (preloaded_server.py).

A forked process has the arguments, variables, folder, processors and standard streams of the command. Its exit code is
the command's, and a signal to the command reaches it. It has the hash seed of its server and cannot have options of
Python. Tests of start-up, of imports, of memory and of processes that lose their parents use `sys.executable`.
Where there is a C compiler, forked processes rest while they wait for another rank (resting_yield.c).
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

_HERE = Path(__file__).parent


@cache
def preloaded_python() -> list[str]:
    """Return the words that stand in place of `sys.executable`; the first call starts this test process' server."""
    folder = tempfile.mkdtemp(prefix="preloaded-")  # the path of a socket has at most 107 characters
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if shutil.which("cc"):
        environment["LD_PRELOAD"] = library = f"{folder}/resting_yield.so"
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, _HERE / "resting_yield.c"], check=True)
    server = subprocess.Popen(
        [sys.executable, "-P", str(_HERE / "preloaded_server.py"), f"{folder}/socket"],
        env={**environment, "TF_CPP_MIN_LOG_LEVEL": "3"},
        stdin=subprocess.PIPE,  # its end, at the latest when this process is gone, ends the server
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert server.stdin is not None
    assert server.stdout is not None
    assert server.stdout.readline() == b"listening\n"
    server.stdout.close()

    def end() -> None:
        server.stdin.close()
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    return [sys.executable, "-S", "-E", str(_HERE / "preloaded_client.py"), f"{folder}/socket"]
