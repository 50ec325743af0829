"""The progress of a run for Kubeflow Trainer, which shows it as `status.trainerStatus` of the TrainJob.

Decides: what Trainer gets, and how often. Never: what the status of a run holds (`status.py`), or that a run ends.

    with sent_trainer_status(Path("runs/1"), os.environ):        # does nothing outside a TrainJob
        train()

Trainer from 2.2 sets three variables if its feature gate TrainJobStatus is on. They name the URL to post to, and the
files of a certificate and of a token, which changes from time to time. A thread posts `status.json` every ten seconds,
and once more at the end. The format is in docs/proposals/2779-trainjob-progress of kubeflow/trainer.
"""

from __future__ import annotations

import json
import logging
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any

from distrain.errors import CheckpointError
from distrain.reporting.status import read_status

SEND_SECONDS = 10.0  # Trainer asks for at most one request in 5 s
REQUEST_SECONDS = 5.0
URL, CERTIFICATE, TOKEN = (f"KUBEFLOW_TRAINER_SERVER_{name}" for name in ("URL", "CA_CERT", "TOKEN"))

_NO_METRICS = {"time", "boot_seconds", "last_step_time", "last_checkpoint_time", "evaluated_steps", "evaluation_steps"}
_LOG = logging.getLogger(__name__)


@contextmanager
def sent_trainer_status(run: Path, environ: Mapping[str, str]) -> Iterator[None]:
    """Send the status of a run to Kubeflow Trainer inside the context; a failure is logged once, as a warning."""
    if not environ.get(URL):
        yield
        return
    at_end = threading.Event()
    sender = _Sender(run, environ)
    thread = threading.Thread(target=sender.send_until, args=(at_end,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        at_end.set()
        thread.join(2 * REQUEST_SECONDS)


def trainer_status(status: Mapping[str, Any], *, steps_per_second: float) -> dict[str, Any]:
    """Return a status in the format of Trainer.

    Args:
        status: Content of `status.json`.
        steps_per_second: Steps that this process trains in a second; 0 if unknown.
    """
    step, num_steps = status.get("step", 0), status.get("epochs", 0) * status.get("steps_per_epoch", 0)
    metrics = {name: value for name, value in status.items() if type(value) in (int, float) and name not in _NO_METRICS}
    content: dict[str, Any] = {
        "metrics": [{"name": name, "value": f"{value:.6g}"} for name, value in metrics.items()],
        "lastUpdatedTime": datetime.fromtimestamp(status["time"], UTC).isoformat(timespec="seconds"),
    }
    if status["state"] == "finished":
        content |= {"progressPercentage": 100, "estimatedRemainingSeconds": 0}
    elif num_steps:
        content["progressPercentage"] = min(int(100 * step / num_steps), 99)
        if steps_per_second > 0:
            content["estimatedRemainingSeconds"] = max(0, round((num_steps - step) / steps_per_second))
    return content


class _Sender:
    def __init__(self, run: Path, environ: Mapping[str, str]) -> None:
        self._run, self._environ = run, environ
        self._first: tuple[float, int] | None = None  # time and step of the first status with a step
        self._has_warned = False

    def send_until(self, at_end: threading.Event) -> None:
        is_last = False
        while not is_last:
            is_last = at_end.wait(SEND_SECONDS)
            try:
                if status := read_status(self._run):
                    self._post(trainer_status(status, steps_per_second=self._steps_per_second(status)))
            except (OSError, ValueError, HTTPException, CheckpointError) as error:
                if not self._has_warned:
                    _LOG.warning("Kubeflow Trainer gets no progress of this run (%s). Training goes on.", error)
                self._has_warned = True

    def _steps_per_second(self, status: Mapping[str, Any]) -> float:
        now, step = time.monotonic(), status.get("step", 0)
        if self._first is None:
            self._first = (now, step) if step else None
            return 0.0
        began, first_step = self._first
        return float(step - first_step) / max(now - began, 1e-9)

    def _post(self, content: Mapping[str, Any]) -> None:
        token = Path(self._environ.get(TOKEN, "")).read_text(encoding="utf-8").strip()
        request = urllib.request.Request(
            self._environ[URL],
            json.dumps({"trainerStatus": content}).encode(),
            {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        )
        trusted = ssl.create_default_context(cafile=self._environ.get(CERTIFICATE) or None)
        urllib.request.urlopen(request, timeout=REQUEST_SECONDS, context=trusted).close()
