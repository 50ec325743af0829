"""Which columns of a file hold the label and the texts, and one row that was read from them.

Decides: how columns are named, and how messages name the location of a row. Never: reads anything.

    layout = ColumnLayout(label="class", texts=("title", "2"))
    layout.has_names                                                       # True: "class" is no number
    LabelledText("4", "Linux ...", Path("a.csv"), row=7, line=9).location     # "a.csv, row 7 (line 9)"
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from distrain.errors import ConfigurationError, DataError

_SHOWN_NAMES = 20
_SHOWN_CHARACTERS = 40


class NoRowsError(DataError):
    """A file holds no rows."""


@dataclass(frozen=True)
class ColumnLayout:
    """Which columns hold what.

    Attributes:
        label: name or number (from 0) of the label column. The default is the column named "label" if columns
            have names, else the first column.
        texts: names or numbers of the text columns, which one space joins. The default is "text" in JSON Lines
            and Parquet, and every column but the label in CSV and TSV.
        weight: name or number of the column with the weight of each row; None if rows have no weights.
        has_numbers: whether labels are numbers to predict, which may be rounded.
        escaped_newlines: CSV and TSV write a newline as a backslash and an n.
    """

    label: str | None = None
    texts: tuple[str, ...] | None = None
    escaped_newlines: bool = False
    weight: str | None = None
    has_numbers: bool = False

    @property
    def label_key(self) -> str:
        """Key of the label, where columns have names."""
        return self.label or "label"

    @property
    def text_keys(self) -> tuple[str, ...]:
        """Keys of the texts, where columns have names."""
        return self.texts or ("text",)

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the label, of the texts and of the weight, in this order, where columns have names."""
        weight = () if self.weight is None else (self.weight,)
        return (self.label_key, *self.text_keys, *weight)

    @property
    def has_names(self) -> bool:
        """Whether a column is selected by name, so that a CSV file must begin with a header."""
        return not all(name.isdecimal() for name in (self.label or "0", self.weight or "0", *(self.texts or ())))


class LabelledText(NamedTuple):
    """One text and its label, as a file holds them.

    Attributes:
        label: the label as written, without white space around it; may be empty.
        text: the text columns, joined by spaces; may be empty.
        path: the file.
        row: number of the row from 1; 0 if the whole file is one row.
        line: number of the line that the row begins on, from 1; 0 if the format has no lines.
        weight: the weight as written; None if rows have no weights.
    """

    label: str
    text: str
    path: Path
    row: int
    line: int
    weight: str | None = None

    @property
    def location(self) -> str:
        """Return the location of the row, for messages."""
        return location(self.path, self.row, self.line)


def location(path: Path, row: int, line: int = 0) -> str:
    """Return the location of a row, for messages. It names the line only if line and row have different numbers."""
    where = f"{path}, row {row:,}" if row else str(path)
    return f"{where} (line {line:,})" if line not in (0, row) else where


def shown_names(names: Sequence[str]) -> str:
    """Return the first few column names, for a message."""
    shown = ", ".join(repr(name[:_SHOWN_CHARACTERS]) for name in names[:_SHOWN_NAMES])
    return shown + (", ..." if len(names) > _SHOWN_NAMES else "")


def no_column(path: Path, name: str, columns: str) -> ConfigurationError:
    """Return the error for a column that does not exist; `columns` is a clause about the existing columns."""
    return ConfigurationError(
        f"{path} has no column {name!r}: {columns}. Correct --label-column, --text-columns or --weight-column."
    )
