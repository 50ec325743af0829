"""The links over which replicas sum gradients: bandwidth and latency, from a table or as measured.

Decides: the figures of each link, with their source. Never: measures anything.

    >>> LINKS["nvlink"].bytes_per_second / 1e9
    450.0
    >>> slowest([LINKS["nvlink"], LINKS["100gbe"]]) is LINKS["100gbe"]
    True

No figure for GPUs was measured with distrain. A measured bandwidth is better: `--bandwidth-gbs` with `--latency-ms`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Link:
    """What carries an all-reduce.

    Attributes:
        bytes_per_second: bandwidth of a replica in each direction, as nccl-tests' "bus bandwidth".
        latency_seconds: duration of an all-reduce of a few bytes, as a step sees it.
    """

    bytes_per_second: float
    latency_seconds: float


# An all-reduce through Horovod waits for about one cycle of Horovod's thread (1 ms by default; 2.3 to 2.45 ms were
# measured on two busy CPU ranks), for the agreement of the ranks, and for the host: benchmarks/LOG.md, 2026-11-29.
HOROVOD_SECONDS = 1.5e-3

LINKS = {
    # NVLink and NVSwitch of H100 and H200: 900 GB/s both ways together by data sheet. Users of nccl-tests report 370 to
    # 480 GB/s.
    "nvlink": Link(450e9, HOROVOD_SECONDS),
    # PCIe 4.0 x16: 31.5 GB/s by specification. Users of nccl-tests without peer access report 10 to 25 GB/s.
    "pcie": Link(20e9, HOROVOD_SECONDS),
    # Eight ports of 400 Gbit/s a host, one a GPU: 400 GB/s by specification. Users of nccl-tests report 330 to
    # 370 GB/s.
    "rails-8x400g": Link(350e9, HOROVOD_SECONDS),
    # One Ethernet port of 100 Gbit/s a host: 12.5 GB/s by specification, of which TCP or RoCE leave about 90%.
    "100gbe": Link(11e9, HOROVOD_SECONDS),
    # One Ethernet port of 10 Gbit/s a host: 1.25 GB/s by specification, of which TCP leaves about 90%.
    "10gbe": Link(1.1e9, HOROVOD_SECONDS),
}


def slowest(links: Sequence[Link]) -> Link:
    """Return the link with the least bandwidth, which a ring over all links has."""
    return min(links, key=lambda link: link.bytes_per_second)
