"""The log is strict JSON, and an unfinished line is cut off."""

from __future__ import annotations

import numpy as np
import pytest
from reported_runs import read_strictly, write_log

from distrain.reporting.metrics_log import MAX_LINE_BYTES, MetricsLog


def test_a_log_is_strict_json_and_what_is_not_finite_is_null(tmp_path):
    path = tmp_path / "metrics.jsonl"
    values = {
        "loss": float("nan"),
        "best": True,
        "f": np.float32(0.5),
        "i": np.int64(3),
        "up": float("inf"),
        "f1": [0.5, float("nan")],
    }
    with MetricsLog(path) as log:
        log.write("epoch", step=np.int64(2), epoch=1, time=5.0, values={**values, "step": 99})
        assert read_strictly(path) == [
            {
                "event": "epoch",
                "step": 2,
                "epoch": 1,
                "time": 5.0,
                "loss": None,
                "best": True,
                "f": 0.5,
                "i": 3,
                "up": None,
                "f1": [0.5, None],
            }
        ], "each line is on disk before the next"


@pytest.mark.parametrize("tail", [b"x" * 10, b"x" * (3 * MAX_LINE_BYTES)])
def test_any_unfinished_tail_is_cut_off(tmp_path, tail):
    path = tmp_path / "metrics.jsonl"
    write_log(path, ("epoch", 10, 1))
    whole = path.read_bytes()
    path.write_bytes(whole + tail)
    MetricsLog(path).close()
    assert path.read_bytes() == whole
    path.write_bytes(tail)
    MetricsLog(path).close()
    assert path.read_bytes() == b""
