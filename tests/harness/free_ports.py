"""Ports that nobody else takes between their choice and their use."""

from __future__ import annotations

import contextlib
import random
import socket

# Below the ports that Linux and macOS give to a socket that names none: 32,768 and 49,152 upward. A port from that
# range, closed again, may go to any connection of a test that runs beside.
FIRST, LAST = 20_000, 32_000


def free_ports(number: int) -> list[int]:
    """Return different ports of this host on which nobody listens."""
    ports: set[int] = set()
    while len(ports) < number:
        port = random.SystemRandom().randrange(FIRST, LAST)
        with contextlib.suppress(OSError):  # somebody listens there
            socket.create_server(("127.0.0.1", port)).close()
            ports.add(port)
    return list(ports)


def free_port() -> int:
    """Return a port of this host on which nobody listens."""
    return free_ports(1)[0]
