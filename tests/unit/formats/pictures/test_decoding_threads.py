"""Pictures are decoded in threads, except in data workers, which are as many as the user asked for."""

from __future__ import annotations

import threading

import pytest

from distrain.data.workers.process import WORKER_VARIABLE
from distrain.formats.pictures import decoding_threads


@pytest.mark.parametrize("is_worker", [False, True])
def test_a_data_worker_decodes_in_one_thread(monkeypatch, is_worker):
    monkeypatch.setattr(decoding_threads, "own_cores", lambda *given: 3)
    if is_worker:
        monkeypatch.setenv(WORKER_VARIABLE, "1")
    decoding_threads._num_threads.cache_clear()
    found = decoding_threads.in_threads(lambda item: (item, threading.current_thread().name), range(40))
    decoding_threads._num_threads.cache_clear()
    assert [item for item, _ in found] == list(range(40))
    assert all((name == "MainThread") == is_worker for _, name in found)
