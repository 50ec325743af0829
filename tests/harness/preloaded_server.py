"""Imports TensorFlow, Keras and distrain once, then forks for each client.

$ python -P preloaded_server.py DESCRIPTOR

Decides: modules that are imported beforehand, and properties that a fork takes from its client. Never: starts a
thread or TensorFlow's runtime before a fork.

A client in other namespaces, as in a pod, gets a process in these namespaces, with its root and user.

The descriptor is of a socket that listens. The server ends at the end of standard input.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import importlib.util
import json
import os
import runpy
import selectors
import signal
import socket
import struct
import sys
import threading
import types
from pathlib import Path
from typing import Any, NamedTuple

import numba
import numpy as np

from distrain.reporting.html.svg import Series, line_chart

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38  # prctl(2)
MODULES = [
    *("keras", "tensorflow", "scipy.sparse", "safetensors.numpy", "jinja2", "_cffi_backend", "encodings.ascii"),
    *("distrain.cli.main", "distrain.prepare.pipeline", "distrain.inference.evaluate", "distrain.training.run"),
    *(
        "distrain.training.steps.step",
        "distrain.training.steps.task",
        "distrain.training.process_end",
        "distrain.models.build",
    ),
    *("distrain.models.ngram_mlp", "distrain.models.sepcnn", "distrain.distribution", "distrain.reporting.html"),
    *("distrain.cluster.failure_detector", "distrain.cluster.network", "distrain.cluster.trusted_connections"),
]
if importlib.util.find_spec("horovod"):
    MODULES.append("horovod.tensorflow")


def import_all() -> None:
    """Import what commands of distrain import sooner or later, also the lazy parts of Numba and matplotlib."""
    for name in MODULES:  # without mpi4py.MPI, whose import starts MPI
        importlib.import_module(name)
    numba.njit(lambda number: number + 1)(1)
    line_chart([Series([1, 2], [1, 2], colour="red")])
    gc.collect()
    gc.freeze()  # a forked process neither walks nor copies what the server imported
    gc.set_threshold(20_000, 20, 20)  # a traced graph makes many objects and little garbage: 5% of the time


class Client(NamedTuple):
    """A client and the process forked for it."""

    connection: socket.socket
    pid: int
    pidfd: int


def serve(descriptor: int) -> dict[str, Any]:
    """Fork for each client; return in each forked process, with what its client asked for."""
    with selectors.DefaultSelector() as selector, socket.socket(fileno=descriptor) as listener:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(sys.stdin.buffer.raw, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if isinstance(key.data, Client) and key.data.connection.fileno() == -1:
                    continue  # its process ended in the same round
                if key.fileobj is sys.stdin.buffer.raw:
                    for other in selector.get_map().values():
                        if isinstance(other.data, Client):
                            _kill(other.data)
                    sys.exit()
                if key.fileobj is listener:
                    request = _accepted(listener, selector)
                    if request is not None:
                        _close_clients(selector)
                        return request
                elif key.fileobj is key.data.connection:  # the client is gone
                    selector.unregister(key.data.connection)
                    _kill(key.data)
                else:
                    _report(key.data, selector)


def _accepted(listener: socket.socket, selector: selectors.BaseSelector) -> dict[str, Any] | None:
    """Fork for the next client; return its request in the forked process, nothing in the server."""
    connection, _ = listener.accept()
    _, streams, _, _ = socket.recv_fds(connection, 1, 3)
    try:
        with connection.makefile("rb") as lines:
            request: dict[str, Any] = json.loads(lines.readline() or "null")
        pid = os.fork() if request else -1
        if pid == 0:
            _join(connection)
            for standard, stream in enumerate(streams):
                os.dup2(stream, standard)
            with contextlib.suppress(BrokenPipeError):
                connection.sendall(b"%d\n" % os.getpid())
            connection.close()
            return request
    finally:
        for stream in streams:
            os.close(stream)
    if pid == -1:  # the client was killed before it had asked
        connection.close()
        return None
    client = Client(connection, pid, os.pidfd_open(pid))
    selector.register(connection, selectors.EVENT_READ, client)
    selector.register(client.pidfd, selectors.EVENT_READ, client)
    return None


def _join(connection: socket.socket) -> None:
    """Enter the namespaces, the root and the user of a client, which differ if the client is in a pod."""
    pid, user, group = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    others = [
        os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY)
        for kind in ("net", "uts", "ipc", "pid", "mnt")
        if Path(f"/proc/{pid}/ns/{kind}").readlink() != Path(f"/proc/self/ns/{kind}").readlink()
    ]
    if not others:
        return
    root = os.open(f"/proc/{pid}/root", os.O_RDONLY)
    libc = ctypes.CDLL(None, use_errno=True)
    for namespace in others:
        assert libc.setns(namespace, 0) == 0, os.strerror(ctypes.get_errno())
        os.close(namespace)
    os.fchdir(root)
    os.chroot(".")
    os.close(root)
    if child := os.fork():  # a process cannot enter a namespace of process ids, but its children are there
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with contextlib.suppress(BrokenPipeError):
            connection.sendall(b"%d\n" % code)
        os._exit(0)
    if user != os.geteuid():
        os.setgroups([])
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)
        libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # the server kills the parent


def _kill(client: Client) -> None:
    for kill in (os.killpg, os.kill):  # the group of the process, if `become` has made it already
        with contextlib.suppress(ProcessLookupError):
            kill(client.pid, signal.SIGKILL)


def _report(client: Client, selector: selectors.BaseSelector) -> None:
    """Tell a client how its process ended."""
    code = os.waitstatus_to_exitcode(os.waitpid(client.pid, 0)[1])
    with contextlib.suppress(BrokenPipeError):
        client.connection.sendall(b"%d\n" % code)
    selector.unregister(client.pidfd)
    os.close(client.pidfd)
    with contextlib.suppress(KeyError):  # the client is gone
        selector.unregister(client.connection)
    client.connection.close()


def _close_clients(selector: selectors.BaseSelector) -> None:
    for key in list(selector.get_map().values()):
        if isinstance(key.data, Client):
            (os.close(key.fileobj) if isinstance(key.fileobj, int) else key.data.connection.close())


def become(request: dict[str, Any]) -> None:
    """Take the client's place: session, folder, variables, processors, and streams as Python opens them."""
    os.setsid()
    os.chdir(request["folder"])
    os.umask(request["umask"])
    os.sched_setaffinity(0, request["processors"])
    os.environ.clear()
    os.environ.update(request["environment"])
    # Of a forked process /proc shows the variables of the server, so marked_processes.py looks at the name.
    if mark := os.environ.get("DISTRAIN_TEST_MARK"):
        Path("/proc/self/comm").write_text(mark[:15])
    is_unbuffered = bool(os.environ.get("PYTHONUNBUFFERED"))
    sys.stdout.reconfigure(line_buffering=os.isatty(1), write_through=is_unbuffered)  # type: ignore[union-attr]
    np.random.seed()  # noqa: NPY002 - else all forked processes would draw the same numbers from the global generator


