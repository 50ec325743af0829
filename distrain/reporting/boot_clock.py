"""Seconds since this machine started: a clock that no change of the date touches, and that all processes share.

Decides: which clock measures intervals across processes, and when a process began. Never: which intervals count.

    seconds = boot_clock() - process_began()

Wall time jumps when somebody sets the clock, or NTP corrects it. Two values of the boot clock compare only if `boot_id`
is equal for both: an identifier that Linux draws at each start of a machine.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_clock() -> float:
    """Return the seconds since this machine started, suspended time included; without Linux since any fixed moment."""
    try:
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    except (OSError, AttributeError):
        return time.monotonic()


def boot_id() -> str:
    """Return the identifier of this start of this machine; empty without Linux."""
    try:
        return BOOT_ID.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def process_began(stat: Path = Path("/proc/self/stat")) -> float:
    """Return when the operating system started a process, on the boot clock; Python's own start is included.

    Linux's `/proc` gives the time in clock ticks of 10 ms since the machine started: field 22, see proc_pid_stat(5).
    A system without `/proc` gets the time of the call.

    Args:
        stat: The `stat` file of the process in `/proc`.
    """
    now = boot_clock()
    try:
        fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()  # a name may hold spaces
        return min(now, int(fields[19]) / os.sysconf("SC_CLK_TCK"))
    except (OSError, IndexError, ValueError):
        return now
