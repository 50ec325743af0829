"""Faults of the machine as errors that a person can cure: a missing right, a full disk, too many open files.

Decides: which errors of the system are no defect of distrain, and their exit codes. Never: prints a message.

    >>> in_a_sentence(PermissionError(13, "Permission denied", "data/dataset.json"), run=None)
    DataError('data/dataset.json: Permission denied. Check the path, your permissions and the disk, then start again.')
    >>> in_a_sentence(KeyError("defect"), run=None)
    KeyError('defect')
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from distrain.errors import CheckpointError, DataError
from distrain.files import DISK_FAULTS, describe

_FAULTS = DISK_FAULTS | {errno.EACCES, errno.EPERM, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ESTALE}


def in_a_sentence(error: Exception, run: Any) -> Exception:
    """Return the error in place of a fault of the machine, or `error` itself.

    Args:
        error: any error.
        run: run directory of the command, or None; a fault in it has the exit code of `CheckpointError`.
    """
    if not isinstance(error, OSError) or error.errno not in _FAULTS:
        return error
    is_of_run = isinstance(run, Path) and Path(os.fsdecode(error.filename or "")).is_relative_to(run)
    kind = CheckpointError if is_of_run else DataError
    return kind(f"{describe(error)}. Check the path, your permissions and the disk, then start again.")
