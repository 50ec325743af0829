"""The image of k8s/Dockerfile: its steps that run without a container engine, and its content.

The whole build takes about ten minutes and several gigabytes, because it fetches TensorFlow and compiles Horovod. The
tests make it by buildah if DISTRAIN_IMAGE names an image of Debian 12. Finished stages stay in buildah's store:

    DISTRAIN_IMAGE=debian:bookworm-slim python -m pytest tests/deploy/test_k8s_image.py

DISTRAIN_BUILDAH has further options of `buildah build`, such as volumes with certificates or packages.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import dockerfile
import pytest
from dockerfile_build import Image, build

REPOSITORY = Path(__file__).resolve().parents[2]
FILE = REPOSITORY / "k8s" / "Dockerfile"
HADOLINT = REPOSITORY / ".venv-manifests" / "bin" / "hadolint"  # launch/test.sh makes it
BASE, OPTIONS = os.environ.get("DISTRAIN_IMAGE", ""), shlex.split(os.environ.get("DISTRAIN_BUILDAH", ""))
TARGETS = {"train", "mpijob"}

needs_build = pytest.mark.skipif(
    not BASE,
    reason="building the image takes ten minutes: DISTRAIN_IMAGE names its base (see this file)",
)


def read() -> dockerfile.Dockerfile:
    return dockerfile.parse(FILE.read_text())


@pytest.mark.skipif(not HADOLINT.exists(), reason="no hadolint in .venv-manifests; launch/test.sh puts it there")
def test_the_dockerfile_is_clean_by_hadolint():
    done = subprocess.run([HADOLINT, FILE], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_bases_are_pinned_and_every_stage_is_used():
    file = read()
    assert re.fullmatch(r"[\w./-]+:\S*\d{2,}\S*|[\w./:-]+@sha256:[0-9a-f]{64}", file.args["BASE"])
    assert file.args.keys() == {"DEVICE", "BASE"}  # no image with CUDA
    stages = file.stages.values()
    parents = {stage.parent for stage in stages}
    copied = {dockerfile.sources(step)[0] for stage in stages for step in stage.steps if step.name == "COPY"}
    assert file.stages.keys() - parents - copied == TARGETS
    assert [*file.stages][-1] == "train"  # the default target of a build


def test_what_is_copied_is_let_through_and_nothing_else():
    allowed = dockerfile.in_context(REPOSITORY)
    copied = set()
    for stage in read().stages.values():
        for step in stage.steps:
            if step.name == "COPY" and not dockerfile.sources(step)[0]:
                for name in dockerfile.sources(step)[1]:
                    found = {file for file in allowed if file == PurePosixPath(name) or file.is_relative_to(name)}
                    assert found, step
                    copied |= found
    assert allowed == copied
    tracked = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=REPOSITORY, capture_output=True)
    if tracked.returncode == 0:  # a checkout, and not an archive
        assert {str(file) for file in allowed} <= set(tracked.stdout.decode().splitlines())


def test_the_package_is_whole_in_the_image(tmp_path):
    """Runs the step that installs distrain's code, in a folder with the files of its stage."""
    stage = read().stages["code"]
    (install,) = (step.words for step in stage.steps if step.name == "RUN")
    for file in dockerfile.in_context(REPOSITORY):
        (tmp_path / "context" / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / file, tmp_path / "context" / file)
    command = install.replace(".venv/bin/python", sys.executable).replace("/installed", str(tmp_path / "installed"))
    assert command != install
    done = subprocess.run(["sh", "-ec", command], cwd=tmp_path / "context", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (package,) = (tmp_path / "installed").glob("lib/python3*/site-packages/distrain")
    installed = {str(path.relative_to(package)) for path in package.rglob("*") if path.suffix in (".py", ".typed")}
    root = REPOSITORY / "distrain"
    assert installed == {str(path.relative_to(root)) for path in root.rglob("*") if path.suffix in (".py", ".typed")}
    assert (tmp_path / "installed" / "bin" / "distrain").exists()


def test_the_files_that_install_the_packages_say_what_distrain_is():
    """The stage with the packages has no code of distrain, but pip reads the version from a module."""
    copied = {name for step in read().stages["horovod"].steps if step.name == "COPY" for name in copied_files(step)}
    dynamic = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["dynamic"]
    modules = {one["attr"].rpartition(".")[0] for one in dynamic.values()}
    assert {module.replace(".", "/") + ".py" for module in modules} <= copied


def test_the_files_that_build_horovod_need_no_other(tmp_path):
    for step in read().stages["horovod"].steps:
        if step.name == "COPY":
            _, names, target = dockerfile.sources(step)
            for name in names:
                source, place = REPOSITORY / name, tmp_path / target
                place.mkdir(parents=True, exist_ok=True)
                if source.is_dir():  # COPY takes its content
                    shutil.copytree(source, place, dirs_exist_ok=True)
                else:
                    shutil.copy(source, place)
    command = [sys.executable, "-S", "-m", "distrain.install", "cpu"]  # -S: without any installed package
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "has no pip" in done.stderr


def copied_files(step: dockerfile.Step) -> list[str]:
    """Return where the files of a step come to lie, below its working directory."""
    _, names, target = dockerfile.sources(step)
    return [str(PurePosixPath(target) / PurePosixPath(name).name) for name in names]


needs_init = pytest.mark.skipif(
    shutil.which("tini") is None or os.geteuid() != 0,
    reason="needs tini (apt-get install tini), and root for process numbers of its own",
)


@needs_init
def test_process_1_passes_signals_on_and_reaps(tmp_path):
    """Process 1 has no default actions: without the entry point, a program without a handler would ignore SIGTERM."""
    entrypoint = next(step.words for step in read().stages["runtime"].steps if step.name == "ENTRYPOINT")
    # An orphan ends at once, and disappears from /proc when process 1 has reaped it.
    script = '(true & echo $! >"$0/orphan"); until [ ! -e /proc/$(cat "$0/orphan") ]; do :; done; echo reaped; sleep 60'
    isolated = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    command = [*isolated, *json.loads(entrypoint), "sh", "-c", script, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            assert process.stdout
            assert process.stdout.readline() == "reaped\n"
            init = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())
            os.kill(init, signal.SIGTERM)
            assert process.wait(10) == 128 + signal.SIGTERM
        finally:
            process.kill()


@pytest.fixture(scope="module")
def built() -> Callable[[str], Image]:
    """`built("train")` builds a stage of the image for CPUs."""
    return functools.cache(lambda target: build(target, context=REPOSITORY, base=BASE, options=OPTIONS))


@pytest.fixture
def volumes(tmp_path: Path) -> dict[str, Path]:
    """Empty volumes that uid 1000 may write to."""
    found = {f"/{name}": tmp_path / name for name in ("data", "runs")}
    for folder in found.values():
        folder.mkdir()
        os.chown(folder, 1000, 1000)
    return found


@needs_build
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("target", sorted(TARGETS))
def test_the_image_holds_what_it_runs_and_no_more(built, target):
    root = built(target).root
    names = {path.name for path in root.rglob("usr/bin/*")} | {path.name for path in root.rglob("usr/sbin/*")}
    assert not {"gcc", "g++", "cc", "make", "pip", "pip3", "curl", "sudo"} & names
    assert {"ssh", "sshd"} <= names if target == "mpijob" else not {"ssh", "sshd"} & names
    assert list((root / "etc" / "ssh").glob("ssh_host_*")) == []
    environment = root / "opt" / "distrain" / ".venv"
    assert [path for path in environment.rglob("include") if path.is_dir()] == []
    assert list((environment / "bin").glob("pip*")) == []
    for cache in ("root/.cache/pip", "var/lib/apt/lists", "opt/distrain/distrain"):
        assert not (root / cache).exists() or list((root / cache).iterdir()) == []
    size = int(subprocess.run(["du", "-sm", root], capture_output=True, text=True, check=True).stdout.split()[0])
    assert size < 2500  # MiB, of which TensorFlow is 1000
    assert built(target).user == "1000:1000"


@needs_build
@pytest.mark.timeout(3600)
def test_the_image_trains_on_two_ranks_and_stops_on_request(built, volumes):
    """The image runs as uid 1000, without capabilities, with a read-only root."""
    image = built("train")
    assert image.run(mounts=volumes).stdout.startswith("usage: distrain")
    for command in (
        ["synth", "--out", "/data/text", "--rows", "331"],
        ["prepare", "--train", "/data/text/train.csv", "--test", "/data/text/test.csv", "--out", "/data/prepared"],
    ):
        done = image.run(["distrain", *command], mounts=volumes)
        assert done.returncode == 0, done.stderr
    train = ["--data", "/data/prepared", "--run", "/runs/two", "--epochs", "2", "--strategy", "horovod"]
    done = image.run(["/opt/distrain/launch/single_node.sh", "-n", "2", *train], mounts=volumes)
    assert done.returncode == 0, done.stderr
    summary = json.loads((volumes["/runs"] / "two" / "summary.json").read_text())
    assert (summary["num_replicas"], summary["strategy"]) == (2, "horovod")
    assert (volumes["/runs"] / "two" / "summary.json").stat().st_uid == 1000
    refused = image.run(["touch", "/opt/distrain/x"], mounts=volumes)
    assert "Read-only file system" in refused.stderr

    endless = ["--data", "/data/prepared", "--run", "/runs/one", "--epochs", "100000", "--patience", "0"]
    log = volumes["/runs"] / "one" / "metrics.jsonl"
    with image.start(["distrain", "train", *endless], mounts=volumes) as process:
        deadline = time.monotonic() + 120
        while not (log.exists() and '"epoch": 2' in log.read_text()):
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.1)
        init = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text())
        os.kill(init, signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 42, err


@needs_build
@pytest.mark.timeout(3600)
def test_sshd_of_the_image_runs_as_its_user(built, volumes):
    image = built("mpijob")
    keys = volumes["/runs"].parent / "keys"
    keys.mkdir()
    kind = ["-t", "ecdsa", "-b", "521", "-m", "PEM", "-N", "", "-C", ""]
    subprocess.run(["ssh-keygen", "-q", *kind, "-f", keys / "id_rsa"], check=True)
    shutil.copy(keys / "id_rsa.pub", keys / "authorized_keys")
    for file in keys.iterdir():
        file.chmod(0o644)
    script = "python -m distrain.launchers.mpi_pod worker & for i in 1 2 3 4 5 6 7 8 9; do sleep 0.5; "
    script += "ssh localhost 'echo $HOME; which orted distrain' && break; done; kill $!; wait $!; echo $?"
    done = image.run(["sh", "-c", script], mounts={"/home/mpiuser/.ssh": keys})
    assert done.stdout.split() == ["/tmp", "/opt/venv/bin/orted", "/opt/venv/bin/distrain", "42"], done.stderr
