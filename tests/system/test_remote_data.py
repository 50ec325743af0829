"""Whole commands on data of a server: the same weights as on local files, and no secret is shown."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from commands import SYSTEM
from object_store import object_store
from preloaded import preloaded_python
from prepared_data import rows, write_csv
from web_server import web_server


def _distrain(cache: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*preloaded_python(), "-m", "distrain", *map(str, arguments)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "DISTRAIN_CACHE": str(cache)}
    done = subprocess.run(command, env=environment, cwd=SYSTEM, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "secret" not in done.stdout + done.stderr
    return done


def test_remote_text_and_shards_give_the_weights_of_local_files(tmp_path: Path):
    cache, text = tmp_path / "cache", write_csv(tmp_path / "train.csv", rows(400))
    with web_server() as server:
        server.files["/train.csv"] = text.read_bytes()
        train = server.url("/train.csv?sig=secret")
        _distrain(cache, "prepare", "--train", train, "--out", tmp_path / "data", "--workers", 2)
    _distrain(cache, "prepare", "--train", text, "--out", tmp_path / "local", "--workers", 1)
    index = "dataset.json"
    assert (tmp_path / "data" / index).read_bytes() == (tmp_path / "local" / index).read_bytes()
    with object_store() as store:
        url = store.put_folder(tmp_path / "data", "data")
        for data, run in ((url, "remote"), (tmp_path / "local", "here")):
            settings = ("--epochs", 1, "--strategy", "single", "--no-jit")
            _distrain(cache, "train", "--data", data, "--run", tmp_path / run, *settings)
        summaries = [json.loads((tmp_path / run / "summary.json").read_text()) for run in ("remote", "here")]
        assert len({summary["weights_sha256"] for summary in summaries}) == 1
        assert json.loads((tmp_path / "remote/config.json").read_text())["data"] == url
        assert "whole" in _distrain(cache, "verify", url).stdout
