"""A small HTTP store of values by path, in which Horovod's core finds the other ranks.

Decides: which values the store keeps, and how many. Never: what a value means, or who may set it.

    store = Store(("192.0.2.7", 29400), size=2)
    threading.Thread(target=store.serve_forever, daemon=True).start()
    # PUT, GET and DELETE http://192.0.2.7:29400/scope/key

Horovod has such a server too (horovod/runner/http/http_server.py). But Horovod's server shows files of the working
directory to HEAD requests, keeps values without a limit, and prints a traceback for each invalid request.
"""

from __future__ import annotations

import re
import socketserver
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler

REQUEST_SECONDS = 5.0
MAX_THREADS = 512  # threads of this process; more connections are refused


def max_value_bytes(size: int) -> int:
    """Return the limit of a value: a rank's Gloo addresses take 136 bytes a rank, the claims about 300 bytes a rank."""
    return 2**16 + 1024 * size


class Store(socketserver.ThreadingTCPServer):
    """Values by path, as Horovod's own store keeps them, within limits.

    Args:
        address: where to listen.
        size: ranks of the job.
    """

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, address: tuple[str, int], size: int) -> None:
        super().__init__(address, _Requests)
        self._values: dict[str, tuple[str, bytes]] = {}  # path -> address that set it first, value
        self._num_values: Counter[str] = Counter()  # by address: an unknown peer fills its own quota only
        self._lock = threading.Lock()
        self.max_value_bytes = max_value_bytes(size)
        self._max_values = 16 * size + 64  # Horovod sets two keys for each rank in each of at most six scopes

    def get(self, path: str) -> bytes | None:
        """Return the value of a path, or None."""
        with self._lock:
            return self._values[path][1] if path in self._values else None

    def put(self, path: str, value: bytes, address: str) -> bool:
        """Keep a value; return False if this address has set too many."""
        with self._lock:
            if path not in self._values:
                if self._num_values[address] >= self._max_values:
                    return False
                self._num_values[address] += 1
            first = self._values[path][0] if path in self._values else address
            self._values[path] = (first, value)
            return True

    def delete(self, path: str) -> None:
        """Delete the value of a path, if there is one."""
        with self._lock:
            if path in self._values:
                address, _ = self._values.pop(path)
                self._num_values[address] -= 1

    def verify_request(self, request: object, client_address: object) -> bool:
        """Refuse a connection while too many are open."""
        return threading.active_count() < MAX_THREADS

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: an invalid request of an unknown peer concerns no rank."""


class _Requests(BaseHTTPRequestHandler):
    """GET, PUT and DELETE of /scope/key."""

    timeout = REQUEST_SECONDS
    server: Store

    def do_GET(self) -> None:
        """Answer 200 and the value, or 404."""
        value = self.server.get(self.path)
        self._answer(404 if value is None else 200, value or b"")

    def do_PUT(self) -> None:
        """Answer 200; 400 for an invalid request, 413 for a large value, 507 for too many values."""
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,9}", length) or not re.fullmatch(r"/[^/]{1,300}/[^/]{1,100}", self.path):
            return self._answer(400)
        if int(length) > self.server.max_value_bytes:
            return self._answer(413)
        value = self.rfile.read(int(length))
        if len(value) < int(length):
            return self._answer(400)
        return self._answer(200 if self.server.put(self.path, value, self.client_address[0]) else 507)

    def do_DELETE(self) -> None:
        """Answer 200, whether the path had a value or not."""
        self.server.delete(self.path)
        self._answer(200)

    def log_message(self, *_: object) -> None:
        """Print nothing."""

    def _answer(self, status: int, content: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
