"""The progress that Kubeflow Trainer gets, by a server that stands in for its controller, with a certificate."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from certificates import self_signed
from waiting import wait_until

from distrain.reporting import kubeflow_status as module
from distrain.reporting.kubeflow_status import sent_trainer_status, trainer_status

STATUS = {"state": "training", "time": 0.0, "step": 30, "steps_per_epoch": 20, "epoch": 2, "epochs": 3, "loss": 0.25}
STATUS |= {"boot_id": "x", "boot_seconds": 7.0, "last_step_time": 5.0}


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[tuple[dict[str, str], list[tuple[str, str, Any]]]]:
    """Environment of a pod of a TrainJob, and the requests that its controller has got: path, token, content."""
    token, context = tmp_path / "token", self_signed(tmp_path)
    token.write_text("one\n")
    requests: list[tuple[str, str, Any]] = []

    class Requests(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            requests.append((self.path, self.headers["Authorization"], content))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Requests)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"https://localhost:{server.server_port}/apis/status"
    names = {"URL": url, "CA_CERT": str(tmp_path / "cert.pem"), "TOKEN": str(token)}
    yield {f"KUBEFLOW_TRAINER_SERVER_{name}": value for name, value in names.items()}, requests
    server.shutdown()
    server.server_close()


def write_status(run: Path, **values: object) -> None:
    (run / "status.new").write_text(json.dumps({**STATUS, **values}))
    (run / "status.new").rename(run / "status.json")


def test_progress_arrives_while_a_run_trains_and_at_its_end(controller, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SEND_SECONDS", 0.05)
    environ, requests = controller
    write_status(tmp_path)
    with sent_trainer_status(tmp_path, environ):
        wait_until(lambda: requests)
        (tmp_path / "token").write_text("two\n")  # tokens expire, so each request reads its file
        write_status(tmp_path, step=40)
        wait_until(lambda: "estimatedRemainingSeconds" in requests[-1][2]["trainerStatus"])
        write_status(tmp_path, state="finished", step=60)
    assert requests[0] == (
        "/apis/status",
        "Bearer one",
        {
            "trainerStatus": {
                "progressPercentage": 50,
                "metrics": [
                    {"name": "step", "value": "30"},
                    {"name": "steps_per_epoch", "value": "20"},
                    {"name": "epoch", "value": "2"},
                    {"name": "epochs", "value": "3"},
                    {"name": "loss", "value": "0.25"},
                ],
                "lastUpdatedTime": "1970-01-01T00:00:00+00:00",
            }
        },
    )
    _, authorization, content = requests[-1]
    assert authorization == "Bearer two"
    assert content["trainerStatus"]["progressPercentage"] == 100


def test_a_controller_that_cannot_be_reached_costs_one_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "SEND_SECONDS", 0.01)
    write_status(tmp_path)
    (tmp_path / "token").write_text("one")
    environ = {"KUBEFLOW_TRAINER_SERVER_URL": "https://localhost:1/"}
    environ |= {"KUBEFLOW_TRAINER_SERVER_TOKEN": str(tmp_path / "token")}
    attempts: list[float] = []
    read = module.read_status
    monkeypatch.setattr(module, "read_status", lambda run: attempts.append(0) or read(run))
    with sent_trainer_status(tmp_path, environ):
        wait_until(lambda: len(attempts) > 3)
    (message,) = caplog.messages
    assert message.startswith("Kubeflow Trainer gets no progress of this run (")


def test_a_controller_with_another_certificate_gets_no_token(controller, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(module, "SEND_SECONDS", 0.01)
    environ, requests = controller
    write_status(tmp_path)
    with sent_trainer_status(tmp_path, {**environ, "KUBEFLOW_TRAINER_SERVER_CA_CERT": ""}):
        wait_until(lambda: caplog.messages)
    assert "CERTIFICATE_VERIFY_FAILED" in caplog.text
    assert requests == []


def test_nothing_is_sent_outside_a_train_job(tmp_path):
    before = threading.active_count()
    with sent_trainer_status(tmp_path, {}):
        assert threading.active_count() == before


def test_progress_without_an_end():
    """A run that ends by time or patience has steps, but Trainer's 100% means that it is complete."""
    assert "progressPercentage" not in trainer_status({"state": "starting", "time": 0.0}, steps_per_second=0)
    last = trainer_status({**STATUS, "step": 60}, steps_per_second=2.0)
    assert (last["progressPercentage"], last["estimatedRemainingSeconds"]) == (99, 0)
    assert trainer_status(STATUS, steps_per_second=2.0)["estimatedRemainingSeconds"] == 15
