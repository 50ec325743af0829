"""Lets this process and all that it starts keep a processor for 20 ms at a time, in place of 3.

Decides: how long a turn is. Never: which process has priority.

The test processes and their ranks outnumber the processors. With longer turns, six files of such tests took 111 s in
place of 125 and 131 (benchmarks/LOG.md). Linux knows this setting since 6.12; other systems keep their turns.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct

_TURN_NANOSECONDS = 20_000_000
_SCHED_SETATTR = {"x86_64": 314, "aarch64": 274}  # numbers of system calls; the C library has no function before 2.41


def take_long_turns() -> None:
    """Ask for long turns; nothing happens where they cannot be had."""
    number = _SCHED_SETATTR.get(platform.machine())
    if platform.system() == "Linux" and number:
        # Size, policy, flags, nice value, priority, turn, and two fields for deadlines: see sched_setattr(2).
        attributes = struct.pack("IIQiIQQQ", 48, os.SCHED_BATCH, 0, os.nice(0), 0, _TURN_NANOSECONDS, 0, 0)
        ctypes.CDLL(None).syscall(number, 0, attributes, 0)
