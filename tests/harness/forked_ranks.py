"""Turns a Python that starts `distrain train` into a client of the server of imports, in pods of tests.

A file .pth of the pod's environment calls `main` in every Python of a pod, before its command runs (pod_root.py).
Decides: which commands become clients. Never: starts a server.
"""

import os
import sys

SOCKET = "/run/preloaded/socket"


def main() -> None:
    """Become the client, if this process is `python -m distrain train` or `distrain train`."""
    words = sys.orig_argv[1:]
    if words[:1] and words[0].endswith("/bin/distrain"):
        words = ["-m", "distrain", *words[1:]]
    if words[:3] == ["-m", "distrain", "train"]:
        client = __file__.replace("forked_ranks", "preloaded_client")
        os.execv(sys.executable, [sys.executable, "-S", "-E", client, SOCKET, *words])
