"""Blocks of CSV and TSV hold the rows that the csv module reads."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reading import PLAIN, write

from distrain.errors import ConfigurationError, DataError
from distrain.text.readers import lines
from distrain.text.readers.columns import ColumnLayout
from distrain.text.readers.sources import read_blocks, read_rows
from distrain.text.readers.tally import Tally
from distrain.text.readers.texts import Texts
from distrain.text.vectorizers.tokenizer import WordTable


def seen_by_row(path, layout, limit):
    """What the csv module's rows hold, and the error that ends them."""
    tally, rows, message = Tally(), [], None
    try:
        for row in read_rows(path, layout, tally, max_row_bytes=limit):
            rows.append(row)
    except (DataError, ConfigurationError) as error:
        message = str(error)
    splits, ids = WordTable().rows(Texts.of([row.text for row in rows]), add=True)
    words = [ids[start:end].tolist() for start, end in itertools.pairwise(splits)]
    seen = [
        (row.label, numbers, row.location, row.text == "" or row.text.isspace())
        for row, numbers in zip(rows, words, strict=True)
    ]
    return seen, message, tally


def seen_by_block(path, layout, limit):
    """The same of blocks."""
    tally, seen, table = Tally(), [], WordTable()
    try:
        for block in read_blocks(path, layout, tally, max_row_bytes=limit):
            splits, ids = table.rows(block.texts, add=True)
            for row in range(block.texts.num_rows):
                words = ids[splits[row] : splits[row + 1]].tolist()
                seen.append((block.labels[block.label_of[row]], words, block.location(row), row in block.empty))
    except (DataError, ConfigurationError) as error:
        return seen, str(error), tally
    return seen, None, tally


plain_fragments = [
    "1",
    "2",
    " 3 ",
    "label",
    "text",
    "a longer label",
    "some words",
    "the Café",
    "ΟΔΟΣ",
    "x\\nab",
    "中文",
]


hard_fragments = [",", ",", '"', '""', '","', "\t", "\n", "\n", "\r\n", "\r", "\0", " ", "\u00a0", "\udcff"]


whole_rows = ["1,some words\n", '"2","Title","Text, ""of"" it"\n', "1\ttext\n"]


fragments = st.sampled_from([*plain_fragments, *hard_fragments, *whole_rows])


@settings(max_examples=400, deadline=None)
@given(
    st.lists(fragments, min_size=1, max_size=25).map("".join),
    st.sampled_from(
        [
            PLAIN,
            ColumnLayout(label="label"),
            ColumnLayout(label="1", texts=("0",), escaped_newlines=True),
            ColumnLayout("2"),
        ]
    ),
    st.sampled_from(["a.csv", "a.tsv"]),
    st.sampled_from([4, 30, 2**20]),
    st.sampled_from([60, 2**26]),
)
@example('1,some words\n11texttexttexta longer labela longer label""","1,some words\n', PLAIN, "a.csv", 4, 60)
@example("1,some words\n2," + 58 * "x", PLAIN, "a.csv", 4, 60)  # as long as a row may be, without a line end
def test_blocks_hold_what_rows_hold(tmp_path_factory, text, layout, name, chunk_bytes, limit):
    path = write(tmp_path_factory.getbasetemp() / name, text.encode(errors="surrogateescape"))
    with pytest.MonkeyPatch.context() as patch:
        rows, error, tally = seen_by_row(path, layout, limit)
        patch.setattr(lines, "CHUNK_BYTES", chunk_bytes)
        block_rows, block_error, block_tally = seen_by_block(path, layout, limit)
    # A block is handed on only when it is whole, so that an error may come before the rows in front of it.
    assert block_rows == rows if error is None else block_rows == rows[: len(block_rows)]
    assert block_error == error
    if error is None:
        assert block_tally.sentences(path) == tally.sentences(path)
        assert (block_tally.rows, block_tally.num_bytes) == (tally.rows, tally.num_bytes)
