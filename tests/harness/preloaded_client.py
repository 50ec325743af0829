"""Stands for a process that preloaded_server.py forks: python -S -E preloaded_client.py SOCKET ARGUMENT...

Decides: which signals go on to the forked process. Never: what the process does. Ends as the forked process ends. When
this process is killed, the server kills the forked process.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import sys

FORWARDED = {"SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGALRM", "SIGCONT", "SIGWINCH"}


def main(path: str, *arguments: str) -> int:
    """Let the server fork a process, forward signals to it, and return its exit code."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        os.umask(umask := os.umask(0o077))
        request = {
            "arguments": arguments,
            "environment": dict(os.environ),
            "folder": os.getcwd(),  # noqa: PTH109 - pathlib costs a tenth of the start
            "umask": umask,
            "processors": list(os.sched_getaffinity(0)),
        }
        socket.send_fds(server, [b" "], [0, 1, 2])
        server.sendall(json.dumps(request).encode() + b"\n")
        replies = server.makefile("rb")
        pid = int(replies.readline())

        def forward(number: int, _: object) -> None:
            with contextlib.suppress(ProcessLookupError):  # it has ended, and its exit code is under way
                os.kill(pid, number)

        for name in FORWARDED:
            if signal.getsignal(number := signal.Signals[name]) != signal.SIG_IGN:
                signal.signal(number, forward)
        return int(replies.readline())


if __name__ == "__main__":
    code = main(*sys.argv[1:])
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)
