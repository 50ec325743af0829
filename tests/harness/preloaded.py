"""Python that has imported TensorFlow, Keras and distrain: processes forked from one server, which imported all once.

subprocess.run([*preloaded_python(), "-m", "distrain", "train", ...])     # starts in 0.1 s in place of 4 s

Decides: where the server listens, how long it lives. Never: what a forked process does (preloaded_server.py).

The test processes of `launch/test.sh` share the server of the process that starts them (tests/conftest.py).

A forked process has the arguments, variables, folder, processors and standard streams of the command. Its exit code is
the command's, and a signal to the command reaches it. It has the hash seed of its server and cannot have options of
Python. Tests of start-up, of imports, of memory and of processes that lose their parents use `sys.executable`.
Where there is a C compiler, forked processes rest while they wait for another rank (resting_yield.c).
"""

from __future__ import annotations

import atexit
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

_HERE = Path(__file__).parent
_SHARED = "PRELOADED_SERVER"  # variable with the socket of the server that test processes share


@cache
def preloaded_python() -> list[str]:
    """Return the words that stand in place of `sys.executable`; the first call starts a server if none is shared."""
    path = os.environ.get(_SHARED) or _start_server()
    return [sys.executable, "-S", "-E", str(_HERE / "preloaded_client.py"), path]


def share_server() -> None:
    """Start the server of this process and of the test processes that it starts; it lives as long as this process."""
    os.environ[_SHARED] = _start_server()


def open_server(user: int) -> Path:
    """Return the folder of the server's socket, which now forks processes for this user too, with the user's rights."""
    path = Path(preloaded_python()[-1])
    path.parent.chmod(0o711)
    os.chown(path, user, -1)
    return path.parent


def _start_server() -> str:
    """Start a server, and return the socket at which it listens already, although it imports for some seconds."""
    folder = Path(tempfile.mkdtemp(prefix="preloaded-"))  # the path of a socket has at most 107 characters
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    if shutil.which("cc"):
        environment["LD_PRELOAD"] = library = str(folder / "resting_yield.so")
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, _HERE / "resting_yield.c"], check=True)
    with socket.socket(socket.AF_UNIX) as listener, (folder / "notes").open("wb") as notes:
        listener.bind(path := str(folder / "socket"))
        listener.listen(64)
        server = subprocess.Popen(
            [sys.executable, "-P", str(_HERE / "preloaded_server.py"), str(listener.fileno())],
            env={**environment, "TF_CPP_MIN_LOG_LEVEL": "3"},
            stdin=subprocess.PIPE,  # its end, at the latest when this process is gone, ends the server
            stderr=notes,
            pass_fds=[listener.fileno()],
            start_new_session=True,
        )
    stdin = server.stdin
    assert stdin is not None

    def end() -> None:
        stdin.close()
        if server.wait():
            print((folder / "notes").read_text(), file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    return path
