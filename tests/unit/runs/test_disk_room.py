"""A run that cannot fit does not begin, and a failed write says what to mend."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest

from distrain.errors import CheckpointError
from distrain.runs.disk_room import check_room, required_write


def test_room_is_compared_before_the_first_step(tmp_path, caplog):
    free = shutil.disk_usage(tmp_path).free
    check_room(tmp_path, checkpoint_bytes=1000, num_checkpoints=5)
    assert caplog.messages == []
    check_room(tmp_path, checkpoint_bytes=free // 2, num_checkpoints=5)
    assert ["--keep" in message for message in caplog.messages] == [True]
    with pytest.raises(CheckpointError, match="but one checkpoint takes"):
        check_room(tmp_path, checkpoint_bytes=2 * free, num_checkpoints=1)


def test_a_file_system_that_reports_no_size_is_not_called_full(caplog):
    """`/proc` reports a size of 0, as FUSE file systems do that know no better."""
    unknown = Path("/proc")
    assert shutil.disk_usage(unknown).total == 0
    check_room(unknown, checkpoint_bytes=10**18, num_checkpoints=5)
    assert caplog.messages == []
    with (
        pytest.raises(CheckpointError, match=r"left on device\): x takes about 1\.0 MB\. Mend"),
        required_write(unknown / "x", run=unknown, num_bytes=1_000_000),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, r"No space left on device\): summary\.json takes about 2\.0 MB, and .* are free"),
        (errno.ENOENT, "was removed"),
    ],
)
def test_a_failed_write_names_file_reason_and_room(tmp_path, number, words):
    run = tmp_path / "run"
    if number == errno.ENOSPC:
        run.mkdir()
    with (
        pytest.raises(CheckpointError, match=words),
        required_write(run / "summary.json", run=run, num_bytes=2_000_000),
    ):
        raise OSError(number, os.strerror(number))
