"""The log is strict JSON, and an unfinished line is cut off."""

from __future__ import annotations

import errno
import os

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


def test_events_wait_while_the_disk_is_full_and_half_a_line_is_cut_off(tmp_path, monkeypatch, caplog):
    path = tmp_path / "metrics.jsonl"
    write, refused = os.write, []

    def half_then_refuse(descriptor, content):
        refused.append(len(content))
        if len(refused) % 2:
            return write(descriptor, content[:20])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with MetricsLog(path) as log:
        log.write("step", step=1, epoch=1, time=1.0)
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", half_then_refuse)
            for step in (2, 3):
                log.write("step", step=step, epoch=1, time=1.0)
        assert not path.read_bytes().endswith(b"\n")
        log.sync()
        assert [event["step"] for event in read_strictly(path)] == [1, 2, 3]
        log.write("step", step=4, epoch=1, time=1.0)
        assert [event["step"] for event in read_strictly(path)] == [1, 2, 3, 4]
    assert ["No space left on device" in message for message in caplog.messages] == [True]


def test_a_log_that_cannot_be_opened_is_opened_later(tmp_path, caplog):
    path = tmp_path / "run" / "metrics.jsonl"
    with MetricsLog(path) as log:
        path.parent.mkdir()
        log.write("step", step=1, epoch=1, time=1.0)
        log.sync()
    assert len(read_strictly(path)) == len(caplog.messages) == 1


def test_a_link_is_not_followed(tmp_path, caplog):
    (tmp_path / "target").write_text("precious\n")
    (tmp_path / "metrics.jsonl").symlink_to("target")
    with MetricsLog(tmp_path / "metrics.jsonl") as log:
        log.write("step", step=1, epoch=1, time=1.0)
    assert (tmp_path / "target").read_text() == "precious\n"
    assert len(caplog.messages) == 1
