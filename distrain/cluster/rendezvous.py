"""The rendezvous, where the ranks of a Gloo run find each other before Horovod starts.

Decides: which process hosts the store of the rendezvous, and which variables Horovod's core reads. Never: imports
Horovod, or outlives the start.

    with rendezvous(find_world(os.environ), os.environ):
        hvd.init()

Horovod's core finds the other ranks in a store that it reaches by HTTP. Without a store, Horovod's core ends the
process by SIGABRT. A store comes with `horovodrun --gloo`. With srun and in an Indexed Job, rank 0 hosts a store
(`rendezvous_store.py`). Before Horovod starts, each process claims its rank in the store (`rendezvous_claims.py`).

The store has no password, because Horovod's core cannot send one. The store therefore listens on one address, keeps
small values only, and closes as soon as all ranks have joined. Still, keep its port inside the hosts of the job.
"""

from __future__ import annotations

import http.client
import math
import re
import secrets
import socket
import threading
import time
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager, suppress

from distrain.cluster.network import address_towards, ipv4_addresses
from distrain.cluster.rendezvous_claims import Claim, StoreClient, claim_rank, claimed_twice, pause, withdraw
from distrain.cluster.rendezvous_store import Store
from distrain.cluster.world import World
from distrain.errors import ConfigurationError, RankError

DEFAULT_SECONDS = 60.0  # the pods or tasks of a job start within this time; DISTRAIN_RENDEZVOUS_SECONDS changes it


@contextmanager
def rendezvous(world: World, environ: MutableMapping[str, str]) -> Iterator[None]:
    """Wait until all ranks are here. `hvd.init()` succeeds inside the context.

    Does nothing if MPI connects the ranks, or for a single process.

    Args:
        world: this process among all processes of the job.
        environ: environment variables of this process. Inside the context they include the variables that Horovod's
            core reads. DISTRAIN_RENDEZVOUS_SECONDS (60) limits the wait for the rendezvous, and the wait for the ranks.

    Raises:
        ConfigurationError: DISTRAIN_RENDEZVOUS_SECONDS is no number of seconds, or HOROVOD_RANK is set without a
            rendezvous.
        RankError: the rendezvous does not answer, a rank is missing or comes twice, or the worlds of the ranks differ.
    """
    address = _rendezvous_address(world, environ)
    if address is None:
        yield
        return
    seconds = rendezvous_seconds(environ)
    host, port = address
    client = StoreClient(host, port, _scope(world, environ), world.size)
    own_host = environ.get("HOROVOD_HOSTNAME") or socket.gethostname()
    token = secrets.token_hex(16)
    with ExitStack() as at_end:
        deadline = time.monotonic() + seconds
        if world.rendezvous and world.rank == 0:
            at_end.enter_context(_hosted_store(client, world, deadline, seconds))
        at_end.callback(withdraw, client, world, token)
        claims = claim_rank(client, world, own_host, token, deadline, seconds)
        if world.rendezvous:
            at_end.enter_context(_set(environ, _horovod_variables(client, world, claims, environ)))
        yield


def _rendezvous_address(world: World, environ: Mapping[str, str]) -> tuple[str, int] | None:
    if world.size == 1:
        return None
    if world.rendezvous:
        host, _, port = world.rendezvous.rpartition(":")
        return host, int(port)
    if world.launcher != "horovodrun":
        return None
    host, port = environ.get("HOROVOD_GLOO_RENDEZVOUS_ADDR", ""), environ.get("HOROVOD_GLOO_RENDEZVOUS_PORT", "")
    if not host or not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise ConfigurationError(
            f"HOROVOD_RANK={world.rank} and HOROVOD_SIZE={world.size} are set, but HOROVOD_GLOO_RENDEZVOUS_ADDR="
            f"{host[:80]!r} and HOROVOD_GLOO_RENDEZVOUS_PORT={port[:9]!r} are no address of a "
            "rendezvous. Start them by horovodrun or mpirun, or set none of these variables."
        )
    return host, int(port)


