"""What the log of a long command says about its stage."""

from __future__ import annotations

import pytest

from distrain.install import progress


@pytest.mark.parametrize(
    ("log", "stage"),
    [
        ("", ""),
        ("Collecting keras\n", "Collecting keras"),
        ("  Downloading nvidia_cudnn_cu12.whl (664.8 MB)\n", "Downloading nvidia_cudnn_cu12.whl (664.8 MB)"),
        (
            "[1/117] Building CXX object a.cc.o\n[12/117] Building CXX object b.cc.o\nnote: x\n",
            "12 of 117 files compiled",
        ),
        ("Installing collected packages: " + "a, " * 100, ("Installing collected packages: " + "a, " * 100)[:100]),
    ],
)
def test_the_log_tells_the_stage(log, stage):
    assert progress.stage_of(log) == stage
