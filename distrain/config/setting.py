"""One setting: a dataclass field that carries its rule and its help text.

Decides: how a value is checked, and how a refusal reads. Never: names a setting. The constructor, TOML files and the
command line all go through `check_settings`, so all three refuse the same values with the same message.

    >>> @dataclass(frozen=True)
    ... class Config:
    ...     epochs: int = setting("largest number of epochs", default=100, at_least=1)
    ...     def __post_init__(self) -> None:
    ...         check_settings(self)
    >>> Config(epochs=0)
    Traceback (most recent call last):
    distrain.errors.ConfigurationError: --epochs is 0, but it must be at least 1.
"""

from __future__ import annotations

import dataclasses
import os
import re
import sys
import types
import typing
from dataclasses import MISSING, dataclass
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from distrain.errors import ConfigurationError
from distrain.remote.path import RemotePath, is_url, to_path

MAX_NUMBER = 10**12  # bound of all numbers without a bound of their own: 10^12 steps of 1 ms take 31 years
MAX_SHOWN = 100  # characters of a refused value in a message
_SECONDS = {"h": 3600, "m": 60, "s": 1}


class Duration(float):
    """A number of seconds, made from a number, or from a text such as "90" or "1h30m"."""

    PATTERN = r"(?=.*[1-9])(\d{1,9}(\.\d{1,99})?|(\d{1,6}h)?(\d{1,8}m)?(\d{1,9}s)?)"  # at most 300 years
    RULE = "above 0: seconds, or hours, minutes and seconds as in 1h30m or 90s"

    def __new__(cls, value: float | str) -> Duration:
        """Return the seconds.

        Raises:
            ValueError: a text is no duration.
        """
        text = str(value)
        if re.fullmatch(cls.PATTERN, text) is None:
            raise ValueError(f"{text!r} must be {cls.RULE}")
        parts = re.findall(r"(\d+)([hms])", text)
        return super().__new__(cls, sum(int(number) * _SECONDS[unit] for number, unit in parts) if parts else text)


