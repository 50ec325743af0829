"""Builds stages of a Dockerfile in folders, each step in a chroot, and runs commands in the result.

    image = build(parse(text), "train", context=Path("."), base=Path("bookworm"), args={}, folder=Path("work"))
    done = image.run(["distrain", "--help"], mounts={"/data": Path("data")})

A folder, as debootstrap makes it, stands for an image from outside the file. Building needs root and Linux namespaces.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from dockerfile import Dockerfile, Step, assignment, in_context, sources

_CERTIFICATES = "/run/certificates.crt"  # where no package puts a file


@dataclass
class Image:
    """A built stage.

    Attributes:
        root: Folder of its root file system.
        env: Environment of commands.
        workdir: Working directory of commands.
        user: Owner of commands, as UID:GID.
        entrypoint: Words before every command.
        command: Words of the default command.
    """

    root: Path
    env: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "0:0"
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)

    def start(
        self, arguments: Sequence[str] = (), *, mounts: Mapping[str, Path] | None = None
    ) -> subprocess.Popen[str]:
        """Start a container: the entry point as process 1, a read-only root, an empty /tmp, no capabilities."""
        binds = []
        for path, source in (mounts or {}).items():
            (self.root / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
            binds.append(f"mount --bind {shlex.quote(str(source))} {self.root}{path}")
        prepare = [
            f"mount --bind {self.root} {self.root}",
            f"mount -o remount,bind,ro {self.root}",
            f"mount -t tmpfs -o mode=1777 tmp {self.root}/tmp",
            f"mount --bind /etc/hosts {self.root}/etc/hosts",
            *binds,
        ]
        words = [*self.entrypoint, *(arguments or self.command)]
        user, group = self.user.split(":")
        who = ["setpriv", f"--reuid={user}", f"--regid={group}", "--clear-groups", "--no-new-privs"]
        who += ["--inh-caps=-all", "--bounding-set=-all"]
        command = _in_chroot(self.root, prepare, f"cd {self.workdir} && exec {shlex.join([*who, *words])}")
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, env=self.env, text=True, start_new_session=True, **pipes)

    def run(
        self, arguments: Sequence[str] = (), *, mounts: Mapping[str, Path] | None = None, seconds: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run a container to its end."""
        with self.start(arguments, mounts=mounts) as process:
            try:
                out, err = process.communicate(timeout=seconds)
            finally:
                process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def build(
    dockerfile: Dockerfile, target: str, *, context: Path, base: Path, args: Mapping[str, str], folder: Path
) -> Image:
    """Build a stage and the stages that it needs.

    Args:
        dockerfile: The parsed file.
        target: Name of the stage.
        context: The repository; COPY sees only files that .dockerignore lets through.
        base: Root file system for every FROM of an image outside the file.
        args: Build arguments.
        folder: Folder for the stages; finished stages in it are used unchanged.

    Raises:
        AssertionError: A step failed; the message holds its output.
    """
    built: dict[str, Image] = {}
    given = {**dockerfile.args, **args}

    def make(name: str) -> Image:
        if name in built:
            return built[name]
        if name not in dockerfile.stages:
            return Image(base, {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"})
        stage = dockerfile.stages[name]
        parent = make(_expand(stage.parent, given))
        image = Image(folder / name, dict(parent.env), parent.workdir, parent.user)
        image.entrypoint, image.command = parent.entrypoint, parent.command
        is_new = not image.root.exists()
        if is_new:
            _run("cp", "-a", "--reflink=auto", str(parent.root), str(image.root))
        own: dict[str, str] = {}
        for step in stage.steps:
            if step.name == "ARG":
                own[step.words] = given[step.words]
            elif step.name in {"RUN", "COPY"} and is_new:
                _apply(step, image, own, context, make)
            elif step.name not in {"RUN", "COPY"}:
                _set(step, image)
        built[name] = image
        return image

    return make(target)


def _set(step: Step, image: Image) -> None:
    if step.name == "ENV":
        image.env.update(assignment(word) for word in shlex.split(step.words))
    elif step.name == "WORKDIR":
        image.workdir = step.words
        (image.root / step.words.lstrip("/")).mkdir(parents=True, exist_ok=True)
    elif step.name == "USER":
        image.user = step.words
    elif step.name == "ENTRYPOINT":
        image.entrypoint = json.loads(step.words)
    else:
        image.command = json.loads(step.words)


def _apply(step: Step, image: Image, args: Mapping[str, str], context: Path, make: Callable[[str], Image]) -> None:
    if step.name == "RUN":
        files, environ = _reach_packages()
        prepare = []
        for path, source in files.items():
            file = _file(image.root / path.lstrip("/"))
            prepare += [f"mount --bind {source} {file}", f"mount -o remount,bind,ro {file}"]
        done = subprocess.run(
            _in_chroot(image.root, prepare, f"cd {image.workdir} && {step.words}"),
            env={**image.env, **args, "HOME": "/root", **environ},
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        assert done.returncode == 0, f"{step.words}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
        return
    stage, what, where = sources(step)
    target = image.root / str(PurePosixPath(image.workdir, where)).lstrip("/")  # an absolute `where` wins
    origin = make(stage).root if stage else context
    allowed = None if stage else in_context(context)
    for name in what:
        _copy(origin, name.lstrip("/"), target, into=where.endswith("/"), allowed=allowed)


def _copy(origin: Path, name: str, target: Path, *, into: bool, allowed: set[PurePosixPath] | None) -> None:
    """Copy the content of a folder into the target, or a file into the target or to its name."""
    source = origin / name
    if allowed is None:
        target.mkdir(parents=True, exist_ok=True)
        _run("cp", "-a", f"{source}/." if source.is_dir() else str(source), str(target))
        return
    for file in sorted(allowed):
        below = file.relative_to(name) if file.is_relative_to(name) else None
        if below is not None:
            path = target / (file.name if below == PurePosixPath() and into else below)
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(origin / file, path)


def _in_chroot(root: Path, prepare: Sequence[str], script: str) -> list[str]:
    """Return a command that runs a script in a new root, with its own process ids and mounts."""
    lines = [*prepare, f"mount -t proc proc {root}/proc", f"mount --rbind /dev {root}/dev"]
    lines.append(f"exec chroot {root} /bin/sh -ec {shlex.quote(script)}")
    isolated = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
    return [*isolated, "/bin/sh", "-ec", "PATH=$PATH:/usr/sbin:/sbin; " + "; ".join(lines)]


def _reach_packages() -> tuple[dict[str, str], dict[str, str]]:
    """Return files, by their path in a step, and variables by which a step reaches package indexes."""
    given = re.compile(r"PIP_\w+|(?i:\w+_proxy)")
    environ = {name: value for name, value in os.environ.items() if given.fullmatch(name)}
    files = {"/etc/resolv.conf": "/etc/resolv.conf", "/etc/hosts": "/etc/hosts"}
    if certificates := os.environ.get("SSL_CERT_FILE") or os.environ.get("PIP_CERT"):
        files[_CERTIFICATES] = certificates
        environ.update(dict.fromkeys(("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"), _CERTIFICATES))
    return files, environ


def _file(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def _expand(words: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda found: values[found[1]], words)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
