"""Reads a Dockerfile without a container engine.

    dockerfile = parse(Path("k8s/Dockerfile").read_text())
    [step.words for step in dockerfile.stages["runtime"].steps if step.name == "ENV"]

Supports the instructions that k8s/Dockerfile uses, and raises ValueError for all others.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class Step:
    """An instruction.

    Attributes:
        name: Name in capitals.
        words: Words after the name.
    """

    name: str
    words: str


@dataclass(frozen=True)
class Stage:
    """A stage, which begins with FROM.

    Attributes:
        parent: Image or earlier stage, with unexpanded variables.
        steps: Instructions, in order.
    """

    parent: str
    steps: list[Step]


@dataclass(frozen=True)
class Dockerfile:
    """A whole Dockerfile.

    Attributes:
        args: Defaults of the arguments before the first FROM.
        stages: Stages by name.
    """

    args: dict[str, str]
    stages: dict[str, Stage]


def parse(text: str) -> Dockerfile:
    """Read a Dockerfile.

    Raises:
        ValueError: An instruction, or its form, is not supported.
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
            stages[found[2]] = Stage(found[1], steps)
        elif name == "ARG" and steps is None:
            args.update([_assignment(words)])
        elif steps is not None and name in {"ARG", "RUN", "COPY", "ENV", "WORKDIR", "USER", "ENTRYPOINT", "CMD"}:
            steps.append(Step(name, words))
        else:
            raise ValueError(line)
    return Dockerfile(args, stages)


def in_context(root: Path) -> set[PurePosixPath]:
    """Return the files that .dockerignore lets through to a build, relative to the root of the repository.

    Raises:
        ValueError: .dockerignore has a pattern that is not supported.
    """
    rules = [line for line in (root / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    for rule in rules:
        if not re.fullmatch(r"\*|!?(\*\*/)?[\w./-]+", rule):
            raise ValueError(rule)
    tops = {rule[1:] for rule in rules if rule.startswith("!")} if rules[0] == "*" else {"."}
    files = {file for top in tops for file in _files(root / top)}
    return {file for path in files if not _is_ignored(file := PurePosixPath(path.relative_to(root)), rules)}


def sources(step: Step) -> tuple[str, list[str], str]:
    """Return the parts of COPY: the source stage or "" for the context, the source paths, and the target path."""
    words = shlex.split(step.words)
    stage = words.pop(0).removeprefix("--from=") if words[0].startswith("--from=") else ""
    if any(word.startswith("--") or "*" in word for word in words):
        raise ValueError(step.words)
    return stage, words[:-1], words[-1]


def _instructions(text: str) -> Iterator[str]:
    """Yield logical lines: comments dropped, continued lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            yield " ".join(line.split())


def _assignment(words: str) -> tuple[str, str]:
    """Split NAME=VALUE."""
    name, equals, value = words.partition("=")
    if not equals:
        raise ValueError(words)
    return name, value


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]


def _is_ignored(file: PurePosixPath, rules: Sequence[str]) -> bool:
    """Return whether the last rule that matches the file, or a folder above it, excludes it."""
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