_ACCEPTED: dict[type, tuple[type, ...]] = {
    Path: (str, os.PathLike, RemotePath),
    str: (str, os.PathLike),
    int: (Integral,),
    float: (Real,),
    bool: (bool,),
    tuple: (tuple, list),
    Duration: (Real, str),
}


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a field says about its values.

    Attributes:
        help: what the setting means, in one phrase without its default.
        name: name of the field.
        kind: type of a value: `Path`, `str`, `int`, `float`, `bool`, `Duration`, or `tuple` for several strings.
        default: value of a setting that is left out; `dataclasses.MISSING` if the setting must be given.
        default_text: words for the default in help texts; empty to show `default` itself.
        metavar: placeholder for a value in help texts.
        option: name on the command line.
        choices: all allowed values; empty if any value is allowed.
        at_least: smallest allowed number.
        above: bound that a number must exceed.
        at_most: largest allowed number.
        below: bound that a number must not reach.
        pattern: regular expression that the whole value must match.
        rule: words for `pattern` in messages.
        may_differ: whether ranks of one run may have different values.
        may_change: whether a run that goes on may have another value than before.
        is_repeatable: whether the option may be given several times, each time with one path; `kind` is `tuple`.
        may_be_remote: whether a path may be a URL, which is read and never written.
    """

    help: str
    name: str = ""
    kind: type = str
    default: Any = MISSING
    default_text: str = ""
    metavar: str = ""
    option: str = ""
    choices: tuple[str, ...] = ()
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None
    pattern: str = ""
    rule: str = ""
    may_differ: bool = False
    may_change: bool = False
    is_repeatable: bool = False
    may_be_remote: bool = False

    @property
    def is_required(self) -> bool:
        """Whether a command needs a value for this setting."""
        return self.default is MISSING

    @property
    def shown_default(self) -> str:
        """Words for the default in help texts; empty if there is nothing to show."""
        if self.default_text or self.kind is bool or self.is_required or self.default is None:
            return self.default_text
        return str(self.default)

    def parse(self, text: str) -> Any:
        """Convert a word of the command line. A word that is not of the setting's type stays text for `check`."""
        if self.is_repeatable or self.kind is Path:
            return text if is_url(text) else Path(text)
        if self.kind is tuple:
            return tuple(text.split(","))
        try:
            return self.kind(text)
        except ValueError:
            return text

    def convert(self, value: Any) -> Any:
        """Convert an allowed value to the type of the setting."""
        if self.is_repeatable:
            return tuple(map(self._path, value if isinstance(value, tuple | list) else (value,)))
        if self.kind is Path:
            return self._path(value)
        return self.kind(value)

    def check(self, value: Any) -> None:
        """Raise `ConfigurationError` with setting, value and rule, unless `value` is allowed."""
        if value is None and self.default is None:
            return
        words = value if isinstance(value, tuple | list) else (value,)
        require(all(map(_is_plain_text, words)), self._title, value, "text in UTF-8, without the character NUL")
        if self.is_repeatable:
            paths = words
            is_allowed = len(paths) > 0 and all(isinstance(path, _ACCEPTED[Path]) for path in paths)
            require(is_allowed, self._title, value, "of type Path, or several paths")
            return
        require(self._is_of_kind(value), self._title, value, f"of type {self.kind.__name__}")
        bound = f"at most {MAX_NUMBER:,}" if self.below is None else self.range_rule()
        require(not _is_beyond_floats(value), self._title, value, bound)
        require(self._is_in_range(value), self._title, value, self.range_rule())
        if self.kind in (int, float) and self.below is None:
            require(value <= MAX_NUMBER, self._title, value, bound)

    def _path(self, value: Any) -> Path:
        if is_url(value) and not self.may_be_remote:
            raise ConfigurationError(
                f"{self._title} is {to_path(value)}, but it must be a path of this machine: distrain reads URLs, and "
                "writes files."
            )
        return to_path(value)

    @property
    def _title(self) -> str:
        return self.name if self.kind is bool else self.option

    def _is_of_kind(self, value: Any) -> bool:
        if not isinstance(value, _ACCEPTED[self.kind]) or isinstance(value, bool) != (self.kind is bool):
            return False
        return not isinstance(value, tuple | list) or all(isinstance(part, str) for part in value)

    def _is_in_range(self, value: Any) -> bool:
        return (
            (not self.choices or value in self.choices)
            and (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
            and (not self.pattern or re.fullmatch(self.pattern, str(value)) is not None)
        )

    def range_rule(self) -> str:
        """Say which values are allowed; empty if all values of the type are."""
        if self.rule:
            return self.rule
        if self.choices:
            return f"one of {', '.join(self.choices)}" + (", or left out" if self.default is None else "")
        bounds = {"at least": self.at_least, "above": self.above, "at most": self.at_most, "below": self.below}
        return " and ".join(
            "finite" if bound == float("inf") else f"{words} {bound}"
            for words, bound in bounds.items()
            if bound is not None
        )


def setting(help_text: str, *, default: Any = MISSING, **rules: Any) -> Any:
    """Make a dataclass field of a setting; `rules` are attributes of `Setting`."""
    metadata = {"setting": Setting(help=help_text, default=default, **rules)}
    return dataclasses.field(default=default, metadata=metadata)


@cache
def settings_of(config: type) -> tuple[Setting, ...]:
    """List the settings of a dataclass, with names and types of its fields."""
    kinds = typing.get_type_hints(config)
    return tuple(
        dataclasses.replace(
            field.metadata["setting"],
            name=field.name,
            kind=_kind_of(kinds[field.name]),
            option=field.metadata["setting"].option or "--" + field.name.replace("_", "-"),
        )
        for field in dataclasses.fields(config)
    )


def check_settings(config: Any) -> None:
    """Check each field of a frozen dataclass, and convert values such as NumPy numbers to the type of their setting.

    Raises:
        ConfigurationError: a value has the wrong type or breaks the rule of its setting.
    """
    kind: type = type(config)
    for one in settings_of(kind):
        value = getattr(config, one.name)
        one.check(value)
        if value is not None:
            object.__setattr__(config, one.name, one.convert(value))


def require(condition: bool, name: str, value: object, rule: str) -> None:
    """Raise `ConfigurationError` with the setting, its value and the broken rule, unless `condition` holds."""
    if not condition:
        try:
            shown = repr(str(value) if isinstance(value, Path | RemotePath) else value)
        except ValueError:  # Python writes no integer of more digits
            shown = f"a number of over {sys.get_int_max_str_digits():,} digits"
        shown = shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}..."
        raise ConfigurationError(f"{name} is {shown}, but it must be {rule}.")


def _is_beyond_floats(value: Any) -> bool:
    """Whether a value is an integer that no float holds."""
    return isinstance(value, int) and value.bit_length() >= sys.float_info.max_exp


def _is_plain_text(value: Any) -> bool:
    """Whether a text or path can be written into a JSON file and given to the system; True for other types."""
    if not isinstance(value, str | os.PathLike):
        return True
    try:
        return b"\0" not in os.fspath(value).encode()  # a name that is no UTF-8 has surrogates, which do not encode
    except UnicodeEncodeError:
        return False


def _kind_of(hint: Any) -> type:
    if isinstance(hint, types.UnionType):  # "int | None": None means that the setting is left out
        hint = next(kind for kind in typing.get_args(hint) if kind is not types.NoneType)
    return typing.get_origin(hint) or hint
