"""`launch/k8s.sh render` refuses what could not run, and passes arguments on unchanged."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import manifests
import pytest
from manifests import REPOSITORY, SCRIPT, expanded, find, render, run

from distrain.cli.main import train_arguments
from distrain.config import DEFAULT_GLOBAL_BATCH_SIZE

REFUSED = {
    "no command": ([], "is no command; it must be render, apply, status, logs or delete"),
    "unknown command": (["remove", "--name=a"], '"remove" is no command'),
    "no name": (["render"], "--name is missing"),
    "option without a value": (["render", "--name"], "--name needs a value"),
    "empty value": (["render", "--name=a", "--pods="], "--pods needs a value"),
    "capital in a name": (["render", "--name=Reviews"], '--name is "Reviews", but it must be a DNS label'),
    "name that begins with a digit": (["render", "--name=4gpus"], "from a letter to a letter or digit"),
    "name with a line break": (["render", "--name=a\nb"], "must be a DNS label"),
    "path in a name": (["delete", "--name=../a"], "must be a DNS label"),
    "long name": (["render", f"--name={'a' * 64}"], "has 64 characters, but a DNS label has at most 63"),
    "pod's long name": (
        ["render", f"--name={'a' * 61}", "--layout=indexed", "--pods=16", "--gpus=0"],
        "-15 would have 64 characters, but at most 63 are allowed. Remove at least 1",
    ),
    "preparation's long name": (
        ["render", f"--name={'a' * 56}", "--layout=prepare", "--train=/t"],
        "would have 64 characters",
    ),
    "worker's long name": (["render", f"--name={'a' * 55}", "--layout=mpijob"], "would have 64 characters"),
    "namespace": (["render", "--name=a", "--namespace=team_a"], '--namespace is "team_a"'),
    "queue": (["render", "--name=a", "--queue=q: x"], '--queue is "q: x"'),
    "layout": (["render", "--name=a", "--layout=cluster"], '--layout is "cluster", but it must be single-gpu, '),
    "several pods of one": (["render", "--name=a", "--pods=2"], "is one pod; --layout indexed has several"),
    "several GPUs of one": (["render", "--name=a", "--gpus=2"], "--layout multi-gpu has several in one pod"),
    "one GPU of several": (["render", "--name=a", "--layout=multi-gpu", "--gpus=1"], "whole number from 2 to 64"),
    "no pods": (["render", "--name=a", "--layout=indexed", "--pods=0"], '--pods is "0", but it must be a whole number'),
    "GPUs that are no number": (["render", "--name=a", "--layout=indexed", "--gpus=all"], '--gpus is "all"'),
    "octal": (["render", "--name=a", "--layout=indexed", "--pods=010"], '--pods is "010"'),
    "ranks without GPUs of their own": (
        ["render", "--name=a", "--layout=indexed", "--gpus=2", "--ranks=4"],
        "each process needs its own GPU",
    ),
    "ranks of one process": (["render", "--name=a", "--ranks=2"], "--ranks does not fit --layout single-gpu"),
    "GPUs to prepare": (["render", "--name=a", "--layout=prepare", "--gpus=1", "--train=/t"], "one pod on CPUs"),
    "nothing to prepare": (["render", "--name=a", "--layout=prepare"], "--layout prepare needs --train FILE"),
    "data twice to prepare": (
        ["render", "--name=a", "--layout=prepare", "--train=/t", "--out=/data/x"],
        "--out cannot be among the arguments",
    ),
    "arguments without a command": (["render", "--name=a", "--layout=files", "ls"], '"ls" is one'),
    "default batch": (["render", "--name=a", "--layout=indexed", "--pods=3"], "of 128 does not divide by 3 replicas"),
    "batch": (
        ["render", "--name=a", "--layout=indexed", "--pods=2", "--gpus=4", "--", "--global-batch-size", "100"],
        "the global batch of 100 does not divide by 8 replicas",
    ),
    "batch of one pod": (["render", "--name=a", "--layout=multi-gpu", "--gpus=5"], "does not divide by 5 replicas"),
    "accumulated batch": (
        ["render", "--name=a", "--layout=indexed", "--accumulation-steps=3"],
        "does not divide by 2 replicas x 3 accumulation steps",
    ),
    "batch that is no number": (["render", "--name=a", "--global-batch-size=many"], "whole number from 1"),
    "data elsewhere": (["render", "--name=a", "--data=reviews"], "must be a folder on the data volume"),
    "data above": (["render", "--name=a", "--data=/data/../runs"], "must be a folder on the data volume"),
    "data twice": (["render", "--name=a", "--", "--data=/data/x"], "--data cannot be among the arguments"),
    "another run directory": (["render", "--name=a", "--run", "/runs/b"], "the run directory is /runs/a"),
    "image without a tag": (["render", "--name=a", "--image=example.org/distrain"], "must be REGISTRY/NAME:TAG"),
    "image with a space": (["render", "--name=a", "--image=a b:1"], "must be REGISTRY/NAME:TAG"),
    "memory": (["render", "--name=a", "--memory=lots"], "a number of bytes like 16Gi"),
    "cores": (["render", "--name=a", "--cpus=0.5"], "--cpus is "),
    "access": (["render", "--name=a", "--access=ReadOnly"], "--access is "),
    "storage class": (["render", "--name=a", "--storage-class=a b"], "--storage-class is "),
    "bytes that are no text": (["render", "--name=a", "--model", b"\xff"], "is not UTF-8"),
    "control characters": (["render", "--name=a", "--model=\x85"], "has a control character"),
}

# Arguments that a shell, YAML, kustomize or Kubernetes could misread.
HOSTILE = [
    *("", " ", " before", "after ", "two  spaces", "\t", "line\nbreak\n", "\n\n", "\r\n", "\x01\x1b[31m"),
    *("null", "~", "yes", "1e3", "0x10", "-1", "2026-01-01", "=", "<<", "- a", "a: b", "a #b", "%", "@", "!tag"),
    *("&a", "*a", "{a}", "[a]", "|", ">", "`id`", "'", '"', "'\"'", "\\", "\\n", "$", "$$", "$HOME", "$(HOME)"),
    *("$$(HOME)", "$(id)", "${HOME}", "*", "?", "~root", "a;b", "a&&b", "---", "...", "{{.}}", "é", "日本", "\u0301"),
    *("\u2028", "\ufeff", "\U0001f600", "--name", "x" * 5000, " a  b " * 50),
]


@manifests.needs_kubectl
@pytest.mark.parametrize("case", REFUSED)
def test_it_refuses_what_could_not_run(case):
    arguments, message = REFUSED[case]
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    first = done.stderr.decode().partition("\n\n")[0]
    assert first.startswith("error: ")
    assert message in first


@manifests.needs_kubectl
@pytest.mark.parametrize(
    "arguments",
    [
        ["--batch-size=7"],
        ["--config=/data/run.toml"],
        ["--global-batch-size", "100", "--global-batch-size=99"],
        ["--accumulation-steps=2", "--global-batch-size=6"],
    ],
)
def test_a_batch_that_suits_three_pods_is_rendered(arguments):
    assert render("--name=a", "--layout=indexed", "--pods=3", *arguments)


def test_the_default_batch_is_that_of_the_trainer():
    assert f"--global-batch-size {DEFAULT_GLOBAL_BATCH_SIZE})" in (REPOSITORY / "launch" / "k8s_job.sh").read_text()


@manifests.needs_kubectl
@pytest.mark.parametrize("layout", ["single-gpu", "mpijob", "trainer"])
def test_hostile_arguments_arrive_as_they_were_given(layout):
    kind = {"single-gpu": "Job", "mpijob": "MPIJob", "trainer": "TrainJob"}[layout]
    spec = find(render("--name=a", f"--layout={layout}", "--", *HOSTILE), kind, "a")["spec"]
    if layout == "trainer":
        words = spec["trainer"]["args"]
    else:
        launcher = spec["mpiReplicaSpecs"]["Launcher"] if layout == "mpijob" else spec
        words = launcher["template"]["spec"]["containers"][0]["args"]
    assert [expanded(word, {"HOME": "/tmp"}) for word in words[-len(HOSTILE) :]] == HOSTILE


@manifests.needs_kubectl
@pytest.mark.parametrize("layout", ["indexed", "mpijob", "trainer", "prepare"])
def test_names_that_yaml_takes_for_something_else_are_names(layout):
    name = "true"
    asked = [f"--{option}={name}" for option in ("name", "namespace", "queue", "storage-class")]
    documents = render(*asked, f"--layout={layout}", *(["--train=/t"] if layout == "prepare" else []))

    def strings(node: object) -> bool:
        if isinstance(node, dict):
            return all(isinstance(key, str) and strings(value) for key, value in node.items())
        return all(map(strings, node)) if isinstance(node, list) else isinstance(node, str)

    for document in documents:
        assert strings(document["metadata"])
        assert document["metadata"]["namespace"] == name
    find(documents, "NetworkPolicy", name)
    claim = find(documents, "PersistentVolumeClaim", "distrain-data")
    assert claim["spec"]["storageClassName"] == name


@manifests.needs_kubectl
def test_arguments_to_prepare_arrive_too():
    job = find(render("--name=a", "--layout=prepare", "--train", "/data/$(x).csv", *HOSTILE[:-3]), "Job", "a-prepare")
    words = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert [expanded(word, {"x": "no"}) for word in words[5:]] == ["--train", "/data/$(x).csv", *HOSTILE[:-3]]


@manifests.needs_kubectl
@pytest.mark.parametrize("layout", ["single-gpu", "multi-gpu", "indexed"])
def test_the_command_is_one_that_distrain_takes(layout):
    job = find(render("--name=a", f"--layout={layout}", "--epochs", "3", "--seed=7"), "Job", "a")
    words = job["spec"]["template"]["spec"]["containers"][0]["args"]
    own = words[2:] if words[:2] == ["distrain", "train"] else words[3:]
    config = train_arguments(own)
    assert (config.data, config.run) == (Path("/data/prepared"), Path("/runs/a"))
    assert (config.epochs, config.seed) == (3, 7)


@manifests.needs_kubectl
def test_it_runs_from_anywhere_and_leaves_nothing_behind(tmp_path):
    checkout = tmp_path / "check out"
    shutil.copytree(REPOSITORY / "launch", checkout / "launch")
    shutil.copytree(REPOSITORY / "k8s", checkout / "k8s")
    (tmp_path / "temporary").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "temporary")
    done = subprocess.run(
        [checkout / "launch" / "k8s.sh", "render", "--name=a"],
        cwd="/",
        env={**os.environ, "TMPDIR": str(tmp_path / "link")},
        capture_output=True,
        check=True,
    )
    assert b"name: a\n" in done.stdout
    assert list((tmp_path / "temporary").iterdir()) == []


@manifests.needs_kubectl
def test_commands_of_the_guide_can_be_rendered():
    guide = (REPOSITORY / "k8s" / "README.md").read_text()
    (small,) = re.findall(r'^\$ small="(.*)"$', guide, re.MULTILINE)
    commands = re.findall(r"^\$ launch/k8s\.sh apply (.*)$", guide, re.MULTILINE)
    assert len(commands) == 6
    for command in commands:
        written_out = command.replace("$IMAGE", "example.org/distrain:1").replace("$small", small)
        assert render(*shlex.split(written_out))


def test_without_kubectl_it_says_so(tmp_path):
    for name in ("bash", "dirname", "env", "cat"):
        (tmp_path / name).symlink_to(shutil.which(name))
    done = run("render", "--name=a", env={"PATH": str(tmp_path)})
    assert done.returncode == 2
    assert done.stderr.startswith(b"error: kubectl is not on PATH")


def test_it_is_clean_and_prints_its_usage():
    subprocess.run(["bash", "-n", SCRIPT, SCRIPT.with_name("k8s_job.sh")], check=True)
    shellcheck = Path(sys.executable).with_name("shellcheck")  # from the development extra
    subprocess.run([shellcheck, "-x", SCRIPT], cwd=REPOSITORY, check=True)
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"Usage: launch/k8s.sh render")
