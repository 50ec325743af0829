"""Where blocks of rows end."""

from __future__ import annotations

from pathlib import Path

import pytest

from distrain.text.readers.blocks import BLOCK_CHARACTERS, BLOCK_ROWS, grouped
from distrain.text.readers.columns import LabelledText

LONG = "x" * BLOCK_CHARACTERS


@pytest.mark.parametrize(("label", "text", "size"), [("a", "b", BLOCK_ROWS), ("a", LONG, 1), (LONG, "b", 1)])
def test_blocks_are_bounded_in_rows_texts_and_labels(label, text, size):
    rows = (LabelledText(label, text, Path("a.csv"), number, 0) for number in range(2 * size + 1))
    assert [len(block.rows) for block in grouped(rows)] == [size, size, 1]
