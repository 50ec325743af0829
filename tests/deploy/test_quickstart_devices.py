"""quickstart.sh on machines with GPUs: how many replicas it trains, on which devices, in one process or in several.

The programs of the machine only note how they were called.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from stand_in_gpus import smi

REPOSITORY = Path(__file__).resolve().parents[2]

NOTES_CALL = (
    '#!/bin/sh\necho "$(basename "$0") $*" >> "$CALLS"\nmkdir -p quickstart/run-1 quickstart/run-2 quickstart/run-4\n'
)


@pytest.fixture
def tree(tmp_path):
    """A checkout with the data of the demo, in whose environment nothing is to install."""
    shutil.copytree(REPOSITORY / "launch", tmp_path / "launch")
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    for name in ("quickstart/text/test.csv", "quickstart/data/dataset.json", ".venv/bin/python"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for path in (tmp_path / ".venv/bin/distrain", tmp_path / "launch/single_node.sh"):
        path.write_text(NOTES_CALL)
        path.chmod(0o755)
    return tmp_path


def trained(tree, *arguments, gpus, build, has_nccl=False, visible=None):
    """Return the call of training, and the output of the script."""
    python = tree / ".venv/bin/python"
    python.write_text(f"#!/bin/sh\ncase $* in *nccl_built*) exit {int(not has_nccl)} ;; *) exit 0 ;; esac\n")
    python.chmod(0o755)
    sum_ = subprocess.run(["cksum"], input=(tree / "pyproject.toml").read_bytes(), capture_output=True, check=True)
    for name in (f"installed-{build}", f"installed-{build}-mpi"):
        (tree / ".venv" / name).write_bytes(sum_.stdout)
    (tree / "tools").mkdir()
    if gpus:
        smi(tree / "tools", *["NVIDIA H200"] * gpus)
    env = {"PATH": f"{tree / 'tools'}:/usr/bin:/bin", "CALLS": str(tree / "calls")}
    env |= {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    done = subprocess.run(
        [tree / "launch/quickstart.sh", *arguments], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    (call, *_) = (tree / "calls").read_text().splitlines()
    return call.replace("--data quickstart/data --run ", ""), done.stdout


@pytest.mark.parametrize(
    ("arguments", "machine", "call", "words"),
    [
        ([], {"gpus": 0, "build": "cpu"}, "single_node.sh -n 2 quickstart/run-2 --devices cpu", "on the CPU"),
        ([], {"gpus": 1, "build": "gpu"}, "distrain train quickstart/run-1 --devices gpu:0", "1 of 1 GPU(s)"),
        ([], {"gpus": 2, "build": "gpu"}, "distrain train quickstart/run-2 --devices gpu:0,1", "in one process"),
        (
            [],
            {"gpus": 4, "build": "gpu", "has_nccl": True},
            "single_node.sh -n 4 quickstart/run-4 --devices gpu:0,1,2,3",
            "on 4 of 4 GPU(s), in 4 processes",
        ),
        (
            ["--np", "2"],
            {"gpus": 4, "build": "gpu"},
            "distrain train quickstart/run-2 --devices gpu:0,1",
            "on 2 of 4 GPU(s)",
        ),
        ([], {"gpus": 4, "build": "gpu", "visible": "2"}, "distrain train quickstart/run-1 --devices gpu:0", "1 of 1"),
        (["-n", "4"], {"gpus": 2, "build": "gpu"}, "single_node.sh -n 4 quickstart/run-4 --devices cpu", "the CPU"),
        ([], {"gpus": 2, "build": "cpu"}, "single_node.sh -n 2 quickstart/run-2 --devices cpu", "rm -r .venv"),
        ([], {"gpus": 2, "build": "gpu", "visible": ""}, "single_node.sh -n 2 quickstart/run-2 --devices cpu", "CPU"),
    ],
)
def test_the_gpus_that_are_there_are_used(tree, arguments, machine, call, words):
    called, said = trained(tree, *arguments, **machine)
    assert called == f"{call} --epochs 20"
    assert words in said
