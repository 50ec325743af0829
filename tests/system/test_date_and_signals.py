"""A run whose date is set back, and whose launcher repeats its signals, in one process that lives through both."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from commands import ENVIRONMENT, SYSTEM
from run_files import events
from waiting import wait_until

from distrain.cluster.signals import STOP_SIGNALS

# Sets the date that a process sees back by an hour, from the moment at which a file appears.
SHIM = r"""
#define _GNU_SOURCE
#include <stdlib.h>
#include <time.h>
#include <unistd.h>
#include <sys/syscall.h>
#include <sys/time.h>

static long shift(void) {
    const char *file = getenv("DATE_SET_BACK");
    return file && access(file, F_OK) == 0 ? 3600 : 0;
}
int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = syscall(SYS_clock_gettime, clock, now);
    if (!failed && clock == CLOCK_REALTIME) now->tv_sec -= shift();
    return failed;
}
int gettimeofday(struct timeval *now, void *zone) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *now) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (now) *now = precise.tv_sec;
    return precise.tv_sec;
}
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="a compiler builds the clock that is set back")
def test_a_date_that_is_set_back_silences_nothing_and_late_signals_end_nothing(text, tmp_path):
    library, mark, run = tmp_path / "date.so", tmp_path / "set back", tmp_path / "run"
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-o", library, "-x", "c", "-"], input=SHIM, text=True, check=True, timeout=60
    )
    environment = {**ENVIRONMENT, "LD_PRELOAD": str(library), "DATE_SET_BACK": str(mark)}
    words = ["--data", text["ngram"], "--run", run, "--epochs", "100000", "--patience", "0", "--global-batch-size", "8"]
    command = [sys.executable, "-m", "distrain", "train", *map(str, words)]
    process = subprocess.Popen(command, cwd=SYSTEM, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: dates_of_steps(run))
        mark.touch()
        before = time.time()
        wait_until(lambda: sum(date < before - 3000 for date in dates_of_steps(run)) >= 3, 20)
        assert json.loads((run / "status.json").read_text())["time"] < before - 3000
        # Neither the date of this process nor the shifted date decides whether the run is alive.
        for given in (ENVIRONMENT, environment):
            probe = [sys.executable, "-m", "distrain", "alive", "--run", str(run), "--within", "15"]
            subprocess.run(probe, cwd=SYSTEM, env=given, check=True, capture_output=True, timeout=60)
        process.send_signal(signal.SIGHUP)
        wait_until(lambda: any(event["event"] == "stop" for event in events(run)))
        line = next(line for line in process.stderr if line.startswith("distrain: "))
        while process.poll() is None:  # from "everything saved" to the end of the process
            for number in STOP_SIGNALS:
                process.send_signal(number)
            time.sleep(0.01)
        _, rest = process.communicate(timeout=60)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 42, rest
    assert line.startswith("distrain: stopped: Stopped by SIGHUP")
    assert "everything saved" in line
    assert "Traceback" not in rest
    assert list(run.glob("checkpoints/step-*"))


def dates_of_steps(run: Path) -> list[float]:
    """Return the dates of the steps that the run has logged."""
    return [event["time"] for event in events(run) if event["event"] == "step"]
