"""When the command began.

Decides: from when on start-up is counted. Never: what is done meanwhile.

    seconds = time.time() - process_began()
"""

from __future__ import annotations

import os
import time
from pathlib import Path


def process_began(stat: Path = Path("/proc/self/stat")) -> float:
    """When the operating system started this process, Python's own start included, in seconds since 1970.

    Read from Linux's `/proc` (field 22, in clock ticks since the machine started: proc_pid_stat(5)), to a hundredth of
    a second; the time of the call where there is none.
    """
    now = time.time()
    try:
        fields = stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()  # a name may hold spaces
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, IndexError, ValueError):
        return now
    return now - max(age, 0.0)
