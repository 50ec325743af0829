"""`launch/k8s.sh render` passes arguments on unchanged, and knows the options of distrain."""

from __future__ import annotations

import argparse
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

from distrain.cli.main import make_parser, train_arguments
from distrain.config import DEFAULT_GLOBAL_BATCH_SIZE

# Arguments that a shell, YAML, kustomize or Kubernetes could misread.
HOSTILE = [
    *("", " ", " before", "after ", "two  spaces", "\t", "line\nbreak\n", "\n\n", "\r\n", "\x01\x1b[31m"),
    *("null", "~", "yes", "1e3", "0x10", "-1", "2026-01-01", "=", "<<", "- a", "a: b", "a #b", "%", "@", "!tag"),
    *("&a", "*a", "{a}", "[a]", "|", ">", "`id`", "'", '"', "'\"'", "\\", "\\n", "$", "$$", "$HOME", "$(HOME)"),
    *("$$(HOME)", "$(id)", "${HOME}", "*", "?", "~root", "a;b", "a&&b", "---", "...", "{{.}}", "é", "日本", "\u0301"),
    *("\u2028", "\ufeff", "\U0001f600", "--name", "x" * 5000, " a  b " * 50),
]


@manifests.needs_kubectl
@pytest.mark.parametrize(
    "arguments",
    [
        ["--batch-size=7"],
        ["--config=/data/run.toml"],
        ["--global-batch-size", "99"],
        ["--accumulation-steps=2", "--global-batch-size=6"],
    ],
)
def test_a_batch_that_suits_three_pods_is_rendered(arguments):
    assert render("--name=a", "--layout=indexed", "--pods=3", *arguments)


def test_the_default_batch_is_that_of_the_trainer():
    assert f"--global-batch-size {DEFAULT_GLOBAL_BATCH_SIZE})" in (REPOSITORY / "launch" / "k8s_checks.sh").read_text()


# Settings of `distrain train` that take any text.
FREE = ["--model", "--config", "--monitor", "--prometheus", "--resume", "--devices"]


@manifests.needs_kubectl
@pytest.mark.parametrize("layout", ["single-gpu", "mpijob", "trainer"])
def test_hostile_arguments_arrive_as_they_were_given(layout):
    kind = {"single-gpu": "Job", "mpijob": "MPIJob", "trainer": "TrainJob"}[layout]
    some = ["".join(HOSTILE), "", "$(HOME) ", "\n", "--name", "'"]
    asked = [f"{option}={value}" for option, value in zip(FREE, some, strict=True)]
    spec = find(render("--name=a", f"--layout={layout}", "--", *asked), kind, "a")["spec"]
    if layout == "trainer":
        words = spec["trainer"]["args"]
    else:
        launcher = spec["mpiReplicaSpecs"]["Launcher"] if layout == "mpijob" else spec
        words = launcher["template"]["spec"]["containers"][0]["args"]
    assert [expanded(word, {"HOME": "/tmp"}) for word in words[-len(asked) :]] == asked


@manifests.needs_kubectl
def test_hostile_variables_arrive_as_they_were_given():
    asked = {f"NCCL_{number}": value for number, value in enumerate(HOSTILE)}
    job = find(render("--name=a", *(f"--env={name}={value}" for name, value in asked.items())), "Job", "a")
    found = manifests.variables(job["spec"]["template"]["spec"]["containers"][0])
    assert {name: expanded(found[name], {"HOME": "/tmp"}) for name in asked} == asked


@manifests.needs_kubectl
@pytest.mark.parametrize(("asked", "restarts"), [([], "10"), (["--restarts=3"], "3")])
def test_pods_start_their_ranks_again_as_often_as_asked(asked, restarts):
    job = find(render("--name=a", "--layout=indexed", *asked), "Job", "a")
    found = manifests.variables(job["spec"]["template"]["spec"]["containers"][0])
    assert found["DISTRAIN_RESTARTS"] == restarts


@manifests.needs_kubectl
@pytest.mark.parametrize(
    ("layout", "length"), [("single-gpu", 63), ("indexed", 61), ("mpijob", 54), ("trainer", 44), ("prepare", 55)]
)
def test_the_longest_name_is_rendered_and_a_longer_one_refused(layout, length):
    """Names of pods and of operators' Jobs come from it, and a DNS label has at most 63 characters."""
    asked = [f"--layout={layout}", *(["--train=/t"] if layout == "prepare" else [])]
    documents = render(f"--name={'n' * length}", *asked)
    assert all(len(document["metadata"]["name"]) <= 63 for document in documents)
    assert run("render", f"--name={'n' * (length + 1)}", *asked).returncode == 2


@manifests.needs_kubectl
@pytest.mark.parametrize("layout", ["indexed", "mpijob", "trainer", "prepare"])
def test_names_that_yaml_takes_for_something_else_are_names(layout):
    name = "true"
    pods = ("priority-class", "runtime-class", "scheduler", "pull-secret")
    asked = [f"--{option}={name}" for option in ("name", "namespace", "queue", *pods)]
    asked += [f"--node-selector={name}={name}", f"--toleration={name}={name}", "--env=NCCL_X=true", "--protect"]
    documents = render(*asked, f"--layout={layout}", *(["--train=/t"] if layout == "prepare" else []))
    documents += render("--layout=shared", f"--namespace={name}", f"--storage-class={name}")

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
    for template in manifests.pod_templates(documents):
        pod = template["spec"]
        assert (pod["priorityClassName"], pod["runtimeClassName"], pod["schedulerName"]) == (name, name, name)
        assert pod["nodeSelector"] == {name: name}


@manifests.needs_kubectl
def test_arguments_to_prepare_arrive_too():
    asked = [f"--train={value}" for value in HOSTILE]
    job = find(render("--name=a", "--layout=prepare", "--cpus=1500m", *asked), "Job", "a-prepare")
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["requests"]["cpu"] == "1500m"
    assert [expanded(word, {"HOME": "no"}) for word in container["args"][4:]] == ["--workers=2", *asked]
    job = find(render("--name=a", "--layout=prepare", "--train=/t", "--workers", "3"), "Job", "a-prepare")
    assert job["spec"]["template"]["spec"]["containers"][0]["args"][4:] == ["--train=/t", "--workers", "3"]


@pytest.mark.parametrize("command", ["train", "prepare"])
def test_the_script_knows_the_options_of_distrain(command):
    """After a new option of distrain: add it to launch/k8s_arguments.sh."""
    (commands,) = (one for one in make_parser()._actions if isinstance(one, argparse._SubParsersAction))
    kinds: dict[str, set[str]] = {"options": set(), "flags": set(), "lists": set()}
    for action in commands.choices[command]._actions:
        kind = "lists" if isinstance(action, argparse._AppendAction) else "flags" if action.nargs == 0 else "options"
        kinds[kind] |= set(action.option_strings) - {"-h", "--help"}
    text = (REPOSITORY / "launch" / "k8s_arguments.sh").read_text()
    for kind, names in kinds.items():
        (listed,) = re.findall(rf'^{command}_{kind}="([^"]*)"$', text, re.MULTILINE)
        assert sorted(listed.split()) == sorted(names)


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
    assert len(commands) == 9
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
    for script in SCRIPT.parent.glob("k8s*.sh"):
        subprocess.run(["bash", "-n", script], check=True)
    shellcheck = Path(sys.executable).with_name("shellcheck")  # from the development extra
    subprocess.run([shellcheck, "-x", SCRIPT], cwd=REPOSITORY, check=True)
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"Usage: launch/k8s.sh render")
