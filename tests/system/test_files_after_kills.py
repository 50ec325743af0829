"""Locks between processes, and what a killed process leaves of a file and a folder."""

from __future__ import annotations

import subprocess
import sys

import pytest

from distrain.data.array_folders.cache import cached_arrays
from distrain.errors import CheckpointError
from distrain.files import read_json_object
from distrain.runs.lock import hold_run

HOLD = """
import sys
from pathlib import Path
from distrain.runs.lock import hold_run
with hold_run(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""

# Each fork is killed at a later call that changes the disk, until one of the forks ends by itself.
KILLED = """
import os, sys
from pathlib import Path
from distrain.files import replace_folder, write_json
place, kind = Path(sys.argv[1]), sys.argv[2]

def write(place, version):
    if kind == "file":
        return write_json(place / "a", {"version": version})
    with replace_folder(place / "a") as folder:
        (folder / "version").write_bytes(version)

def watched(call, calls, dies_at):
    def watch(*args, **options):
        calls.append(call)
        if len(calls) == dies_at:
            os._exit(9)
        return call(*args, **options)
    return watch

def count_of_deaths():
    for dies_at in range(1, 100):
        here = place / str(dies_at)
        here.mkdir()
        write(here, "old" if kind == "file" else b"old")
        child = os.fork()
        if not child:
            calls = []
            steps = [(os, "fsync"), (os, "rmdir"), (Path, "rename"), (Path, "replace"), (Path, "write_bytes")]
            for owner, name in steps:
                setattr(owner, name, watched(getattr(owner, name), calls, dies_at))
            write(here, "new" if kind == "file" else b"new")
            os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0:
            return dies_at - 1
print(count_of_deaths())
"""


def test_two_processes_do_not_train_in_one_run_directory(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(CheckpointError, match="another process trains in"):
            hold_run(tmp_path).__enter__()
        holder.kill()
    with hold_run(tmp_path):  # the system drops a lock when its process dies
        done = subprocess.run(command, input="", capture_output=True, text=True, check=False)
        assert "CheckpointError: another process trains in" in done.stderr
        assert done.returncode == 1
    assert subprocess.run(command, input="", capture_output=True, check=False).returncode == 0


@pytest.mark.parametrize(("kind", "steps"), [("file", 4), ("folder", 6)])
def test_a_kill_at_any_moment_leaves_the_old_or_the_new(tmp_path, kind, steps):
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), kind], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) >= steps
    for place in sorted(tmp_path.iterdir()):
        if kind == "file":
            assert read_json_object(place / "a")["version"] in ("old", "new")
        elif (place / "a").exists():
            assert (place / "a" / "version").read_text() in ("old", "new")
        else:  # killed between the two renames
            assert (place / ".a.old" / "version").read_text() == "old"


def test_a_killed_process_leaves_no_folder_and_the_next_writes_it(tmp_path):
    script = f"""
import os, pathlib
from distrain.data.array_folders.cache import cached_arrays
def rows():
    for number in range(9000):
        if number == 8000: os.kill(os.getpid(), 9)
        yield [float(number)], number
cached_arrays(pathlib.Path({str(tmp_path / "cache")!r}), {{"train": rows}})
"""
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -9
    assert (tmp_path / ".cache.tmp").exists()
    assert not (tmp_path / "cache").exists()
    cached_arrays(tmp_path / "cache", {"train": lambda: iter([([0.0], 0)])})
    assert not (tmp_path / ".cache.tmp").exists()