def rendezvous_seconds(environ: Mapping[str, str]) -> float:
    """Return DISTRAIN_RENDEZVOUS_SECONDS: how long a rank waits for the rendezvous, and then for the other ranks.

    Raises:
        ConfigurationError: the value is no number of seconds.
    """
    value = environ.get("DISTRAIN_RENDEZVOUS_SECONDS") or str(DEFAULT_SECONDS)
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= 86_400:
        raise ConfigurationError(
            f"DISTRAIN_RENDEZVOUS_SECONDS={value[:40]!r} must be a number of seconds above 0, at most a day."
        )
    return seconds


def _scope(world: World, environ: Mapping[str, str]) -> str:
    """Return a name of the job, so that two jobs on one port do not mix."""
    names = ("SLURM_JOB_ID", "SLURM_STEP_ID") if world.launcher == "srun" else ()
    return "-".join(["distrain", *(re.sub("[^0-9A-Za-z]", "", environ.get(name, "")) for name in names)])


@contextmanager
def _hosted_store(client: StoreClient, world: World, deadline: float, seconds: float) -> Iterator[None]:
    """Serve a store at the address of the rendezvous."""
    with _open_store(client, world, deadline, seconds) as store:
        serving = threading.Thread(target=store.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        serving.start()
        try:
            yield
        finally:
            store.shutdown()
            serving.join()


def _open_store(client: StoreClient, world: World, deadline: float, seconds: float) -> Store:
    while True:
        try:
            address = socket.gethostbyname(client.host)
            # Some systems resolve their own name to 127.0.1.1, which other hosts cannot reach.
            is_loopback_among_hosts = address.startswith("127.") and world.local_size < world.size
            return Store(("" if is_loopback_among_hosts else address, client.port), world.size)
        except OSError as error:  # name unknown yet or of an earlier pod, or port in use
            with suppress(OSError, http.client.HTTPException):
                other = client.claim(0)
                if other:
                    raise claimed_twice(world, other) from None
            if time.monotonic() > deadline:
                raise RankError(
                    f"Rank 0 could not host the rendezvous at {client.host}:{client.port} within {seconds:g} s: "
                    f"{error}. The name must belong to the host of rank 0, and the port must be free there. Set "
                    "DISTRAIN_RENDEZVOUS=HOST:PORT on every rank, or wait longer with DISTRAIN_RENDEZVOUS_SECONDS."
                ) from None
        time.sleep(pause(world.size))  # until the deadline: nothing notifies this process


def _horovod_variables(
    client: StoreClient, world: World, claims: Sequence[Claim], environ: Mapping[str, str]
) -> dict[str, str]:
    """Return the variables that Horovod's launcher sets and horovod/common/gloo/gloo_context.cc reads."""
    own = claims[world.rank]
    address = socket.gethostbyname(client.host)
    hosts = list(dict.fromkeys(claim.host for claim in claims if claim.world.local_size > world.local_rank))
    variables: dict[str, object] = {
        "HOROVOD_RANK": world.rank,
        "HOROVOD_SIZE": world.size,
        "HOROVOD_LOCAL_RANK": world.local_rank,
        "HOROVOD_LOCAL_SIZE": world.local_size,
        # The cross ranks are the ranks with this local rank: one on each host that has it.
        "HOROVOD_CROSS_RANK": hosts.index(own.host),
        "HOROVOD_CROSS_SIZE": len(hosts),
        "HOROVOD_HOSTNAME": own.host,  # Horovod finds the ranks of a host by this name
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": address,
        "HOROVOD_GLOO_RENDEZVOUS_PORT": client.port,
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
    }
    # By default Gloo listens on the address of the host name, which may be 127.0.1.1 or missing.
    elsewhere = next((claim.address for claim in claims if claim.host != own.host), address)
    interface = environ.get("HOROVOD_GLOO_IFACE") or _interface_towards(
        elsewhere if address.startswith("127.") else address
    )
    if interface:
        variables["HOROVOD_GLOO_IFACE"] = interface
    return {name: str(value) for name, value in variables.items()}


def _interface_towards(address: str) -> str | None:
    own = address_towards(address)
    return next((name for name, found in ipv4_addresses() if found == own), None)


@contextmanager
def _set(environ: MutableMapping[str, str], variables: Mapping[str, str]) -> Iterator[None]:
    before = {name: environ.get(name) for name in variables}
    environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                environ.pop(name, None)
            else:
                environ[name] = value
