"""A note of a pod's entry that its ranks start again, for the liveness probe of the pod.

Decides: where the note is, and when it counts. Never: starts anything, or says whether a run is alive.

    note_restart(Path("/runs/1"))        # the entry, before it waits for the other pods
    last_restart(Path("/runs/1"))        # the probe, in the same pod: seconds of the boot clock, or None

The note counts as long as its writer runs. It lies in the temporary folder, because each pod of a job has its own.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from distrain.files import read_json_object, write_json
from distrain.reporting.boot_clock import boot_clock, process_began

_MAX_BYTES = 1000


def note_restart(run: Path) -> None:
    """Note that this process starts the ranks of a run again; a full temporary folder is no error."""
    with suppress(OSError):
        write_json(_path(run), {"process": os.getpid(), "boot_seconds": boot_clock()}, durable=False)


def last_restart(run: Path) -> float | None:
    """Return when a running process of this machine last started the ranks of a run again, on the boot clock."""
    try:
        note = read_json_object(_path(run), max_bytes=_MAX_BYTES)
        stat = Path(f"/proc/{int(note['process'])}/stat")
        seconds = float(note["boot_seconds"])
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return seconds if stat.exists() and process_began(stat) <= seconds else None


def _path(run: Path) -> Path:
    name = hashlib.sha256(os.fsencode(run.resolve())).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"distrain-restart-{os.geteuid()}-{name}.json"
