"""The status of a run over HTTP, in Prometheus' text format, for a scrape.

Decides: who gets the metrics, and where. Never: what the status holds; `status.py` decides.

    with served_metrics(Path("runs/1"), "9400"):          # http://127.0.0.1:9400/metrics
        train()

Each request reads `status.json`, so no request touches the run. Without a host, only this machine can connect.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from distrain.errors import CheckpointError, ConfigurationError
from distrain.reporting.status import prometheus_text, read_status

REQUEST_SECONDS = 5.0
MAX_THREADS = 64  # of this process; more connections are refused
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@contextmanager
def served_metrics(run: Path, address: str | None) -> Iterator[None]:
    """Serve the status of a run inside the context, in threads of its own.

    Args:
        run: Run directory.
        address: PORT, of the loopback interface, or HOST:PORT; None serves nothing.

    Raises:
        ConfigurationError: The address cannot be had.
    """
    if address is None:
        yield
        return
    host, _, port = address.rpartition(":")
    try:
        server = _Server((host or "127.0.0.1", int(port)), run)
    except (OSError, OverflowError) as error:
        raise ConfigurationError(
            f"--metrics-port {address}: this program cannot listen there ({error}). Choose a free port from 1024 to "
            "65535, and an address of this machine."
        ) from None
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], run: Path) -> None:
        self.run = run
        super().__init__(address, _MetricsRequests)

    def verify_request(self, request: object, client_address: object) -> bool:
        """Refuse a connection while too many are open."""
        return threading.active_count() < MAX_THREADS

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: a client that breaks off is no error of the run."""


class _MetricsRequests(BaseHTTPRequestHandler):
    timeout = REQUEST_SECONDS
    server: _Server

    def do_GET(self) -> None:
        """Answer /metrics."""
        try:
            status = read_status(self.server.run)
        except CheckpointError:
            status = None
        found = status is not None and self.path.partition("?")[0] == "/metrics"
        content = prometheus_text(status, run=str(self.server.run)).encode() if status and found else b""
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Print nothing."""
