"""The memory of a process that reads lines and pages which expand to much more than their bytes."""

from __future__ import annotations

import subprocess
import sys

import pyarrow
from pyarrow import parquet

CHILD = """
import resource, sys, threading, time
from pathlib import Path
import pyarrow.parquet
from distrain.errors import DataError
from distrain.text.readers.columns import ColumnLayout
from distrain.text.readers.sources import read_rows
from distrain.text.readers.tally import Bounds, Tally

def anonymous():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon")) / 1024

def watch():
    while True:
        peak[0] = max(peak[0], anonymous())
        time.sleep(0.002)

before, peak = anonymous(), [0]
threading.Thread(target=watch, daemon=True).start()
for path in sys.argv[1:]:
    try:
        tally = Tally(bounds=Bounds(max_expansion=2**20))
        for row in read_rows(Path(path), ColumnLayout(), tally, max_row_bytes=2**23):
            pass
        print("read")
    except DataError as error:
        print("--memory-mib" in str(error))
print(peak[0] - before)
"""


def test_memory_is_bounded_whatever_a_page_or_a_line_expands_to(tmp_path):
    lists = "[]," * 2_500_000  # 7.5 MB of JSON, and about 160 MB of lists
    (tmp_path / "line.jsonl").write_text(f'{{"label": 1, "text": "a", "more": [{lists}1]}}\n')
    dictionary = pyarrow.DictionaryArray.from_arrays
    one_text = dictionary(pyarrow.array([0] * 3000, pyarrow.int32()), pyarrow.array(["word " * 1_000_000]))
    labels = pyarrow.array(["a", "b"] * 1500).dictionary_encode()
    repeated = pyarrow.table({"label": labels, "text": one_text})
    parquet.write_table(repeated, tmp_path / "row.parquet", compression="zstd")
    texts = [f"{number} " + "word " * 100_000 for number in range(250)]
    table = pyarrow.table({"label": ["a", "b"] * 125, "text": texts})
    one_page = {"use_dictionary": False, "data_page_size": 2**31 - 1, "write_batch_size": 250}
    parquet.write_table(table, tmp_path / "page.parquet", compression="zstd", **one_page)
    parquet.write_table(table, tmp_path / "pages.parquet", compression="zstd", use_dictionary=False, write_batch_size=8)
    paths = [tmp_path / name for name in ("line.jsonl", "row.parquet", "page.parquet", "pages.parquet")]
    command = [sys.executable, "-c", CHILD, *map(str, paths)]
    *results, peak = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert results == ["True", "True", "True", "read"]
    assert float(peak) < 128
