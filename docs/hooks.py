"""Fills the reference pages when mkdocs builds them: commands, settings and exit codes come from the code.

Decides: how the tables look, and that a block which is a file shows the file's name. Never: describes anything; the
parser, the settings and the error classes do.

    <!-- generated: exit codes -->    in a page becomes the table of exit codes
    <!-- file: shapes.py -->          before a block becomes the title of the block
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Iterable
from typing import Any

from distrain.cli.main import make_parser
from distrain.cli.options import exit_codes
from distrain.config import PlanConfig, PrepareConfig, SynthConfig, TrainConfig, settings_of
from distrain.config.source import PrepareSourceConfig

WIDTH = "80"  # characters of a help text, whatever terminal the site is built in


def commands_markdown() -> str:
    """Return the help text of each command under its own heading."""
    os.environ["COLUMNS"] = WIDTH
    (commands,) = (action for action in make_parser()._actions if isinstance(action, argparse._SubParsersAction))
    helps = {name: command.format_help().rstrip() for name, command in commands.choices.items()}
    return "\n\n".join(f"## distrain {name}\n\n```text\n{text}\n```" for name, text in helps.items())


def settings_markdown() -> str:
    """Return a table of settings for each command that has settings."""
    configs = {
        "train": TrainConfig,
        "prepare": PrepareConfig,
        "prepare --source": PrepareSourceConfig,
        "plan": PlanConfig,
        "synth": SynthConfig,
    }
    parts = []
    for command, config in configs.items():
        rows = [
            (f"`{one.option}`", one.help, one.range_rule(), "must be given" if one.is_required else one.shown_default)
            for one in settings_of(config)
        ]
        parts.append(f"## distrain {command}\n\n{_table(('Option', 'Meaning', 'Allowed', 'Default'), rows)}")
    return "\n\n".join(parts)


def exit_codes_markdown() -> str:
    """Return a table of all exit codes."""
    return _table(("Code", "Meaning"), exit_codes().items())


def _table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


GENERATED: dict[str, Callable[[], str]] = {
    "commands": commands_markdown,
    "settings": settings_markdown,
    "exit codes": exit_codes_markdown,
}


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Replace each marker of a page by the table that it names, or by the title of the block below."""
    markdown = re.sub(r"<!-- file: (\S+) -->\n+```(\w+)\n", r'```\2 title="\1"\n', markdown)
    for name, make in GENERATED.items():
        marker = f"<!-- generated: {name} -->"
        if marker in markdown:
            markdown = markdown.replace(marker, make())
    return markdown
