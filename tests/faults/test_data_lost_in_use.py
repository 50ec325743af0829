"""A data file that is cut while a process reads it through memory ends the process with a sentence and exit code 3."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from commands import ENVIRONMENT
from preloaded import preloaded_python
from run_files import events
from small_datasets import ragged, write_dataset
from waiting import wait_until

# Reads the memory map of its last argument, cut to a page, after it has reported maps: of all arguments, of views, of
# none, or of a map that is gone and whose address the system gives to the next map.
READER = """
import os, sys
import numpy as np
from distrain.data.bus_errors import report_lost_pages
from distrain.data.sources import array_examples
if sys.argv[1] == "gone":
    report_lost_pages(np.lib.format.open_memmap(sys.argv[2], mode="r"))
maps = [np.lib.format.open_memmap(path, mode="r") for path in sys.argv[:1:-1]][::-1]
for array in maps:
    if sys.argv[1] == "yes":
        report_lost_pages(array)
    elif sys.argv[1] == "view":
        array_examples(array[5:, None], array[5:])
os.truncate(sys.argv[-1], 4096)
print(np.asarray(maps[-1]).sum())
"""


@pytest.mark.parametrize("reporting", ["yes", "view", "gone", "no"])
def test_a_cut_map_is_named_and_others_stay_bus_errors(tmp_path, reporting):
    paths = [tmp_path / f"{name}.npy" for name in ("whole", "\u00e9 cut")]
    for path in paths:
        np.save(path, np.zeros(100_000))
    command = [sys.executable, "-c", READER, reporting, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, env=ENVIRONMENT, check=False)
    if reporting in ("yes", "view"):
        assert done.returncode == 3
        (line,) = done.stderr.decode().splitlines()
        assert line.startswith(f"distrain: error: {paths[1]} was cut, or its disk failed")
    else:
        assert (done.returncode, done.stderr) == (-signal.SIGBUS, b"")


def test_a_shard_that_is_cut_under_a_run(tmp_path):
    """The run leaves at once, and goes on from its last checkpoint after the shard is restored."""
    data, run = tmp_path / "data", tmp_path / "run"
    write_dataset(data, [ragged([9] * 4000)], test=[ragged([9] * 40)])
    shard = data / "train-00000.columns.npy"
    content = shard.read_bytes()
    command = [*preloaded_python(), "-m", "distrain", "train", "--data", data, "--run", run, "--units", "4"]
    command += ["--patience", "0", "--epochs"]
    output = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([*command, "100000"], **output, env=ENVIRONMENT)
    try:
        wait_until(lambda: any(event["event"] == "checkpoint" for event in events(run)), 120)
        os.truncate(shard, 4096)
        errors = process.communicate(timeout=60)[1]
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 3
    assert errors.splitlines()[-1].startswith(f"distrain: error: {shard} was cut, or its disk failed")
    shard.write_bytes(content)
    epoch = max(event["epoch"] for event in events(run))
    subprocess.run([*command, str(epoch + 1)], capture_output=True, env=ENVIRONMENT, check=True)
    assert any(event["event"] == "resume" for event in events(run))
    assert json.loads((run / "summary.json").read_text())["epochs"] >= epoch
