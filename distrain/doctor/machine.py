"""Checks of the machine: shared memory, disk, its own name and ports.

Decides: which sizes and speeds are too small. Never: leaves anything behind; each file has no name.

    check_shared_memory()
    check_disk(Path("runs"))
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import tempfile
import time
from pathlib import Path

from distrain.doctor.finding import Finding
from distrain.files import describe

SHARED_MEMORY = Path("/dev/shm")
MIN_SHARED_BYTES = 2**26  # Docker's default; Open MPI and NCCL map some megabytes for each process
FULL_SHARED_BYTES = 2**22  # below this Open MPI's first message between two processes fails
DISK_BYTES = 2**24
SLOW_DISK = 20e6  # bytes per second; a checkpoint of 100 MB then takes 5 s


def check_shared_memory() -> Finding:
    """Check size and free space of the memory through which MPI and NCCL pass data within a machine."""
    cure = "free it, or enlarge it: docker run --shm-size=1g; in a pod, an emptyDir of medium Memory at /dev/shm"
    try:
        usage = shutil.disk_usage(SHARED_MEMORY)
    except OSError as error:
        return Finding.warning(f"{SHARED_MEMORY} cannot be used: {describe(error)}", cure)
    sizes = f"{usage.total / 2**20:,.0f} MiB, {usage.free / 2**20:,.0f} MiB free"
    if usage.free < FULL_SHARED_BYTES:
        return Finding.error(f"{sizes}: several processes would die of it", cure)
    if usage.free < MIN_SHARED_BYTES:
        return Finding.warning(f"{sizes}: too little for several processes with NCCL", cure)
    return Finding.ok(sizes)


def check_disk(folder: Path) -> Finding:
    """Write a file without a name, wait until the disk has it, and read it again.

    Args:
        folder: where runs will be.
    """
    block = os.urandom(DISK_BYTES)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            began = time.monotonic()
            file.write(block)
            file.flush()
            os.fsync(file.fileno())
            write_rate = DISK_BYTES / max(time.monotonic() - began, 1e-9)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # else the read would find it in memory
            began = time.monotonic()
            file.seek(0)
            same = file.read() == block
            read_rate = DISK_BYTES / max(time.monotonic() - began, 1e-9)
    except OSError as error:
        cure = "give the folder of your runs: distrain doctor --dir DIR; or free space, and see to the rights"
        return Finding.error(f"nothing can be written in {folder}: {describe(error)}", cure)
    usage = shutil.disk_usage(folder)
    free = f"{usage.free / 2**30:,.1f} GiB" if usage.total else "an unknown size"  # some FUSE file systems report none
    message = f"writes {write_rate / 1e6:,.0f} MB/s, reads {read_rate / 1e6:,.0f} MB/s, {free} free in {folder}"
    if not same:
        return Finding.error(f"{folder} gives back other bytes than were written", "replace this disk")
    if min(write_rate, read_rate) < SLOW_DISK:
        return Finding.warning(message, "put data and runs on a faster disk, or checkpoint seldom")
    return Finding.ok(message)


def check_own_name() -> Finding:
    """Check that the name of this machine resolves, which Gloo takes for granted."""
    name = socket.gethostname()
    try:
        addresses = sorted({str(entry[4][0]) for entry in socket.getaddrinfo(name, None)})
    except OSError as error:
        cure = f"add a line to /etc/hosts: 127.0.1.1 {name}; or set HOROVOD_GLOO_IFACE to a network interface"
        stops = importlib.util.find_spec("horovod") is not None and not os.environ.get("HOROVOD_GLOO_IFACE")
        judge = Finding.error if stops else Finding.warning
        return judge(f"{name} does not resolve ({error.strerror}), on which Horovod's Gloo crashes", cure)
    return Finding.ok(f"{name} is {', '.join(addresses[:3])}")


def check_ports() -> Finding:
    """Check that this process may listen on a port, and reach the port."""
    try:
        with socket.create_server(("", 0)) as server:
            port = server.getsockname()[1]
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError as error:
        cure = "enable the loopback device (ip link set lo up), and let programs of this machine connect to each other"
        return Finding.error(f"a port of this machine cannot be used: {describe(error)}", cure)
    return Finding.ok(f"can listen, and connect to itself (tried port {port})")
