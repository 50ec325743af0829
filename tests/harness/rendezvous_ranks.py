"""Ranks for the tests of the rendezvous: environments, programs that join, and stores at the port."""

from __future__ import annotations

import http.client
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from preloaded import preloaded_python

from distrain.cluster.rendezvous import rendezvous
from distrain.cluster.world import find_world
from distrain.errors import ConfigurationError, RankError

ROOT = Path(__file__).parents[2]
HOROVODRUN = Path(sys.executable).parent / "horovodrun"
SECONDS = 120  # limit of each process of a test

# Joins the rendezvous, prints the variables that Horovod's core reads, and exits.
JOIN = """
import json, os, sys
from distrain.cluster.rendezvous import rendezvous
from distrain.errors import DistrainError
from distrain.cluster.world import find_world
try:
    with rendezvous(find_world(os.environ), os.environ):
        variables = {name: value for name, value in os.environ.items() if name.startswith("HOROVOD_")}
    print(json.dumps(variables))
except DistrainError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""
# Joins by Horovod's core itself, and sums 2 to the power of each rank.
REDUCE = """
import os, sys
import horovod.tensorflow as hvd
import numpy as np
from distrain.cluster.rendezvous import rendezvous
from distrain.cluster.world import find_world
world = find_world(os.environ)
with rendezvous(world, os.environ):
    hvd.init()
total = hvd.allreduce(np.full(3, 2.0**world.rank, np.float32), op=hvd.Sum, name="total").numpy().tolist()
sys.stdout.write(f"{hvd.rank()} {hvd.size()} {hvd.local_rank()} {hvd.local_size()} {total}\\n")
hvd.shutdown()
"""


def clean_environment():
    launchers = ("HOROVOD_", "OMPI_", "PMI_", "PMIX_", "MPI_", "SLURM_", "DISTRAIN_", "JOB_COMPLETION_INDEX")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(launchers)}
    return {**kept, "DISTRAIN_RENDEZVOUS_SECONDS": "30", "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}


def task(rank, size, port, **more):
    """Return the environment of one task of `srun -n SIZE` on one host."""
    numbers = {"SLURM_PROCID": rank, "SLURM_LOCALID": rank, "SLURM_NODEID": 0, "SLURM_STEP_NUM_TASKS": size}
    names = {"SLURM_JOB_ID": 7, "SLURM_STEP_ID": 0, "SLURM_STEP_NODELIST": "n1", "SLURM_STEP_TASKS_PER_NODE": size}
    rendezvous = {"DISTRAIN_RENDEZVOUS": f"127.0.0.1:{port}"}
    return {name: str(value) for name, value in {**numbers, **names, **rendezvous, **more}.items()}


def pod(index, num_pods, port, **more):
    """Return the environment of one pod of an Indexed Job."""
    numbers = {"JOB_COMPLETION_INDEX": index, "DISTRAIN_NUM_PODS": num_pods, "HOROVOD_HOSTNAME": f"pod-{index}"}
    rendezvous = {"DISTRAIN_RENDEZVOUS": f"127.0.0.1:{port}"}
    return {name: str(value) for name, value in {**numbers, **rendezvous, **more}.items()}


def by_hand(rank, size, port, **more):
    """Return the environment that `horovodrun --gloo` sets for one process."""
    numbers = {"HOROVOD_RANK": rank, "HOROVOD_SIZE": size, "HOROVOD_LOCAL_RANK": rank, "HOROVOD_LOCAL_SIZE": size}
    rendezvous = {"HOROVOD_GLOO_RENDEZVOUS_ADDR": "127.0.0.1", "HOROVOD_GLOO_RENDEZVOUS_PORT": port}
    return {name: str(value) for name, value in {**numbers, **rendezvous, **more}.items()}


@contextmanager
def starting():
    """Yield `start(program, environ)`, which starts a process; the end of the context kills all processes.

    A program that imports Horovod, and with it TensorFlow, is forked after these imports.
    """
    started = []

    def begin(program, environ):
        python = preloaded_python() if "import horovod" in program else [sys.executable]
        process = subprocess.Popen(
            [*python, "-c", program],
            env={**clean_environment(), **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    try:
        yield begin
    finally:
        for process in started:
            process.kill()
            process.communicate()


def ended(process):
    """Wait until a process ends by itself; return exit code, standard output and standard error."""
    out, err = process.communicate(timeout=SECONDS)
    return process.returncode, out, err


def wait_for_listener(port):
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError(f"nothing listens on port {port}")


def get(port, path):
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        connection.request("GET", path)
        response = connection.getresponse()
        content = response.read()
        return content if response.status == 200 else None


def wait_for_claim(port, rank, scope="distrain-7-0"):
    wait_for_listener(port)
    until = time.monotonic() + SECONDS
    while get(port, f"/{scope}/{rank}") is None:
        assert time.monotonic() < until
        time.sleep(0.02)


@contextmanager
def horovods_own_server():
    """Run the server of `horovodrun --gloo`; yield its port and its values."""
    http_server = pytest.importorskip("horovod.runner.http.http_server")
    server = http_server.RendezvousHTTPServer(("127.0.0.1", 0), http_server.RendezvousHandler, 0)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield server.server_address[1], server.cache
    finally:
        server.shutdown()
        server.server_close()


def all_join(environs):
    """Join all ranks, each in a thread; return for each the variables that Horovod's core reads, or the error."""

    def join(environ):
        environ.setdefault("DISTRAIN_RENDEZVOUS_SECONDS", "30")
        try:
            with rendezvous(find_world(environ), environ):
                return dict(environ)
        except (RankError, ConfigurationError) as error:
            return error

    with ThreadPoolExecutor(len(environs)) as pool:
        return list(pool.map(join, environs))
