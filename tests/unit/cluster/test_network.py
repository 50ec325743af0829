"""Addresses of this machine."""

from __future__ import annotations

import socket

from distrain.cluster.network import address_towards, ipv4_addresses, own_addresses


def test_own_addresses_belong_to_this_machine_and_are_no_loopback():
    for address in own_addresses():
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as probe:
            probe.bind((address, 0))
        assert not address.startswith("127.")


def test_the_address_towards_a_host_belongs_to_an_interface():
    assert address_towards("127.0.0.1") == "127.0.0.1"
    assert ("lo", "127.0.0.1") in list(ipv4_addresses())
