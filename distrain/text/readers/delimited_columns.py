"""The columns of a CSV or TSV file, as its first row defines them.

Decides: which field of a row holds label, texts and weight. Never: opens or parses a file.

    columns = columns_of(Path("a.csv"), ColumnLayout(label="class"), ["class", "title", "body"], tabs=False)
    columns.label, columns.texts                             # 0, [1, 2]
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from distrain.errors import ConfigurationError, DataError
from distrain.text.readers.columns import ColumnLayout, no_column, shown_names


class DelimitedColumns(NamedTuple):
    """The columns of a file, as its first row defines them.

    Attributes:
        width: number of fields of each row.
        label: index of the label's field.
        texts: indices of the texts' fields, in the order of the layout.
        weight: index of the weight's field, or None.
    """

    width: int
    label: int
    texts: list[int]
    weight: int | None

    @property
    def are_texts_adjacent(self) -> bool:
        """Whether the texts stand next to each other, in the order of the layout."""
        return self.texts == [*range(self.texts[0], self.texts[-1] + 1)]


def columns_of(path: Path, layout: ColumnLayout, fields: list[str], tabs: bool) -> DelimitedColumns:
    """Return the columns of a file.

    Args:
        path: the file, for messages.
        layout: columns to select.
        fields: the first row, which holds names if the layout selects by name.
        tabs: whether tabs separate the columns.

    Raises:
        ConfigurationError: a column does not exist, or has the name of another, or has two meanings.
        DataError: there is no column of text.
    """
    width, names = len(fields), [name.strip() for name in fields] if layout.has_names else None
    if width < 2:
        separator = "tabs" if tabs else "commas (end the file's name with .tsv for tabs)"
        raise DataError(f"{path}, row 1 has only one column. A label and a text are needed, separated by {separator}.")

    def position(name: str) -> int:
        if names is not None and name in names:
            if names.count(name) > 1:
                raise ConfigurationError(f"{path} has {names.count(name)} columns named {name!r}. Rename all but one.")
            return names.index(name)
        if name.isdecimal() and int(name) < width:
            return int(name)
        have = (
            f"its columns are {shown_names(names)}"
            if names
            else f"it has {width} columns, counted from 0, and no header is read"
        )
        raise no_column(path, name, have)

    default = "label" if names is not None and "label" in names else "0"
    label = position(default if layout.label is None else layout.label)
    weight = None if layout.weight is None else position(layout.weight)
    if layout.texts is None:
        texts = [column for column in range(width) if column not in (label, weight)]
        for name in [names[column] for column in texts] if names is not None else ():
            position(name)  # refuses a name that two columns have
    else:
        texts = [position(name) for name in layout.texts]
    weighed = [("weight", weight, "label", [label]), ("weight", weight, "text", texts)]
    for own, column, other, others in [("label", label, "text", texts), *weighed]:
        if column in others:
            raise ConfigurationError(
                f"{path}: column {column} would be {own} and {other}. Name the {own}'s column with --{own}-column."
            )
    if not texts:
        raise DataError(f"{path} has no column of text besides label and weight. Each row needs a text.")
    return DelimitedColumns(width, label, texts, weight)
