"""A Dockerfile without a container engine: read, and its stages built in folders, each step in a chroot.

    dockerfile = parse(Path("k8s/Dockerfile").read_text())
    image = build(dockerfile, "train", context=Path("."), base=Path("bookworm"), args={}, folder=Path("work"))
    done = image.run(["distrain", "--help"], mounts={"/data": Path("data")})

Knows what k8s/Dockerfile uses, and raises ValueError at the rest. What stands for an image from outside the file is a
folder, as debootstrap makes it. Building needs root and Linux namespaces.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

_CERTIFICATES = "/run/certificates.crt"  # where no package puts anything


@dataclass(frozen=True)
class Step:
    """An instruction: its name in capitals, and the words after it."""

    name: str
    words: str


@dataclass(frozen=True)
class Stage:
    """What begins with FROM.

    Attributes:
        name: after AS.
        parent: an image or an earlier stage, with variables in it.
        steps: instructions, in order.
    """

    name: str
    parent: str
    steps: list[Step]


@dataclass(frozen=True)
class Dockerfile:
    """A whole one; `args` are those before the first FROM, with their defaults."""

    args: dict[str, str]
    stages: dict[str, Stage]


def parse(text: str) -> Dockerfile:
    """Read a Dockerfile.

    Raises:
        ValueError: an instruction is unknown here, or written in a way that is.
    """
    args: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    steps: list[Step] | None = None
    for line in _instructions(text):
        name, _, words = line.partition(" ")
        if name == "FROM":
            found = re.fullmatch(r"(\S+) AS (\S+)", words)
            if not found or found[2] in stages:
                raise ValueError(line)
            steps = []
            stages[found[2]] = Stage(found[2], found[1], steps)
        elif name == "ARG" and steps is None:
            args.update([_assignment(words)])
        elif steps is not None and name in {"ARG", "RUN", "COPY", "ENV", "WORKDIR", "USER", "ENTRYPOINT", "CMD"}:
            steps.append(Step(name, words))
        else:
            raise ValueError(line)
    return Dockerfile(args, stages)


def in_context(root: Path) -> set[PurePosixPath]:
    """The files that .dockerignore lets through to a build, relative to the root of the repository.

    Raises:
        ValueError: .dockerignore has a pattern that is unknown here.
    """
    rules = [line for line in (root / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    for rule in rules:
        if not re.fullmatch(r"\*|!?(\*\*/)?[\w./-]+", rule):
            raise ValueError(rule)
    tops = {rule[1:] for rule in rules if rule.startswith("!")} if rules[0] == "*" else {"."}
    files = {file for top in tops for file in _files(root / top)}
    return {file for path in files if not _is_ignored(file := PurePosixPath(path.relative_to(root)), rules)}


def sources(step: Step) -> tuple[str, list[str], str]:
    """Of COPY: the stage that is copied from, or "" for the context; what; where to."""
    words = shlex.split(step.words)
    stage = words.pop(0).removeprefix("--from=") if words[0].startswith("--from=") else ""
    if any(word.startswith("--") or "*" in word for word in words):
        raise ValueError(step.words)
    return stage, words[:-1], words[-1]


@dataclass
class Image:
    """A stage that was built.

    Attributes:
        root: the folder that is its root file system.
        env: its environment.
        workdir: where commands start.
        user: by whom they are run, as UID:GID.
        entrypoint, command: words.
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
        """Start a container: the entry point as process 1, a root that is read-only, an empty /tmp, no capabilities."""
        places = []
        for path, source in (mounts or {}).items():
            (self.root / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
            places.append(f"mount --bind {shlex.quote(str(source))} {self.root}{path}")
        prepare = [
            f"mount --bind {self.root} {self.root}",
            f"mount -o remount,bind,ro {self.root}",
            f"mount -t tmpfs -o mode=1777 tmp {self.root}/tmp",
            f"mount --bind /etc/hosts {self.root}/etc/hosts",
            *places,
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
    """Build a stage and those that it needs.

    Args:
        dockerfile: of `parse`.
        target: name of the stage.
        context: the repository; what .dockerignore holds back is not there for COPY.
        base: a root file system, for every FROM of an image outside the file.
        args: build arguments.
        folder: for the stages; those that are there already are taken as they are.

    Raises:
        AssertionError: a step failed; with what it said.
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
        image.env.update(_assignment(word) for word in shlex.split(step.words))
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
            place = _file(image.root / path.lstrip("/"))
            prepare += [f"mount --bind {source} {place}", f"mount -o remount,bind,ro {place}"]
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
    """A folder's content into the target; a file into it, or as it."""
    source = origin / name
    if allowed is None:
        target.mkdir(parents=True, exist_ok=True)
        _run("cp", "-a", f"{source}/." if source.is_dir() else str(source), str(target))
        return
    for file in sorted(allowed):
        below = file.relative_to(name) if file.is_relative_to(name) else None
        if below is not None:
            place = target / (file.name if below == PurePosixPath() and into else below)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(origin / file, place)


def _in_chroot(root: Path, prepare: Sequence[str], script: str) -> list[str]:
    """A command that runs a script in a root of its own, with process numbers and mounts of its own."""
    lines = [*prepare, f"mount -t proc proc {root}/proc", f"mount --rbind /dev {root}/dev"]
    lines.append(f"exec chroot {root} /bin/sh -ec {shlex.quote(script)}")
    isolated = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
    return [*isolated, "/bin/sh", "-ec", "PATH=$PATH:/usr/sbin:/sbin; " + "; ".join(lines)]


def _reach_packages() -> tuple[dict[str, str], dict[str, str]]:
    """By what this machine's programs reach package indexes: files, by where a step sees them, and environment."""
    given = re.compile(r"PIP_\w+|(?i:\w+_proxy)")
    environ = {name: value for name, value in os.environ.items() if given.fullmatch(name)}
    files = {"/etc/resolv.conf": "/etc/resolv.conf", "/etc/hosts": "/etc/hosts"}
    if certificates := os.environ.get("SSL_CERT_FILE") or os.environ.get("PIP_CERT"):
        files[_CERTIFICATES] = certificates
        environ.update(dict.fromkeys(("PIP_CERT", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"), _CERTIFICATES))
    return files, environ


def _file(place: Path) -> Path:
    place.parent.mkdir(parents=True, exist_ok=True)
    place.touch()
    return place


def _instructions(text: str) -> Iterator[str]:
    """Logical lines: without comments, with continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            yield " ".join(line.split())


def _assignment(words: str) -> tuple[str, str]:
    name, equals, value = words.partition("=")
    if not equals:
        raise ValueError(words)
    return name, value


def _expand(words: str, values: Mapping[str, str]) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda found: values[found[1]], words)


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]


def _is_ignored(file: PurePosixPath, rules: Sequence[str]) -> bool:
    """Whether the last rule that fits the file, or a folder above it, holds it back."""
    ignored = False
    for rule in rules:
        pattern = rule.removeprefix("!")
        paths = [file, *file.parents][:-1]
        if pattern.startswith("**/"):
            fits = any(path.name == pattern[3:] for path in paths)
        else:
            fits = any(fnmatchcase(str(path), pattern) for path in paths)
        ignored = (not rule.startswith("!")) if fits else ignored
    return ignored


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr}"
