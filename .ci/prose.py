"""Checks the prose of Markdown files and docstrings, and the length of lines of Markdown.

    $ python .ci/prose.py                      # all Markdown and Python files of the repository
    $ python .ci/prose.py README.md distrain   # these only

Decides: where a sentence begins and ends, and which sentences and lines are refused. A refused sentence has more than
25 words, or a chain of pronouns without a noun (`CHAINS`). A refused line has more than 100 characters, addresses of
links aside. Never: rewrites a sentence, or checks code, tables and headings.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

MAX_WORDS = 25
MAX_LINE = 100  # characters of a line of Markdown, as CONTRIBUTING.md asks
CHAINS = re.compile(r"\b(the one|the ones|(?:that|those) of|what is|which do so|of it)\b(?! hand\b)", re.IGNORECASE)
ROOT = Path(__file__).resolve().parents[1]
UNCHECKED = {"LICENSE", "CHANGELOG.md"}  # one is not ours; the other holds lines of earlier releases

_CODE = re.compile(r"``[^`]+``|`[^`]+`")
_ADDRESS = re.compile(r"https?://\S+|\]\([^)]*\)")
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]*_]*\s+(?=[\"'(\[*_`A-Z0-9])|\n\n")
_ABBREVIATION = re.compile(r"\b(e\.g|i\.e|etc|vs|cf|approx|no|Fig)\.", re.IGNORECASE)
_ENTRY = re.compile(r"^[*\w\[\], .`|()]{1,60}: ")
_BULLET = re.compile(r"([-*+]|\d+\.) ")


class Finding(NamedTuple):
    """A refused sentence or line: where its paragraph begins, and why."""

    path: Path
    line: int
    why: str
    sentence: str


def check_text(path: Path, blocks: Iterator[tuple[int, str]]) -> Iterator[Finding]:
    """Yield the refused sentences in blocks of (line, prose)."""
    for line, block in blocks:
        text = _ADDRESS.sub("]", _CODE.sub("code", block))
        text = _ABBREVIATION.sub(lambda match: match.group(0).replace(".", ""), text)
        for sentence in _SENTENCE_END.split(text):
            words = [word for word in sentence.split() if re.search(r"\w", word)]
            if len(words) > MAX_WORDS:
                yield Finding(path, line, f"{len(words)} words", " ".join(sentence.split()))
            if chain := CHAINS.search(sentence):
                yield Finding(path, line, f'"{chain.group(0)}"', " ".join(sentence.split()))


def check_lines(path: Path, text: str) -> Iterator[Finding]:
    """Yield the lines of prose in Markdown that are too long."""
    for number, line, is_prose in _markdown_lines(text):
        length = len(_ADDRESS.sub("]", line))
        if is_prose and length > MAX_LINE:
            yield Finding(path, number, f"{length} characters", line.strip())


def _markdown_lines(text: str) -> Iterator[tuple[int, str, bool]]:
    """Yield (number, line, whether it is prose) of each line."""
    fence = ""
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        opening = re.match(r"(```+|~~~+)", stripped)
        if opening:
            fence = "" if fence else opening.group(1)
        is_prose = bool(stripped) and not (fence or opening or stripped.startswith(("#", "|", "<", "!!!", "---")))
        yield number, line, is_prose


def markdown_blocks(text: str) -> Iterator[tuple[int, str]]:
    """Yield (first line, text) of each paragraph and list item."""
    block: list[str] = []
    start = 1
    for number, line, is_prose in [*_markdown_lines(text), (0, "", False)]:
        stripped = line.strip()
        if block and (not is_prose or _BULLET.match(stripped)):
            yield start, " ".join(block)
            block = []
        if is_prose:
            start = start if block else number
            block.append(_BULLET.sub("", stripped, count=1) if _BULLET.match(stripped) else stripped)


def docstring_blocks(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of each paragraph and each entry of a section in all docstrings of a module."""
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if (docstring := ast.get_docstring(node)) is None:
            continue
        line = node.body[0].lineno
        yield from _docstring_paragraphs(docstring, line)


def _docstring_paragraphs(docstring: str, line: int) -> Iterator[tuple[int, str]]:
    section, block, start = False, [], line
    for number, text in enumerate([*docstring.splitlines(), ""], line):
        stripped = text.strip()
        indent = len(text) - len(text.lstrip())
        heading = stripped in ("Args:", "Attributes:", "Returns:", "Raises:", "Raises (the function does):", "Yields:")
        is_code = (indent >= 4 and not section) or stripped.startswith((">>>", "...", "$ "))
        begins_entry = section and indent == 4 and _ENTRY.match(stripped)
        if block and (not stripped or heading or is_code or begins_entry or _BULLET.match(stripped)):
            yield start, " ".join(block)
            block = []
        section = heading or (section and (indent > 0 or not stripped))
        if stripped and not heading and not is_code:
            start = start if block else number
            block.append(_ENTRY.sub("", stripped, count=1) if begins_entry else _BULLET.sub("", stripped, count=1))


def check_file(path: Path) -> list[Finding]:
    """All findings of one Markdown or Python file."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        return [*check_lines(path, text), *check_text(path, markdown_blocks(text))]
    return list(check_text(path, docstring_blocks(text)))


def files_of(names: list[str]) -> list[Path]:
    """The Markdown and Python files that git knows below `names`."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *names]
    found = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    paths = [ROOT / name for name in found if name.endswith((".md", ".py"))]
    return [path for path in paths if path.is_file() and path.name not in UNCHECKED]


def main(names: list[str]) -> int:
    """Print the refused sentences and lines; return 1 if there are any."""
    findings = [finding for path in files_of(names) for finding in check_file(path)]
    for path, line, why, sentence in findings:
        print(f"{path.relative_to(ROOT)}:{line}: {why}: {sentence[:160]}")
    if findings:
        print(
            f"{len(findings)} places to mend: sentences of at most {MAX_WORDS} words, every pronoun with its noun, "
            f"and lines of at most {MAX_LINE} characters."
        )
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main([str(Path(name).resolve().relative_to(ROOT)) for name in sys.argv[1:]]))
