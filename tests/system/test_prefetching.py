"""Where batches are made ahead of the steps, and where not."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from preloaded import preloaded_python

CORES = sorted(os.sched_getaffinity(0))
TWO_CORES = pytest.mark.skipif(len(CORES) < 2, reason="needs two cores")
PROGRAM = """
import json, os, sys, threading
os.sched_setaffinity(0, map(int, sys.argv[2].split(",")))
import keras, numpy as np
import distrain

started = []
start = threading.Thread.start

def noted(thread):
    started.append(thread.name)
    start(thread)

threading.Thread.start = noted

def build():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    return model

data = np.ones((40, 2), np.float32), np.ones(40, np.float32)
distrain.fit(build, data, validation=data, run=sys.argv[1], epochs=1)
print(json.dumps(started))
"""


@pytest.mark.parametrize(
    ("num_cores", "num_threads"), [(1, 0), pytest.param(2, 2, marks=TWO_CORES)], ids=["one core", "two cores"]
)
def test_a_run_makes_batches_beside_its_steps_where_it_has_a_core_for_it(tmp_path, num_cores, num_threads):
    done = subprocess.run(
        [*preloaded_python(), "-c", PROGRAM, str(tmp_path / "run"), ",".join(map(str, CORES[:num_cores]))],
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    started = json.loads(done.stdout.splitlines()[-1])
    assert started.count("distrain-prefetch") == num_threads  # one to train, one to evaluate
