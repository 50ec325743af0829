"""Where the ranks of a Gloo run find each other before Horovod starts.

Decides: who hosts the meeting point, and what Horovod's core is told. Never: imports Horovod, or lives longer than the
start.

    with joining(find_world(os.environ), os.environ):
        hvd.init()

Horovod's core looks for the others in a store that it reaches by HTTP, and ends the process by SIGABRT where it finds
none. `horovodrun --gloo` hosts that store; for srun and an Indexed Job, which bring none, rank 0 hosts one
(`rendezvous_store.py`). Before Horovod starts, the ranks agree there who they are (`rendezvous_claims.py`).

The store has no password, as Horovod's core could not give one. Hence it listens on one address, holds little, takes
nothing but small values and closes as soon as all ranks have joined. Keep its port within the job's own hosts even so.
"""

from __future__ import annotations

import fcntl
import http.client
import math
import re
import secrets
import socket
import struct
import threading
import time
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import ExitStack, contextmanager, suppress

from distrain.cluster.rendezvous_claims import Board, Claim, address_towards, claimed_twice, leave, meet, pause
from distrain.cluster.rendezvous_store import Store
from distrain.cluster.world import World
from distrain.errors import ConfigurationError, RankError

DEFAULT_SECONDS = 60.0  # pods and tasks of one job start within it; DISTRAIN_RENDEZVOUS_SECONDS changes it
SIOCGIFADDR = 0x8915  # Linux, netdevice(7): the IPv4 address of an interface


@contextmanager
def joining(world: World, environ: MutableMapping[str, str]) -> Iterator[None]:
    """Bring all ranks to the point where `hvd.init()` succeeds; it is to be called inside.

    Does nothing where MPI brings the ranks together, or there is one.

    Args:
        world: this process among all.
        environ: of this process. Inside, it holds what Horovod's core reads; afterwards it is as before. Its
            DISTRAIN_RENDEZVOUS_SECONDS (60) bounds the wait for the rendezvous, and then once more that for the others.

    Raises:
        ConfigurationError: DISTRAIN_RENDEZVOUS_SECONDS is no number of seconds, or HOROVOD_RANK was set by hand and no
            rendezvous.
        RankError: the rendezvous does not answer, a rank does not come or comes twice, or the ranks do not fit.
    """
    meeting = _meeting(world, environ)
    if meeting is None:
        yield
        return
    seconds = rendezvous_seconds(environ)
    host, port = meeting
    board = Board(host, port, _scope(world, environ), world.size)
    own_host = environ.get("HOROVOD_HOSTNAME") or socket.gethostname()
    token = secrets.token_hex(16)
    with ExitStack() as at_end:
        deadline = time.monotonic() + seconds
        if world.rendezvous and world.rank == 0:
            at_end.enter_context(_hosted(board, world, deadline, seconds))
        at_end.callback(leave, board, world, token)
        claims = meet(board, world, own_host, token, deadline, seconds)
        if world.rendezvous:
            at_end.enter_context(_set(environ, _horovod_variables(board, world, claims, environ)))
        yield


def _meeting(world: World, environ: Mapping[str, str]) -> tuple[str, int] | None:
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
            f"{host[:80]!r} and HOROVOD_GLOO_RENDEZVOUS_PORT={port[:9]!r} are no address at which the ranks could find "
            "each other. Start them by horovodrun or mpirun, or set none of these variables."
        )
    return host, int(port)


def rendezvous_seconds(environ: Mapping[str, str]) -> float:
    """DISTRAIN_RENDEZVOUS_SECONDS: how long a rank waits for the rendezvous, and then once more for the others.

    Raises:
        ConfigurationError: it is no number of seconds.
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
    """The job's own name, so that two jobs whose ports fell together do not mix."""
    names = ("SLURM_JOB_ID", "SLURM_STEP_ID") if world.launcher == "srun" else ()
    return "-".join(["distrain", *(re.sub("[^0-9A-Za-z]", "", environ.get(name, "")) for name in names)])


@contextmanager
def _hosted(board: Board, world: World, deadline: float, seconds: float) -> Iterator[None]:
    """A store on the rendezvous' own address."""
    with _listening(board, world, deadline, seconds) as store:
        serving = threading.Thread(target=store.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        serving.start()
        try:
            yield
        finally:
            store.shutdown()
            serving.join()


def _listening(board: Board, world: World, deadline: float, seconds: float) -> Store:
    while True:
        try:
            address = socket.gethostbyname(board.host)
            # Some systems know their own name as 127.0.1.1, where other hosts would not get through.
            is_loopback_among_hosts = address.startswith("127.") and world.local_size < world.size
            return Store(("" if is_loopback_among_hosts else address, board.port), world.size)
        except OSError as error:  # no such name yet, the address of a pod that was here before, a port in use
            with suppress(OSError, http.client.HTTPException):
                other = board.claim(0)
                if other:
                    raise claimed_twice(world, other) from None
            if time.monotonic() > deadline:
                raise RankError(
                    f"Rank 0 could not host the rendezvous at {board.host}:{board.port} within {seconds:g} s: {error}. "
                    "The name must be that of rank 0's own host, and the port free there. Set DISTRAIN_RENDEZVOUS="
                    "HOST:PORT on every rank, or wait longer with DISTRAIN_RENDEZVOUS_SECONDS."
                ) from None
        time.sleep(pause(world.size))  # between two looks, within the bound: nobody can call us when it is there


def _horovod_variables(
    board: Board, world: World, claims: Sequence[Claim], environ: Mapping[str, str]
) -> dict[str, str]:
    """What Horovod's launcher would have set (horovod/common/gloo/gloo_context.cc reads it)."""
    own = claims[world.rank]
    address = socket.gethostbyname(board.host)
    hosts = list(dict.fromkeys(claim.host for claim in claims if claim.world.local_size > world.local_rank))
    variables: dict[str, object] = {
        "HOROVOD_RANK": world.rank,
        "HOROVOD_SIZE": world.size,
        "HOROVOD_LOCAL_RANK": world.local_rank,
        "HOROVOD_LOCAL_SIZE": world.local_size,
        # The ranks with this local rank, one on each host that has it.
        "HOROVOD_CROSS_RANK": hosts.index(own.host),
        "HOROVOD_CROSS_SIZE": len(hosts),
        "HOROVOD_HOSTNAME": own.host,  # local ranks find each other by it
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": address,
        "HOROVOD_GLOO_RENDEZVOUS_PORT": board.port,
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
    }
    # Gloo would listen on what the own host name stands for, which may be 127.0.1.1 or nothing at all.
    elsewhere = next((claim.address for claim in claims if claim.host != own.host), address)
    interface = environ.get("HOROVOD_GLOO_IFACE") or _interface_towards(
        elsewhere if address.startswith("127.") else address
    )
    if interface:
        variables["HOROVOD_GLOO_IFACE"] = interface
    return {name: str(value) for name, value in variables.items()}


def _interface_towards(address: str) -> str | None:
    own = address_towards(address)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # an interface without an IPv4 address
                reply = fcntl.ioctl(probe, SIOCGIFADDR, struct.pack("256s", name.encode()))
                if socket.inet_ntoa(reply[20:24]) == own:
                    return name
    return None


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
