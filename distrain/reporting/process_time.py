"""The time at which a process began.

Decides: when start-up begins to count. Never: what happens during start-up.

    seconds = time.time() - process_began()
"""

from __future__ import annotations

import os
import time
from pathlib import Path


def process_began(stat: Path = Path("/proc/self/stat")) -> float:
    """Return when the operating system started a process, in seconds since 1970; Python's own start is included.

    Linux's `/proc` gives the time in clock ticks of 10 ms since the machine started: field 22, see proc_pid_stat(5).
    A system without `/proc` gets the time of the call.

    Args:
        stat: The `stat` file of the process in `/proc`.
    """
    now = time.time()
    try:
        fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()  # a name may hold spaces
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, IndexError, ValueError):
        return now
    return now - max(age, 0.0)
