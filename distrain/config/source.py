"""Settings of `distrain prepare --source`: data of a user's own becomes a folder of arrays.

Decides: which settings there are. Never: imports the function.

    >>> PrepareSourceConfig(source="shop:data", out="data").max_rows
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distrain.config.named_function import FUNCTION_NAME, FUNCTION_RULE
from distrain.config.setting import check_settings, setting
from distrain.config.text import MAX_ROWS


@dataclass(frozen=True)
class PrepareSourceConfig:
    """Settings of `distrain prepare --source`; `--out` and `--max-rows` are options of text too."""

    source: str = setting(
        "in place of text: a function that returns data of your own, as package.module:function; it becomes a folder "
        "of arrays, with --max-rows examples of each part at most",
        pattern=FUNCTION_NAME,
        rule=FUNCTION_RULE,
        metavar="FUNCTION",
    )
    out: Path = setting("folder of arrays to write; only such a folder is replaced", metavar="DIR")
    max_rows: int | None = setting(
        "examples to keep of each part", default=None, default_text="all", at_least=1, at_most=MAX_ROWS, metavar="N"
    )

    def __post_init__(self) -> None:
        check_settings(self)
