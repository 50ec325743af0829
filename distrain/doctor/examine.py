"""`distrain doctor`: all checks in their order.

Decides: which checks run, and when their time is over. Never: judges what a check saw.

    for finding in examine(Path("."), hosts=["node2"]):
        print(finding.status, finding.name, finding.message, finding.cure)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from distrain.doctor import tensorflow_facts
from distrain.doctor.finding import Finding, findings_of
from distrain.doctor.hosts import check_host
from distrain.doctor.machine import check_disk, check_own_name, check_ports, check_shared_memory
from distrain.doctor.software import (
    Facts,
    check_driver,
    check_gpus,
    check_horovod,
    check_keras,
    check_mpi,
    check_nccl,
    check_tensorflow,
)

SECONDS = 120.0  # TensorFlow's start takes most of the time, the driver the rest


def examine(folder: Path, hosts: Sequence[str] = ()) -> list[Finding]:
    """Run all checks, and return what they found.

    Args:
        folder: where runs will be.
        hosts: other hosts to log in to.
    """
    facts = tensorflow_facts.ask(dict(os.environ))
    of_facts: dict[str, Callable[[Facts], Finding]] = {
        "TensorFlow": check_tensorflow,
        "Keras": check_keras,
        "GPUs": check_gpus,
        "driver": check_driver,
        "NCCL": check_nccl,
        "Horovod": check_horovod,
    }
    checks: dict[str, Callable[[], Finding]] = {name: partial(check, facts) for name, check in of_facts.items()}
    checks |= {
        "MPI": partial(check_mpi, needs_mpirun=bool(hosts)),
        "shared memory": check_shared_memory,
        "disk": partial(check_disk, folder),
        "host name": check_own_name,
        "ports": check_ports,
    }
    checks |= {f"host {host}": partial(check_host, host) for host in hosts}
    return findings_of(checks, seconds=SECONDS)
