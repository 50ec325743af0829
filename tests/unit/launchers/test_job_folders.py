"""Folders of a job go with its end; what killed jobs left goes with the next start, and living jobs keep theirs."""

from __future__ import annotations

import mmap
import os
import time
from pathlib import Path

import pytest

from distrain.launchers import job_folders as module
from distrain.launchers.job_folders import MIN_AGE_SECONDS, job_folders, remove_remains


@pytest.fixture
def folders(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """Stand-ins for /dev/shm and the temporary folder."""
    memory, temporary = tmp_path / "shm", tmp_path / "tmp"
    memory.mkdir()
    temporary.mkdir()
    monkeypatch.setattr(module, "SHARED_MEMORY", memory)
    monkeypatch.setattr(module.tempfile, "tempdir", str(temporary))
    return memory, temporary


def make_old(path: Path) -> Path:
    then = time.time() - MIN_AGE_SECONDS - 5
    os.utime(path, (then, then))
    return path


def segment(folder: Path, name: str, *, old: bool = True) -> Path:
    path = folder / f"vader_segment.{name}.{os.geteuid()}.1430001.0"
    path.write_bytes(bytes(mmap.PAGESIZE))
    return make_old(path) if old else path


def test_a_job_has_folders_until_its_end(folders):
    with job_folders(2) as options:
        made = [Path(options[2]), Path(options[5])]
        assert [path.parent for path in made] == list(folders)
        (made[0] / "segment").touch()
        for path in made:
            make_old(path)
        remove_remains()
        assert all(path.is_dir() for path in made), "a running job holds a lock"
    assert not any(path.exists() for path in made)


def test_without_room_in_shared_memory_segments_lie_among_temporary_files(folders, monkeypatch):
    memory, temporary = folders
    free = os.statvfs(memory).f_bavail * os.statvfs(memory).f_frsize
    monkeypatch.setattr(module, "SEGMENT_BYTES", free // 4)
    for num_ranks, parent in ((2, memory), (5, temporary)):
        with job_folders(num_ranks) as options:
            assert Path(options[2]).parent == parent
    monkeypatch.setattr(module, "SHARED_MEMORY", memory / "absent")
    with job_folders(2) as options:
        assert Path(options[2]).parent == temporary


def test_remains_of_killed_jobs_are_removed(folders):
    for folder in folders:
        (folder / "distrain-job-x").mkdir()
        (folder / "distrain-job-x" / "file").touch()
        make_old(folder / "distrain-job-x")
        (folder / "distrain-job-new").mkdir()
    remove_remains()
    assert [path.name for folder in folders for path in folder.iterdir()] == ["distrain-job-new"] * 2


def test_only_old_segments_that_nobody_maps_are_removed(folders):
    memory, _ = folders
    own, elsewhere = os.uname().nodename, "anotherhost"
    left, new, foreign, mapped = (
        segment(memory, own),
        segment(memory, f"{own}.new", old=False),
        segment(memory, elsewhere),
        segment(memory, f"{own}.mapped"),
    )
    with mapped.open("r+b") as file, mmap.mmap(file.fileno(), 0):
        remove_remains()
    assert not left.exists()
    assert all(path.exists() for path in (new, foreign, mapped))


def test_a_link_in_place_of_a_folder_is_not_followed(folders, tmp_path):
    target = tmp_path / "mine"
    target.mkdir()
    (target / "file").touch()
    (folders[0] / "distrain-job-link").symlink_to(target)
    make_old(target)
    remove_remains()
    assert (target / "file").exists()
