"""The world and the threads of ranks that mpirun started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPORT = (  # into a file of each rank: mpirun mixes what ranks print, even within a line
    "import os, sys; from pathlib import Path; from distrain.cluster.placement import cpu_threads;"
    "from distrain.cluster.world import find_world; w = find_world(os.environ);"
    "n = len(os.sched_getaffinity(0));"
    "t = cpu_threads(os.environ, w, num_cores=n, machine_cores=os.cpu_count());"
    "right = t == (n if os.environ['BOUND'] else max(1, n // 2));"
    "Path(sys.argv[1], str(w.rank)).write_text(f'{w.size} {w.local_rank} {w.local_size} {w.launcher} {right}')"
)
MPIRUN_PROGRAM = shutil.which("mpirun", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.skipif(MPIRUN_PROGRAM is None, reason="no mpirun here")
@pytest.mark.parametrize("binding", ["none", "core"])
def test_ranks_of_open_mpi(binding, tmp_path):
    if binding == "core" and len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one core cannot be given to two ranks")
    environ = {**os.environ, "BOUND": "" if binding == "none" else "1"}
    if os.geteuid() == 0:
        environ |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    command = [MPIRUN_PROGRAM, "-n", "2", "--oversubscribe", "--bind-to", binding, sys.executable, "-c", REPORT]
    done = subprocess.run([*command, tmp_path], env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    reports = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert reports == {"0": "2 0 2 mpirun True", "1": "2 1 2 mpirun True"}
