"""`distrain prepare` with several processes: the bytes of one process, and no remains after a signal."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from marked_processes import MARK, new_mark, workers_of
from preloaded import preloaded_python
from prepared_data import Result, tree, write_csv
from rich.console import Console

from distrain.config import PrepareConfig
from distrain.errors import DataError, RankError
from distrain.prepare.pipeline import prepare


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Return a CSV file that takes a second to prepare; its neighbours have five blocks of 1 MiB, or few rows."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("text")
    names = np.array([f"w{number}" for number in range(5000)])
    numbers = (rng.random((40_000, 40)) ** 3 * 5000).astype(int)
    table = [(str(n % 3), " ".join(row)) for n, row in enumerate(names[numbers])]
    write_csv(folder / "few.csv", table[:100])
    write_csv(folder / "blocks.csv", table[:22_000])
    write_csv(folder / "a.csv", table)
    return folder / "a.csv"


def command(train, out, *options, python=None):
    python = python or preloaded_python()
    return [*python, "-m", "distrain", "prepare", "--train", str(train), "--out", str(out), *options]


def run(arguments, **environ):
    return subprocess.run(
        arguments, capture_output=True, text=True, timeout=120, env={**os.environ, **environ}, check=False
    )


def test_worker_processes_and_mpi_processes_give_the_bytes_of_one(text, tmp_path):
    outs = []
    for name, launcher, options in (
        ("one", [], ["--workers", "1"]),
        ("two", [], ["--workers", "2"]),
        ("mpi", ["mpirun", "-n", "2", "--bind-to", "none", "--oversubscribe"], []),
    ):
        if launcher and (not shutil.which(launcher[0]) or not pytest.importorskip("mpi4py")):
            continue
        outs.append(tmp_path / name)
        done = run(
            [*launcher, *command(text.with_name("blocks.csv"), outs[-1], *options)],
            OMPI_ALLOW_RUN_AS_ROOT="1",
            OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert done.stdout.count("done in") == 1
    assert len({str(sorted(tree(out).items())) for out in outs}) == 1
    assert len(outs) > 1
    assert sorted(tmp_path.iterdir()) == sorted(outs)


def test_an_error_with_two_processes_is_printed_once(tmp_path):
    table = [(str(n % 2), "some words of text") for n in range(50)] + [("", "no label")]
    train = write_csv(tmp_path / "a.csv", table)
    done = run(command(train, tmp_path / "out", "--workers", "2"))
    assert done.returncode == DataError.exit_code
    assert done.stderr.count("row 51") == 1
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.iterdir()) == [train]


def wait_for(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, f"nothing within {seconds} s"
        time.sleep(0.01)
    return result


def is_gone(pid):
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True


@pytest.mark.parametrize(
    ("target", "number", "code"),
    [
        ("worker", signal.SIGKILL, RankError.exit_code),
        ("chief", signal.SIGTERM, 128 + signal.SIGTERM),
        ("chief", signal.SIGINT, 130),
        ("chief", signal.SIGKILL, -signal.SIGKILL),
    ],
)
def test_a_stopped_process_ends_all_and_leaves_nothing(text, tmp_path, target, number, code):
    out = tmp_path / "out"
    loses_parent = (target, number) == ("chief", signal.SIGKILL)
    arguments = command(text, out, "--workers", "3", python=[sys.executable] if loses_parent else None)
    environ = {**os.environ, MARK: (mark := new_mark())}
    with subprocess.Popen(arguments, stderr=subprocess.PIPE, stdout=subprocess.PIPE, env=environ) as process:
        scratch = tmp_path / ".out.preparing" / "scratch"
        wait_for(lambda: scratch.is_dir() and len([*scratch.glob("labels-*")]) == 3)
        workers = workers_of(mark, "distrain.prepare.worker_main")
        assert len(workers) == 2
        os.kill(workers[1] if target == "worker" else process.pid, number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    wait_for(lambda: all(map(is_gone, workers)))
    if target == "worker":
        assert errors.count(b"worker process 2 of --workers 3 was killed by SIGKILL") == 1
    assert b"Traceback" not in errors
    if not loses_parent:
        assert [*tmp_path.iterdir()] == []
    few = text.with_name("few.csv")  # whatever the stopped process left, the next one prepares a folder
    prepare(PrepareConfig(train=few, out=out, workers=1), console=Console(quiet=True))
    assert [*tmp_path.iterdir()] == [out]


def test_worker_processes_receive_all_files_and_settings(tmp_path):
    rows = [{"label": ["art", "sea", "war"][: n % 4], "text": f"a ship w{n % 7}", "weight": n % 3} for n in range(120)]

    def write(name, rows):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        return tmp_path / name

    parts = [write(f"part-{part}.jsonl", rows[30 * part :][:30]) for part in range(4)]
    settings = {"task": "multilabel", "weight_column": "weight", "vectorizer": "ngram", "top_k": 30}
    Result(train=write("joined.jsonl", rows), out=tmp_path / "1", workers=1, **settings)
    Result(train=parts, out=tmp_path / "2", workers=2, **settings)
    assert tree(tmp_path / "1") == tree(tmp_path / "2")
