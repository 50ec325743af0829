"""The commands that containers of the manifests run: preparation, the wait for data, and the startup probe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import manifests
import pytest
from manifests import find, render

from distrain import errors

pytestmark = manifests.needs_kubectl


def test_the_startup_probe_waits_for_the_first_step_and_never_fails(tmp_path):
    """A failed probe would be a warning among the events of every start."""
    job = find(render("--name=w"), "Job", "w")
    shell, option, script, _ = job["spec"]["template"]["spec"]["containers"][0]["startupProbe"]["exec"]["command"]
    hasty = script.replace("sleep 10", "sleep 0.1")
    assert hasty != script
    distrain = tmp_path / "bin" / "distrain"
    distrain.parent.mkdir()
    distrain.write_text(f'#!/bin/sh\nexec {sys.executable} -m distrain "$@"\n')
    distrain.chmod(0o755)
    environment = {**os.environ, "PATH": f"{distrain.parent}:{os.environ['PATH']}"}
    command = [shell, option, hasty, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as probe:
        with pytest.raises(subprocess.TimeoutExpired):
            probe.wait(2)
        status = {"state": "training", "time": time.time(), "step": 1, "epoch": 1}
        (tmp_path / "new").write_text(json.dumps(status))
        (tmp_path / "new").rename(tmp_path / "status.json")
        out, _ = probe.communicate(timeout=60)
    assert (probe.returncode, out) == (0, b"")


def _run_words(words: list[str], tmp_path: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command of a container, with a `distrain` that prints its arguments."""
    stand_in = tmp_path / "bin" / "distrain"
    stand_in.parent.mkdir(exist_ok=True)
    stand_in.write_text('#!/bin/sh\nprintf "%s|" "$@"\n')
    stand_in.chmod(0o755)
    environment = {"PATH": f"{stand_in.parent}{os.pathsep}{os.environ['PATH']}", **variables}
    words = [manifests.expanded(word, environment) for word in words]
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=30)


def test_preparing_is_done_once(tmp_path):
    documents = render("--name=p", "--layout=prepare", "--data=/data/x", "--train=/data/a b.csv", "--holdout=0.2")
    container = find(documents, "Job", "p-prepare")["spec"]["template"]["spec"]["containers"][0]
    data = tmp_path / "prepared"
    words = [str(data) if word == "/data/x" else word for word in container["args"]]
    first = _run_words(words, tmp_path)
    assert first.stdout == f"prepare|--out={data}|--workers=4|--train=/data/a b.csv|--holdout=0.2|"
    data.mkdir()
    (data / "dataset.json").touch()
    again = _run_words(words, tmp_path)
    assert (again.returncode, again.stdout) == (0, f"{data} is prepared\n")


@pytest.mark.parametrize("written", ["dataset.json", "train.y.npy", "train.y.topic.npy", None])
def test_training_waits_for_its_data_with_a_bound(written, tmp_path):
    job = find(render("--name=t", "--data=/data/x"), "Job", "t")
    (waiting,) = job["spec"]["template"]["spec"]["initContainers"]
    assert waiting["env"] == [{"name": "DATA", "value": "/data/x"}]
    words = [word.replace("timeout 3600 ", "timeout 1 ") for word in waiting["args"]]
    assert words != waiting["args"]
    if written:
        (tmp_path / written).touch()
    done = _run_words(words, tmp_path, DATA=str(tmp_path))
    assert done.returncode == (0 if written else errors.DataError.exit_code)
    assert (f"without prepared data in {tmp_path}" in done.stderr) == (written is None)


@pytest.mark.parametrize("data", ["my.shop:data", "s3://bucket/reviews-2"])
def test_training_waits_for_no_function_and_no_server(tmp_path, data):
    job = find(render("--name=t", f"--data={data}", "--model=my.shop:build"), "Job", "t")
    pod = job["spec"]["template"]["spec"]
    (waiting,) = pod["initContainers"]
    assert waiting["env"] == [{"name": "DATA", "value": data}]
    assert f"--data={data}" in pod["containers"][0]["args"]
    done = _run_words(waiting["args"], tmp_path, DATA=data)
    assert (done.returncode, done.stderr) == (0, "")
