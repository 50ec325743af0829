"""Network addresses of this machine.

Decides: at which addresses other machines may reach this one. Never: connects, or sends a packet.

    >>> from distrain.cluster.network import address_towards
    >>> address_towards("127.0.0.1")
    '127.0.0.1'
"""

from __future__ import annotations

import contextlib
import socket
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

SIOCGIFADDR = 0x8915  # Linux, netdevice(7): the IPv4 address of an interface


def own_addresses() -> list[str]:
    """Return the addresses at which other machines may reach this one: IPv4 and global IPv6, without loopback."""
    found = [*(address for _, address in ipv4_addresses()), *_global_ipv6_addresses()]
    if not found:
        with contextlib.suppress(OSError):
            found = [str(entry[4][0]) for entry in socket.getaddrinfo(socket.gethostname(), None)]
    return [address for address in dict.fromkeys(found) if address != "::1" and not address.startswith("127.")]


def address_towards(address: str) -> str:
    """Return this machine's IPv4 address on the route to another IPv4 address; sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))
        return str(probe.getsockname()[0])


def ipv4_addresses() -> Iterator[tuple[str, str]]:
    """Yield name and IPv4 address of each network interface that has one; nothing on other systems than Linux."""
    if sys.platform != "linux":
        return
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # this interface has no IPv4 address
                answer = fcntl.ioctl(probe, SIOCGIFADDR, struct.pack("256s", name.encode()))
                yield name, socket.inet_ntoa(answer[20:24])


def _global_ipv6_addresses() -> Iterator[str]:
    with contextlib.suppress(OSError):  # not Linux, or no IPv6
        for line in Path("/proc/net/if_inet6").read_text(encoding="ascii").splitlines():
            digits, _, _, scope, *_ = line.split()
            if scope == "00":
                yield socket.inet_ntop(socket.AF_INET6, bytes.fromhex(digits))
