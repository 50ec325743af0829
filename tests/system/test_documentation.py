"""The code in README.md and docs/ works: each block runs, in order, as a reader would run it.

Decides: which blocks count, and how each kind is proven. Never: what the documentation says.

Shell and Python blocks of a page run in one folder, the pages in the order of mkdocs.yml after the README. An HTML
comment above a block changes this:

    <!-- no-run: REASON -->    the block is not run; its commands and options must exist
    <!-- file: NAME -->        the block becomes a file
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from preloaded import preloaded_python

from distrain.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
MIN_REASON = 10  # characters: a block is left out for a reason, not for convenience
FENCE = re.compile(
    r"(?:^<!-- (?P<mark>[\w-]+): (?P<value>[^\n]+) -->\n)?^```(?P<kind>\w*)\n(?P<code>.*?)^```$", re.M | re.S
)
KINDS = {"bash", "python", "json", "toml", "text"}

needs_site = pytest.mark.skipif(importlib.util.find_spec("material") is None, reason="mkdocs-material is not installed")


class Block(NamedTuple):
    """A fenced block: its language, its code, and the comment above it as (mark, value)."""

    kind: str
    code: str
    mark: str
    value: str


def blocks_of(page: str) -> list[Block]:
    found = FENCE.finditer((ROOT / page).read_text(encoding="utf-8"))
    return [Block(each["kind"], each["code"], each["mark"] or "", each["value"] or "") for each in found]


def pages() -> list[str]:
    """README.md, then the pages of the site in the order of its navigation."""

    def leaves(entries: list[dict[str, object]]) -> list[str]:
        values = [value for entry in entries for value in entry.values()]
        return list(itertools.chain(*([v] if isinstance(v, str) else leaves(v) for v in values)))

    navigation = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    return ["README.md", *(f"docs/{leaf}" for leaf in leaves(navigation))]


PAGES = pages()


def program(kind: str, code: str) -> list[str]:
    return ["bash", "-euo", "pipefail", "-c", code] if kind == "bash" else [*preloaded_python(), "-c", code]


def run_page(page: str, folder: Path) -> None:
    """Run the blocks of a page; neighbours of one language share a process, as they do in a reader's session."""
    environment = {
        **os.environ,
        "PATH": f"{folder / 'bin'}{os.pathsep}{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    for block in blocks_of(page):
        if block.mark == "file":
            (folder / "work" / block.value).write_text(block.code, encoding="utf-8")
    runnable = [block for block in blocks_of(page) if not block.mark and block.kind in ("bash", "python")]
    for kind, group in itertools.groupby(runnable, key=lambda block: block.kind):
        code = "".join(block.code for block in group)
        done = subprocess.run(
            program(kind, code),
            cwd=folder / "work",
            env=environment,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, f"{page}:\n{code}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reader's folder, in which the commands of the README have run."""
    folder = tmp_path_factory.mktemp("reader")
    (folder / "bin").mkdir()
    forked = shlex.join(preloaded_python())
    programs = {"distrain": f"{forked} -m distrain", "python": forked, "python3": sys.executable}
    if (BIN / "mpirun").exists():
        programs["mpirun"] = str(BIN / "mpirun")
    for name, command in programs.items():  # the launch scripts look for these three side by side
        (folder / "bin" / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n', encoding="utf-8")
        (folder / "bin" / name).chmod(0o755)
    (folder / "work").mkdir()
    (folder / "work" / "launch").symlink_to(ROOT / "launch")
    run_page("README.md", folder)
    return folder


@pytest.mark.parametrize("page", [page for page in PAGES if page != "README.md" and blocks_of(page)])
def test_the_blocks_of_a_page_run(page, folder):
    if "single_node.sh" in (ROOT / page).read_text(encoding="utf-8") and not (folder / "bin" / "mpirun").exists():
        pytest.skip("mpirun is not installed: pip install 'distrain[mpi]'")
    run_page(page, folder)


def test_the_readme_leaves_a_trained_model(folder):
    summary = json.loads((folder / "work" / "runs" / "1" / "summary.json").read_text(encoding="utf-8"))
    assert summary["epochs"] == 3
    assert summary["validation_accuracy"] > 0.5


def test_the_page_of_the_run_directory_names_exactly_what_a_run_writes(folder):
    text = (ROOT / "docs/reference/run-directory.md").read_text(encoding="utf-8")
    run = folder / "work" / "runs" / "1"

    def named(section: str) -> set[str]:
        names = re.findall(r"^\| (.+?) \|", text.split(section, 1)[1].split("\n## ", 1)[0], re.M)
        return {name for cell in names for name in re.findall(r"`([\w./]+)`", cell)}

    assert {name.rstrip("/") for name in named("# Run directory")} == {path.name for path in run.iterdir()}
    assert named("## `summary.json`") == set(json.loads((run / "summary.json").read_text(encoding="utf-8")))
    (checkpoint, *_) = (run / "checkpoints").iterdir()
    assert named("## `checkpoints/step-NNNNNNNN/`") == {path.name for path in checkpoint.iterdir()}
    events = {json.loads(line)["event"] for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()}
    assert all(f"`{event}`" in text for event in events)


@pytest.mark.parametrize("page", PAGES)
def test_each_block_has_a_known_language_and_a_known_mark(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    assert len(blocks_of(page)) * 2 == len(re.findall(r"^\s*```", text, re.M)), "a block that this test cannot read"
    marks = re.findall(r"^<!-- (?:no-run|file):", text, re.M)
    assert len(marks) == sum(block.mark != "" for block in blocks_of(page)), "a comment that stands above no block"
    for block in blocks_of(page):
        assert block.kind in KINDS
        assert block.mark in ("", "no-run", "file")
        assert block.mark != "no-run" or len(block.value) >= MIN_REASON
        if block.kind == "toml":
            tomllib.loads(block.code)


NOT_RUN = [(page, block) for page in PAGES for block in blocks_of(page) if block.mark == "no-run"]


@pytest.mark.parametrize("block", [pytest.param(block, id=page) for page, block in NOT_RUN])
def test_commands_that_are_not_run_exist_with_their_options(block, capsys):
    if block.kind == "python":
        compile(block.code, "block", "exec")
        return
    for line in block.code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        script = next((word for word in words if word.removeprefix("./").startswith("launch/")), None)
        known = (ROOT / script).read_text(encoding="utf-8") if script else ""
        command = None
        if "distrain" in words:
            command = words[words.index("distrain") + 1]
            own = words[words.index(command) :]
        elif script:
            own = words[words.index(script) + 1 :]
            command = "train"  # the launch scripts pass what they do not know to it
        if command:
            with pytest.raises(SystemExit) as left:
                main([command, "--help"])
            assert left.value.code == 0
            known += capsys.readouterr().out
            for option in (word for word in own if re.match(r"--?\w", word)):
                assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", known), f"{line}: {option}"


@needs_site
def test_the_site_builds_without_warnings_and_asks_no_other_host(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    for page in (tmp_path / "site").rglob("*.html"):
        loaded = re.findall(r'<(?:script|link|img|iframe)\b[^>]*(?:src|href)="(https?:[^"]*)"', page.read_text("utf-8"))
        assert not loaded, page
    assert "<!-- generated" not in "".join(page.read_text("utf-8") for page in (tmp_path / "site").rglob("*.html"))


def test_every_link_of_the_readme_leads_to_a_file():
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not link.startswith("http") and not (ROOT / link).exists()] == []


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/reference/settings.md"])
def test_every_path_that_a_page_names_exists(page):
    names = re.findall(
        r"`(?:\./)?((?:[\w.-]+/)+(?:[\w-]+\.\w+)?|[\w-]+\.(?:py|sh|md))`", (ROOT / page).read_text("utf-8")
    )
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    known = {"utils.py"}  # named as a file that must not be
    assert names
    assert [name for name in names if name not in known and not any(_names(path, name) for path in listed)] == []


def _names(path: str, name: str) -> bool:
    """Return whether the path is the file `name`, or lies in the folder `name`."""
    return f"/{path}".endswith(f"/{name}") or (name.endswith("/") and f"/{name}" in f"/{path}")


def test_the_picture_of_the_rooms_shows_the_lines_of_the_import_contract():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    lines = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    picture = (ROOT / "docs/images/rooms.svg").read_text(encoding="utf-8")
    drawn: dict[str, set[str]] = {}
    for height, name in re.findall(r'<text x="[\d.]+" y="([\d.]+)">(\w+)</text>', picture):
        drawn.setdefault(height, set()).add(name)
    assert [drawn[height] for height in sorted(drawn, key=float)] == [set(re.findall(r"\w+", line)) for line in lines]