def run(first: str, *others: str) -> None:
    """Do what Python does with these arguments: -m MODULE, -c CODE or FILE, and further arguments."""
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    paths = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    if first == "-m":
        sys.path[:0] = [str(Path.cwd()), *paths]
        sys.argv = list(others)
        runpy._run_module_as_main(others[0])  # type: ignore[attr-defined]
        return
    if first == "-c":
        sys.path[:0] = ["", *paths]
        sys.argv = ["-c", *others[1:]]
        code, name = others[0], "<string>"
    else:
        assert not first.startswith("-"), f"{first}: options of Python need a process of its own"
        sys.path[:0] = [str(Path(first).resolve().parent), *paths]
        sys.argv = [first, *others]
        name = module.__file__ = first
        code = Path(first).read_text(encoding="utf-8")
    exec(compile(code, name, "exec", dont_inherit=True), module.__dict__)


def leave(code: int) -> None:
    """End this process as Python ends, but free no modules, which would copy all memory that the server shares.

    Returns if standard output cannot be written, for Python to say so.
    """
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
        mpi = getattr(sys.modules.get("mpi4py"), "MPI", None)
        if mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized():
            mpi.Finalize()
        os._exit(code)


if __name__ == "__main__":
    import_all()
    asked = serve(int(sys.argv[1]))
    become(asked)
    try:
        run(*asked["arguments"])
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            leave((end.code or 0) & 0xFF)
        raise
    leave(0)
