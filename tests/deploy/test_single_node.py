"""single_node.sh with a real mpirun: arguments, number of ranks, cores, and programs that are missing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from stand_in_ranks import done_ranks


def test_arguments_reach_every_rank_as_they_were_given(start):
    arguments = ["--data", "two words", "", "*", "$HOME", "--", "x'\"\\", "--run=räder"]
    job = start(*arguments[:3], "-n", "3", *arguments[3:], WORK="0")
    assert [note["arguments"] for note in job.ranks(3)] == [["train", *arguments]] * 3
    code, out, err = job.end()
    assert (code, err) == (0, "")
    assert done_ranks(out) == [0, 1, 2]


def test_without_gpus_there_are_two_ranks_and_no_live_bar_in_a_file(start):
    job = start(WORK="0")
    assert [note["tty"] for note in job.ranks(2)] == ["0", "0"]  # mpirun's own terminal is not taken for one
    assert job.end()[0] == 0
    assert len(list(job.notes.glob("*.json"))) == 2


@pytest.mark.parametrize(
    ("visible", "count"), [(None, 3), ("0,2", 2), ("GPU-1-1,GPU-1-2,GPU-1-3", 3), ("1,-1,2", 1), ("", 2), ("-1", 2)]
)
def test_one_rank_for_each_visible_gpu(start, tree, visible, count):
    tool = tree.parent / "tools" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text('#!/bin/sh\nfor gpu in 0 1 2; do echo "GPU $gpu: made up (UUID: GPU-1-$gpu)"; done\n')
    tool.chmod(0o755)
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    job = start(WORK="0", PATH=f"{tool.parent}:{os.environ['PATH']}", **environment)
    assert job.end()[0] == 0
    notes = [json.loads(path.read_text()) for path in job.notes.glob("*.json")]
    assert len(notes) == count
    if visible not in ("", "-1"):  # ranks on GPUs are not bound: which cores are near which GPU was not asked
        assert [note["cores"] for note in notes] == [sorted(os.sched_getaffinity(0))] * count


def num_cores() -> int:
    """Return the number of cores; hardware threads of one core count once."""
    table = subprocess.run(["lscpu", "--parse=SOCKET,CORE"], capture_output=True, text=True, check=True).stdout
    return len({line for line in table.splitlines() if not line.startswith("#")})


@pytest.mark.skipif(num_cores() < 2, reason="a machine of one core has none to share out")
def test_ranks_on_cpus_share_out_the_cores(start):
    job = start("-n", "2", WORK="0")
    one, two = (set(note["cores"]) for note in job.ranks(2))
    assert job.end()[0] == 0
    assert not one & two
    assert len(one) == len(two) == os.cpu_count() // num_cores() * (num_cores() // 2)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may hide /sys in a namespace")
def test_ranks_start_where_there_is_no_sys(start, tree):
    """Some sandboxes mount none, so nobody can tell hardware threads from cores."""
    script = tree / "launch" / "single_node.sh"
    script.rename(tree / "launch" / "real.sh")
    hidden = """exec unshare --mount sh -ec 'mount -t tmpfs none /sys && exec "$@"' sh"""
    script.write_text(f'#!/bin/sh\n{hidden} "$(dirname "$0")/real.sh" "$@"\n')
    script.chmod(0o755)
    code, out, err = start(WORK="0").end()
    assert (code, err) == (0, "")
    assert done_ranks(out) == [0, 1]


@pytest.mark.parametrize("count", [1, num_cores() + 1])
def test_one_rank_and_more_ranks_than_cores_are_free(start, count):
    job = start("-n", str(count), WORK="0")
    assert [note["cores"] for note in job.ranks(count)] == [sorted(os.sched_getaffinity(0))] * count
    assert job.end()[0] == 0


def test_cores_that_the_script_was_not_given_are_left_to_others(start):
    """Two jobs that were given one core each would otherwise both run on the first core."""
    last = max(os.sched_getaffinity(0))
    job = start("-n", "2", WORK="0", options={"preexec_fn": lambda: os.sched_setaffinity(0, {last})})
    assert [note["cores"] for note in job.ranks(2)] == [[last]] * 2
    assert job.end()[0] == 0


@pytest.mark.parametrize("arguments", [["-n"], ["-n", "0"], ["--data", "d", "-n", "two"], ["-n", "1000"]])
def test_a_wrong_number_of_ranks_is_refused(start, arguments):
    code, out, err = start(*arguments).end()
    assert (code, out) == (2, "")
    assert "it must be a number of processes" in err
    assert "Usage: launch/single_node.sh" in err


def test_a_wrong_number_of_restarts_is_refused(start):
    code, out, err = start("--restarts", "many").end()
    assert (code, out) == (2, "")
    assert 'error: --restarts is "many", but it must be a number of restarts' in err


def without(tree: Path, program: str) -> dict[str, object]:
    """Remove a program from .venv, and return a PATH with the few tools that the script needs."""
    (tree / ".venv" / "bin" / program).unlink()
    tools = tree.parent / "tools"
    tools.mkdir(exist_ok=True)
    for name in ("bash", "dirname", "cat", "id", "grep", "env"):
        (tools / name).symlink_to(shutil.which(name))
    return {"PATH": str(tools)}


@pytest.mark.parametrize(
    ("program", "cure"), [("distrain", "./launch/quickstart.sh"), ("mpirun", "pip install 'distrain[mpi]'")]
)
def test_a_missing_program_is_named_with_its_cure(start, tree, program, cure):
    code, out, err = start(**without(tree, program)).end()
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert program in err
    assert cure in err


def test_programs_on_path_serve_where_there_is_no_environment(start, tree):
    programs = tree / ".venv" / "bin"
    programs.rename(tree.parent / "installed")
    job = start(WORK="0", PATH=f"{tree.parent / 'installed'}:{os.environ['PATH']}")
    assert job.end()[0] == 0
    assert len(job.ranks()) == 2


def test_another_mpi_is_refused(start, tree):
    program = tree / ".venv" / "bin" / "mpirun"
    program.unlink()
    program.write_text("#!/bin/sh\necho 'HYDRA build details:'\n")
    program.chmod(0o755)
    code, _, err = start().end()
    assert code == 2
    assert "is not Open MPI's" in err
