"""Options of the command line, made from the settings of a configuration.

Decides: how a setting looks in a help text. Never: repeats a default, a type or a range.

    >>> from distrain.config import SynthConfig
    >>> parser = argparse.ArgumentParser()
    >>> add_settings(parser, SynthConfig)
    >>> given_settings(parser.parse_args(["--out", "text", "--rows", "100"]), SynthConfig)
    {'out': PosixPath('text'), 'rows': 100}
"""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Collection
from pathlib import Path
from typing import Any

from distrain.config import Setting, settings_of
from distrain.errors import ERROR_BY_EXIT_CODE, ConfigurationError
from distrain.remote.path import is_url, to_path

Formatter = argparse.RawDescriptionHelpFormatter


class Parser(argparse.ArgumentParser):
    """A parser that refuses an option of one value if the option is given twice; argparse would keep the last."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.register("action", None, _StoreOnce)  # of options and arguments that name no other action

    def _print_message(self, message: str, file: Any = None) -> None:
        if message:
            print(message, end="", file=file or sys.stderr, flush=True)  # argparse would hide that this fails


class _StoreOnce(argparse.Action):
    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        given = vars(namespace).setdefault("given_options", set())
        if option is not None and self.dest in given:
            raise argparse.ArgumentError(self, "given twice, but it takes one value; give it once")
        given.add(self.dest)
        setattr(namespace, self.dest, values)


def input_path(text: str) -> Path:
    """Return a path or URL to read."""
    try:
        return to_path(text)
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def local_path(text: str) -> Path:
    """Return a path of this machine."""
    if is_url(text):
        raise argparse.ArgumentTypeError("it must be a path of this machine, not a URL")
    return Path(text)


def add_settings(
    command: argparse.ArgumentParser,
    config: type,
    *,
    only: Collection[str] | None = None,
    may_be_missing: bool = False,
) -> None:
    """Add an option for each setting of a configuration.

    Args:
        command: parser of a command.
        config: dataclass of settings, such as `TrainConfig`.
        only: names of the settings to add; default: all.
        may_be_missing: whether required settings may come from elsewhere, such as a TOML file.
    """
    for setting in settings_of(config):
        if only is None or setting.name in only:
            is_required = setting.is_required and not may_be_missing
            if setting.is_repeatable:
                kind: dict[str, Any] = {
                    "action": "extend",
                    "nargs": "+",
                    "type": setting.parse,
                    "metavar": setting.metavar,
                    "required": is_required,
                }
            elif setting.kind is bool:
                kind = {"action": "store_const", "const": not setting.default}
            else:
                metavar = setting.metavar or "|".join(setting.choices) or "N"
                kind = {"type": setting.parse, "metavar": metavar, "required": is_required}
            command.add_argument(setting.option, dest=setting.name, help=help_text(setting), **kind)


def given_settings(options: argparse.Namespace, config: type) -> dict[str, Any]:
    """Collect the settings of a configuration that the command line gave."""
    values = {setting.name: getattr(options, setting.name, None) for setting in settings_of(config)}
    return {name: value for name, value in values.items() if value is not None}


def help_text(setting: Setting) -> str:
    """Say what a setting means, and its default."""
    default = setting.shown_default
    return (setting.help + (f" (default: {default})" if default else "")).replace("%", "%%")


def exit_codes() -> dict[int, str]:
    """Give the meaning of each exit code, in order."""
    return dict(sorted({0: "Done.", **{code: kind.meaning for code, kind in ERROR_BY_EXIT_CODE.items()}}.items()))


def exit_code_table() -> str:
    """Show the exit codes of all commands in lines that fit a terminal."""
    lines = [
        textwrap.fill(text, 76, initial_indent=f"  {code:<4}", subsequent_indent=" " * 6)
        for code, text in exit_codes().items()
    ]
    return "\n".join(["exit codes:", *lines])
