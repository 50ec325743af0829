"""Room on the disk for a run, and the error for a file that a run needs and cannot write.

Decides: which failed write ends a run, and whether a run begins on a disk that is nearly full. Never: writes.

    check_room(run, checkpoint_bytes=2**30, num_checkpoints=4)
    with required_write(run / "model.keras", num_bytes=2**30):
        ...

A run needs its settings, vectorizer, checkpoints, model and summary. It goes on without its log and its status.
"""

from __future__ import annotations

import errno
import logging
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from distrain.errors import CheckpointError
from distrain.files import describe

_LOG = logging.getLogger(__name__)


@contextmanager
def required_write(path: Path, *, run: Path, num_bytes: int | None = None) -> Iterator[None]:
    """Turn a failed write of the block into an error for people.

    Args:
        path: File or folder that the block writes.
        run: Run directory.
        num_bytes: Size of the content, if known.

    Raises:
        CheckpointError: the system refused a write; the message has the file, the reason, and the room that is needed.
    """
    try:
        yield
    except OSError as error:
        raise unwritable(path, error, run=run, num_bytes=num_bytes) from None


def unwritable(path: Path, error: OSError, *, run: Path, num_bytes: int | None = None) -> CheckpointError:
    """Return the error for people about a write that the system refused; see `required_write`."""
    if error.errno == errno.ENOENT and not run.is_dir():
        return CheckpointError(
            f"{run} was removed while this job trained, so {path.name} cannot be written. Leave the run directory in "
            "place, and start again."
        )
    free = _free(run)
    facts = [
        *([] if num_bytes is None else [f"{path.name} takes about {_shown(num_bytes)}"]),
        *([] if free is None else [f"{_shown(free)} are free"]),
    ]
    room = f": {', and '.join(facts)}" if facts else ""
    return CheckpointError(
        f"{path} cannot be written ({describe(error)}){room}. Mend that and start the same command again: training "
        "goes on from the last checkpoint."
    )


def check_room(run: Path, *, checkpoint_bytes: int, num_checkpoints: int) -> None:
    """Compare the free room with what a run will write; warn if it may not fit.

    Args:
        run: Existing run directory.
        checkpoint_bytes: Size of one checkpoint's arrays.
        num_checkpoints: Largest number of checkpoints that the run adds to those that are there.

    Raises:
        CheckpointError: not even one checkpoint fits.
    """
    free = _free(run)
    if free is None:
        return
    if free < checkpoint_bytes:
        raise CheckpointError(
            f"{run} has {_shown(free)} free, but one checkpoint takes {_shown(checkpoint_bytes)}. Make room, or choose "
            "another --run."
        )
    if free < checkpoint_bytes * num_checkpoints:
        _LOG.warning(
            "%s has %s free, but checkpoints and model may take %s. Make room, or keep fewer checkpoints with --keep.",
            run,
            _shown(free),
            _shown(checkpoint_bytes * num_checkpoints),
        )


def _free(run: Path) -> int | None:
    """Return the free bytes; None where the file system reports no size at all, as some FUSE file systems do."""
    existing = next(folder for folder in (run, *run.absolute().parents) if folder.is_dir())
    usage = shutil.disk_usage(existing)
    return usage.free if usage.total else None


def _shown(num_bytes: int) -> str:
    return f"{num_bytes / 1e6:,.1f} MB"
