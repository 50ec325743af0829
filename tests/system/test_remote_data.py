"""Commands and processes that read from a server: the weights of local files, no secret shown, each range once."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path

from certificates import self_signed
from commands import SYSTEM
from object_store import object_store
from preloaded import preloaded_python
from prepared_data import rows, write_csv
from web_server import web_server

from distrain.remote.ranged_file import BLOCK_BYTES


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


READ = """
import hashlib, sys
from distrain.remote.path import to_path
print(hashlib.sha256(to_path(sys.argv[1]).open().read()).hexdigest())
"""


def _reader(url: str, cache: Path, **environ: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "DISTRAIN_CACHE": str(cache), **{name: str(value) for name, value in environ.items()}}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", READ, url], env=environment, **pipes)


def test_several_processes_fetch_each_range_once(tmp_path: Path):
    content = random.Random(0).randbytes(6 * BLOCK_BYTES + 5)
    with web_server() as server:
        server.files["/a.bin"] = content
        readers = [_reader(server.url("/a.bin"), tmp_path / "cache") for _ in range(3)]
        answers = {reader.communicate(timeout=60) for reader in readers}
    assert answers == {(f"{hashlib.sha256(content).hexdigest()}\n", "")}
    assert server.sent <= len(content) + 3


def test_a_trusted_server_may_not_lead_on_to_one_without_tls(tmp_path: Path):
    trust = {"SSL_CERT_FILE": tmp_path / "cert.pem"}
    with web_server() as plain, web_server(self_signed(tmp_path)) as secure:
        plain.files["/a.csv"] = secure.files["/a.csv"] = b"1,a\n"
        answer, _ = _reader(secure.url("/a.csv"), tmp_path / "one", **trust).communicate(timeout=60)
        assert answer == hashlib.sha256(b"1,a\n").hexdigest() + "\n"
        secure.redirect = plain.url("/a.csv")
        answer, errors = _reader(secure.url("/a.csv"), tmp_path / "two", **trust).communicate(timeout=60)
        assert answer == ""
        assert "the server leads on to an http:// address" in errors
