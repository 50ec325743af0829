"""`prepare` on several ranks, which are threads here, writes the same bytes as on one."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from prepared_data import tree, write_csv
from rich.console import Console
from threads_as_processes import on_all

from distrain.cluster.error_relay import ErrorRelay
from distrain.config import PrepareConfig
from distrain.data.prepared import dataset_writer
from distrain.errors import DataError
from distrain.prepare.pipeline import prepare
from distrain.prepare.worker_group import pack, unpack
from distrain.text.readers import lines
from distrain.text.vectorizers import ngram_counts, token_store


def relay_of(process):
    return ErrorRelay(process, end_peers=process.shared.barrier.abort)


def prepared(folder, size, **settings):
    """Prepare on `size` threads; return the files by name."""
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
def test_any_number_of_processes_and_any_memory_give_the_same_bytes(
    table, vectorizer, has_test, chunk_bytes, divisor, at_once
):
    table = [("1", "the of ab", "the"), ("2", "the of ab", "of ab"), *table]  # at least two texts of each class
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        train = write_csv(folder / "a.csv", table)
        test = write_csv(folder / "b.csv", table[::-1]) if has_test else None
        given_settings = {"train": train, "test": test, "vectorizer": vectorizer, "top_k": 20, "holdout": 0.3}
        patch.setattr(dataset_writer, "SHARD_BYTES", 600)
        # First few blocks of many rows and much memory; then blocks of a few rows and little memory.
        expected = prepared(folder, 1, **given_settings)
        patch.setattr(lines, "CHUNK_BYTES", chunk_bytes)
        patch.setattr(token_store, "_TABLE_DIVISOR", divisor * 2**10)
        patch.setattr(ngram_counts, "_PART_PAIRS", at_once)
        patch.setattr(ngram_counts, "_MAX_AT_ONCE", at_once)
        for size in (1, 2, 3):
            assert prepared(folder, size, **given_settings) == expected


def test_all_ranks_raise_the_same_error_for_a_wrong_row(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "CHUNK_BYTES", 64)
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
