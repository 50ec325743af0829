"""A mutated file is read, or refused in a sentence: never a traceback, however the file was made.

`fuzz.py` in this folder tries more mutations.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from fuzzed_files import fuzz_subjects
from hypothesis import given, settings
from hypothesis import strategies as st


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
