"""A program that is asked gets no input, and no more than its time."""

import os
import subprocess

import pytest

from distrain.cluster.other_program import answer_of


def test_the_input_of_this_process_is_not_read():
    reading, writing = os.pipe()
    os.write(writing, b"for this process")
    os.close(writing)
    own = os.dup(0)
    try:
        os.dup2(reading, 0)
        assert answer_of(["cat"], seconds=10).stdout == ""
    finally:
        os.dup2(own, 0)
        os.close(own)
        os.close(reading)


def test_a_program_that_hangs_is_killed():
    with pytest.raises(subprocess.TimeoutExpired):
        answer_of(["sleep", "60"], seconds=0.1)


def test_bytes_that_are_no_text_are_replaced():
    assert answer_of(["printf", "\\377"], seconds=10).stdout == "\N{REPLACEMENT CHARACTER}"
