"""Where batches are made ahead of the steps, and where not."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from distrain.distribution.devices import prefetches
from distrain.world import World

CORES = sorted(os.sched_getaffinity(0))
TWO_CORES = pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")
PROGRAM = """
import json, os, sys, threading
os.sched_setaffinity(0, map(int, sys.argv[2].split(",")))
import keras, numpy as np
import distrain

class Threads(keras.callbacks.Callback):
    names = set()
    def on_train_batch_end(self, batch, logs=None):
        self.names |= {thread.name for thread in threading.enumerate()}
    on_test_end = on_train_batch_end

def build():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model

data = np.ones((400, 2), np.float32), np.ones(400, np.float32)  # more batches than are made at a time
watch = Threads()
distrain.fit(build, data, validation=data, run=sys.argv[1], epochs=1, batch_size=1, callbacks=[watch])
print(json.dumps(sorted(watch.names)))
"""


@pytest.mark.parametrize(
    ("num_cores", "beside"), [(1, False), pytest.param(2, True, marks=TWO_CORES)], ids=["one core", "two cores"]
)
def test_a_run_makes_batches_beside_its_steps_where_it_has_a_core_for_it(tmp_path, num_cores, beside):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, tmp_path / "run", ",".join(map(str, CORES[:num_cores]))],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert ("distrain-prefetch" in json.loads(done.stdout.splitlines()[-1])) == beside


@TWO_CORES
def test_ranks_that_share_out_the_cores():
    def rank(local_size: int) -> World:
        return World(rank=0, size=local_size, local_rank=0, local_size=local_size)

    assert prefetches({}, rank(1), on_gpu=False)
    assert not prefetches({}, rank(len(CORES)), on_gpu=False)
    assert prefetches({}, rank(len(CORES)), on_gpu=True)
