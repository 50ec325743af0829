"""What TensorFlow says about itself and its GPUs, asked in a process of its own.

Decides: which facts the doctor asks for. Never: judges them.

    $ python -m distrain.doctor.tensorflow_facts
    {"tensorflow": "2.21.0 for CPUs", "version": "2.21.0", "gpus": [], ...}

A fault of a driver may end the process that asks, or hang. Therefore the doctor asks from outside.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from distrain.cluster.other_program import answer_of

SECONDS = 90.0  # TensorFlow takes 3 to 30 s to load; each GPU adds about 2 s without the persistence daemon


def ask(environ: dict[str, str]) -> dict[str, Any]:
    """Return the facts; of a process that failed, only "failure" with the reason."""
    command = [sys.executable, "-P", "-m", "distrain.doctor.tensorflow_facts"]
    environ = {"TF_CPP_MIN_LOG_LEVEL": "2", **environ}
    try:
        done = answer_of(command, seconds=SECONDS, environ=environ)
    except subprocess.TimeoutExpired:
        return {"failure": f"loading it takes more than {SECONDS:g} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode == 0 and lines:
        facts: dict[str, Any] = json.loads(lines[-1])
        return facts
    words = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit code {done.returncode}"]
    return {"failure": words[-1].strip()[:300]}


def _facts() -> dict[str, Any]:
    import keras
    import tensorflow as tf

    from distrain.cluster import nvidia
    from distrain.distribution.usable_gpus import model_of, tensorflow_build, unusable_reason

    gpus = [model_of(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    hidden = nvidia.hides_all_gpus(os.environ)
    present = nvidia.gpus_present()
    return {
        "tensorflow": tensorflow_build(),
        "version": tf.__version__,
        "cuda": str(tf.sysconfig.get_build_info().get("cuda_version", "")),
        "keras": keras.__version__,
        "backend": keras.backend.backend(),
        "gpus": gpus,
        "present": present,
        "hidden": hidden,
        "reason": unusable_reason(os.environ) if present and not gpus and not hidden else "",
    }


if __name__ == "__main__":
    print(json.dumps(_facts()))
