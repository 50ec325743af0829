"""A mutated file is read, or refused in a sentence: never a traceback, however the file was made.

`fuzz.py` in this folder tries more mutations.
"""

from __future__ import annotations

import random
import resource
from pathlib import Path

import pytest
from fuzzed_files import fuzz_subjects
from fuzzed_formats import format_subjects
from hypothesis import given, settings
from hypothesis import strategies as st

MAX_GROWN_KIB = 2**18  # of a format, whose valid file has a few KiB


@pytest.fixture(scope="module")
def subjects(tmp_path_factory):
    subjects = fuzz_subjects(Path(tmp_path_factory.mktemp("fuzz")))
    for subject in subjects:
        subject.read()  # the valid file
    return subjects


@given(st.integers(0, 2**64 - 1))
@settings(max_examples=150)
def test_mutated_files_are_read_or_refused(subjects, seed):
    refused = {subject.name: subject.try_mutation(random.Random(f"{subject.name} {seed}")) for subject in subjects}
    assert len(refused) == len(subjects)


def test_mutated_files_of_formats_are_read_or_refused(tmp_path):
    for subject in format_subjects(tmp_path):
        subject.read()  # the valid file
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for number in range(60):
            try:
                subject.try_mutation(random.Random(f"{subject.name} {number}"))
            except Exception as error:
                raise AssertionError(f"{subject.name}, mutation {number}") from error
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        assert grown < MAX_GROWN_KIB, f"{subject.name}: {grown >> 10:,} MiB more than before"
