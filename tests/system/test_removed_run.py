"""A run directory that somebody removes while a job trains ends the job with one sentence, and does not come back."""

from __future__ import annotations

import shutil
import subprocess

from commands import ENVIRONMENT
from preloaded import preloaded_python
from prepared_data import Result, rows, write_csv
from waiting import wait_until


def test_removing_the_run_directory_ends_training_with_one_sentence(tmp_path):
    Result(train=str(write_csv(tmp_path / "train.csv", rows(60))), out=tmp_path / "data", workers=1)
    run = tmp_path / "runs" / "1"
    options = ["--epochs", "5000", "--patience", "0", "--checkpoint-every", "1", "--strategy", "single"]
    command = ["-m", "distrain", "train", "--data", str(tmp_path / "data"), "--run", str(run), *options]
    with subprocess.Popen(
        [*preloaded_python(), *command],
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as job:
        try:
            wait_until(lambda: list(run.glob("checkpoints/step-*")), 120)
            run.rename(tmp_path / "gone")  # in one step, and then all files of it
            shutil.rmtree(tmp_path / "gone")
            _, stderr = job.communicate(timeout=120)
        finally:
            job.kill()
    assert job.returncode == 4, stderr
    (message,) = (line for line in stderr.splitlines() if line.startswith("distrain: error:"))
    assert str(run) in message
    assert "was removed" in message
    assert "Traceback" not in stderr
    assert not run.exists()
