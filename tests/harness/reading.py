"""Files that a test writes, and the rows or the error that a reader makes of them."""

from __future__ import annotations

import pytest

from distrain.errors import DataError
from distrain.text.readers.columns import ColumnLayout
from distrain.text.readers.sources import read_rows
from distrain.text.readers.tally import Bounds, Tally

PLAIN = ColumnLayout()
NO_BOUNDS = Bounds()


def read(path, layout=PLAIN, bounds=NO_BOUNDS, **limits):
    tally = Tally(bounds=bounds)
    return [(row.label, row.text) for row in read_rows(path, layout, tally, **limits)], tally


def refused(path, layout=PLAIN, error=DataError, **limits):
    with pytest.raises(error) as caught:
        read(path, layout, **limits)
    assert str(path) in str(caught.value)
    return str(caught.value)


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path
