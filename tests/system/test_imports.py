"""What a fresh interpreter loads: importing distrain, its help and its plans load no TensorFlow."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import distrain
from distrain.errors import ERROR_BY_EXIT_CODE

ROOT = Path(distrain.__file__).parents[1]
HEAVY = ("tensorflow", "keras")


def loaded_by(code):
    """Return the heavy packages that a fresh interpreter has loaded after `code`."""
    program = (
        f"import sys\ntry:\n    {code}\nexcept SystemExit:\n    pass\nprint([m for m in {HEAVY} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    "code",
    [
        "import distrain.cli.main, distrain.training.run, distrain.runs.directory",
        "import runpy; sys.argv = ['distrain', '--help']; runpy.run_module('distrain', run_name='__main__')",
        "import distrain; distrain.BatchGenerator, distrain.fit, distrain.TrainConfig, distrain.epoch_order",
        "from distrain.cli.main import main; main(['plan', '--data', 'absent', '--replicas', '2'])",
        "import distrain.planning.audit, distrain.planning.table, distrain.prepare.pipeline",
    ],
)
def test_no_tensorflow_is_loaded(code):
    assert loaded_by(code) == "[]"


def test_the_probe_sees_a_heavy_package():
    assert loaded_by("import types; sys.modules['keras'] = types") == "['keras']"


def test_another_keras_backend_is_refused_by_name():
    code = "from distrain.keras_backend.start import require_tensorflow; require_tensorflow()"
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "ConfigurationError: Keras is set to run on 'jax'" in done.stderr


def test_python_without_docstrings_and_assertions_runs_commands():
    run = subprocess.run([sys.executable, "-OO", "-m", "distrain", "--help"], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
    for code, kind in ERROR_BY_EXIT_CODE.items():
        assert f"  {code:<4}{kind.meaning[:40]}" in run.stdout
