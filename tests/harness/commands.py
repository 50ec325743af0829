"""Commands and programs in processes of their own, in the folder of the system tests.

done = run_python("-m", "distrain", "doctor")
assert done.returncode == 0, done.stderr
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from preloaded import preloaded_python

SYSTEM = Path(__file__).parents[1] / "system"
ENVIRONMENT = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": f"{SYSTEM.parents[1]}{os.pathsep}{SYSTEM}"}
SMALL_MODEL = {"embedding": 16, "filters": 16}  # sizes of a sequence model that trains fast


def run_python(*arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run Python, forked after its imports, with `arguments` in `SYSTEM`, where models outside distrain are found."""
    return subprocess.run(
        [*preloaded_python(), *map(str, arguments)],
        input=stdin,
        cwd=SYSTEM,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
