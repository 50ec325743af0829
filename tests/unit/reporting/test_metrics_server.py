"""The status of a run over HTTP: real sockets, and Prometheus' own parser as the oracle of the format."""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path

import pytest
from free_ports import free_port
from prometheus_client.parser import text_string_to_metric_families
from waiting import wait_until

from distrain.config import TrainConfig
from distrain.errors import ConfigurationError
from distrain.reporting.metrics_server import served_metrics


@pytest.fixture
def port() -> int:
    return free_port()


def write_status(run: Path, **values: object) -> None:
    (run / "status.json").write_text(json.dumps({"state": "training", "time": 5.0, **values}))


def scrape(port: int, path: str = "/metrics", host: str = "127.0.0.1") -> dict[str, float]:
    with urllib.request.urlopen(f"http://{host}:{port}{path}", timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        families = text_string_to_metric_families(answer.read().decode())
    return {sample.name: sample.value for family in families for sample in family.samples if len(sample.labels) == 1}


def test_each_scrape_shows_the_status_of_now(tmp_path, port):
    with served_metrics(tmp_path, str(port)):
        with pytest.raises(urllib.error.HTTPError, match="404"):
            scrape(port)  # the run has no status yet
        for step in (7, 8):
            write_status(tmp_path, step=step, loss=0.5)
            assert scrape(port) == {"distrain_step": step, "distrain_loss": 0.5, "distrain_alive_timestamp_seconds": 5}
        (tmp_path / "status.json").write_text("damaged")
        for path in ("/metrics", "/", "/../status.json"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                scrape(port, path)
    with pytest.raises(OSError, match="refused"):
        scrape(port)


def test_only_this_machine_may_connect_unless_asked(tmp_path, port):
    """Every address of 127.0.0.0/8 belongs to this machine; here 127.0.0.2 stands for its address on a network."""
    write_status(tmp_path, step=7)
    with served_metrics(tmp_path, str(port)), pytest.raises(OSError, match="refused"):
        scrape(port, host="127.0.0.2")
    with served_metrics(tmp_path, f"0.0.0.0:{port}"):
        assert scrape(port, host="127.0.0.2")["distrain_step"] == 7


def test_a_stranger_who_stays_or_breaks_off_disturbs_nothing(tmp_path, port, capfd):
    write_status(tmp_path, step=7)
    with served_metrics(tmp_path, str(port)):
        silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
        silent[0].sendall(b"GET /metrics HTTP/1.1\r\n")
        silent.pop().close()
        wait_until(lambda: scrape(port)["distrain_step"] == 7)
        for one in silent:
            one.close()
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("address", ["{port}", "192.0.2.1:{port}", "99999", "nowhere.invalid:{port}"])
def test_an_address_that_cannot_be_had_is_refused(tmp_path, port, address):
    address = address.format(port=port)
    refused = pytest.raises(ConfigurationError, match=f"--metrics-port {address}: this program cannot listen there")
    with closing(socket.create_server(("127.0.0.1", port))), refused, served_metrics(tmp_path, address):
        pass


def test_what_the_setting_accepts():
    assert TrainConfig(data="d", run="r", metrics_port="0.0.0.0:9400").metrics_port == "0.0.0.0:9400"
    for wrong in ("", "0", "soon", "host:", ":9400", "9400x"):
        with pytest.raises(ConfigurationError, match="--metrics-port"):
            TrainConfig(data="d", run="r", metrics_port=wrong)
