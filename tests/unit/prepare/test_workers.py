"""`prepare` by several processes: the same bytes as by one, and an end without remains whatever happens to them."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from rich.console import Console
from threads_as_processes import on_all

from distrain.cluster.error_relay import ErrorRelay
from distrain.config import PrepareConfig
from distrain.data import dataset_writer
from distrain.errors import DataError, RankError
from distrain.prepare.pipeline import prepare
from distrain.prepare.worker_pool import pack, unpack
from distrain.text.readers import lines
from distrain.text.vectorizers import pairs, tokens


def relay_of(process):
    return ErrorRelay(process, end_peers=process.meeting.barrier.abort)


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def write_csv(path, table):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(table)
    return path


def prepared(folder, size, **settings):
    """What `size` threads make of it."""
    config = PrepareConfig(out=folder / f"out-{size}", **settings)
    silent = Console(quiet=True)
    results = on_all(size, lambda process: prepare(config, console=silent, group=relay_of(process)))
    assert results == [None] * size, results
    return tree(config.out)


words = st.sampled_from(["the", "of", "café", "CAFÉ", "ΟΔΟΣ", "中文字", "ab", "x", 'say "hi"', "two\nlines", "a,b"])
texts = st.lists(words, max_size=12).map(" ".join)
tables = st.lists(st.tuples(st.sampled_from(["1", "2", " 3"]), texts, texts), min_size=30, max_size=80)


@settings(
    max_examples=8,
    deadline=None,
    phases=[Phase.generate],  # an example takes a second, and shrinking one minutes
    suppress_health_check=[HealthCheck.too_slow],
)
@given(
    tables,
    st.sampled_from(["ngram", "sequence"]),
    st.booleans(),
    st.sampled_from([64, 700, 2**20]),
    st.sampled_from([4, 2**14]),
    st.sampled_from([5, 100]),
)
def test_any_number_of_processes_and_any_memory_give_the_same_bytes(table, vectorizer, has_test, piece, share, at_once):
    table = [("1", "the of ab", "the"), ("2", "the of ab", "of ab"), *table]  # always something to learn
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        train = write_csv(folder / "a.csv", table)
        test = write_csv(folder / "b.csv", table[::-1]) if has_test else None
        given_settings = {"train": train, "test": test, "vectorizer": vectorizer, "top_k": 20, "holdout": 0.3}
        patch.setattr(dataset_writer, "SHARD_BYTES", 150)
        # Few blocks of many rows in plenty of memory; then blocks of a few rows, and next to no memory.
        expected = prepared(folder, 1, **given_settings)
        patch.setattr(lines, "PIECE_BYTES", piece)
        patch.setattr(tokens, "_TABLE_SHARE", share * 2**10)
        patch.setattr(pairs, "_PART_PAIRS", at_once)
        patch.setattr(pairs, "_MAX_AT_ONCE", at_once)
        for size in (1, 2, 3):
            assert prepared(folder, size, **given_settings) == expected


def test_every_process_says_the_same_of_a_wrong_row(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "PIECE_BYTES", 64)
    table = [(str(n % 2), "some words of text") for n in range(50)] + [("", "no label")] + [("1", "text")] * 50
    config = PrepareConfig(train=write_csv(tmp_path / "a.csv", table), out=tmp_path / "out")
    failures = on_all(3, lambda process: prepare(config, console=Console(quiet=True), group=relay_of(process)))
    assert {type(failure) for failure in failures} == {DataError}
    assert len({str(failure) for failure in failures}) == 1
    assert {failure.reporting_rank for failure in failures} == {0}
    assert "row 51" in str(failures[0])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv"]


@given(st.lists(st.binary(max_size=50), max_size=5))
def test_frames_hold_what_was_packed(contents):
    assert unpack(pack(contents)) == contents


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """Text whose two parts take a second or so."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("text")
    names = np.array([f"w{number}" for number in range(5000)])
    numbers = (rng.random((40_000, 40)) ** 3 * 5000).astype(int)
    write_csv(folder / "a.csv", [(str(n % 3), " ".join(row)) for n, row in enumerate(names[numbers])])
    return folder / "a.csv"


def command(train, out, *options):
    return [sys.executable, "-m", "distrain", "prepare", "--train", str(train), "--out", str(out), *options]


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
            [*launcher, *command(text, outs[-1], *options)],
            OMPI_ALLOW_RUN_AS_ROOT="1",
            OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1",
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        assert done.stdout.count("done in") == 1
    assert len({str(sorted(tree(out).items())) for out in outs}) == 1
    assert len(outs) > 1
    assert sorted(tmp_path.iterdir()) == sorted(outs)


def test_an_error_with_two_processes_is_told_once(tmp_path):
    table = [(str(n % 2), "some words of text") for n in range(50)] + [("", "no label")]
    train = write_csv(tmp_path / "a.csv", table)
    done = run(command(train, tmp_path / "out", "--workers", "2"))
    assert done.returncode == DataError.exit_code
    assert done.stderr.count("row 51") == 1
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.iterdir()) == [train]


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def wait_for(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
    return result


def is_gone(pid):
    try:
        return "State:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True


@pytest.mark.parametrize(
    ("whom", "number", "code"),
    [
        ("worker", signal.SIGKILL, RankError.exit_code),
        ("chief", signal.SIGTERM, 128 + signal.SIGTERM),
        ("chief", signal.SIGINT, 130),
        ("chief", signal.SIGKILL, -signal.SIGKILL),
    ],
)
def test_a_stopped_process_ends_all_and_leaves_nothing(text, tmp_path, whom, number, code):
    out = tmp_path / "out"
    process = subprocess.Popen(command(text, out, "--workers", "3"), stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        scratch = tmp_path / ".out.preparing" / "scratch"
        wait_for(lambda: scratch.is_dir() and len([*scratch.glob("labels-*")]) == 3)
        workers = children(process.pid)
        assert len(workers) == 2
        os.kill(workers[1] if whom == "worker" else process.pid, number)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    wait_for(lambda: all(map(is_gone, workers)))
    if whom == "worker":
        assert errors.count(b"worker process 2 of --workers 3 was killed by SIGKILL") == 1
    assert b"Traceback" not in errors
    if (whom, number) != ("chief", signal.SIGKILL):
        assert [*tmp_path.iterdir()] == []
    prepare(PrepareConfig(train=text, out=out, workers=1), console=Console(quiet=True))
    assert [*tmp_path.iterdir()] == [out]
