"""A small store of values by path, over HTTP: what Horovod's core looks for the other ranks in.

Decides: what it keeps, and how much. Never: knows what the values mean, or who may set them.

    store = Store(("192.0.2.7", 29400), size=2)
    threading.Thread(target=store.serve_forever, daemon=True).start()
    # PUT, GET and DELETE http://192.0.2.7:29400/scope/key

Horovod brings such a server itself (horovod/runner/http/http_server.py), but that one also answers HEAD with what lies
in the working directory, keeps whatever it is sent, and prints a traceback for each rubbish request.
"""

from __future__ import annotations

import re
import socketserver
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler

REQUEST_SECONDS = 5.0
MAX_THREADS = 512  # of this process, while it serves


def largest_value(size: int) -> int:
    """Bytes: one rank's addresses for all others (Gloo: 136 each), or all claims (about 300 each)."""
    return 2**16 + 1024 * size


class Store(socketserver.ThreadingTCPServer):
    """Values by path, as Horovod's own store keeps them, within bounds."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, address: tuple[str, int], size: int) -> None:
        super().__init__(address, _Requests)
        self._values: dict[str, tuple[str, bytes]] = {}  # path -> who set it first, value
        self._num_values: Counter[str] = Counter()  # of each address: a stranger fills its own share only
        self._lock = threading.Lock()
        self.largest_value = largest_value(size)
        self._max_values = 16 * size + 64  # Horovod sets two keys a rank in each of at most six scopes

    def get(self, path: str) -> bytes | None:
        """The value; None where there is none."""
        with self._lock:
            return self._values[path][1] if path in self._values else None

    def put(self, path: str, value: bytes, address: str) -> bool:
        """Keep a value; False where there are too many of this address."""
        with self._lock:
            if path not in self._values:
                if self._num_values[address] >= self._max_values:
                    return False
                self._num_values[address] += 1
            first = self._values[path][0] if path in self._values else address
            self._values[path] = (first, value)
            return True

    def delete(self, path: str) -> None:
        """Forget a value."""
        with self._lock:
            if path in self._values:
                address, _ = self._values.pop(path)
                self._num_values[address] -= 1

    def verify_request(self, request: object, client_address: object) -> bool:
        """Refuse a connection where too many are open."""
        return threading.active_count() < MAX_THREADS

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: what a stranger sends is not our ranks' trouble."""


class _Requests(BaseHTTPRequestHandler):
    """GET, PUT and DELETE of /scope/key."""

    timeout = REQUEST_SECONDS
    server: Store

    def do_GET(self) -> None:
        """200 and the value, or 404."""
        value = self.server.get(self.path)
        self._answer(404 if value is None else 200, value or b"")

    def do_PUT(self) -> None:
        """200; or 400, 413 and 507 for what is too large or too much."""
        length = self.headers.get("Content-Length", "")
        if not re.fullmatch("[0-9]{1,9}", length) or not re.fullmatch(r"/[^/]{1,300}/[^/]{1,100}", self.path):
            return self._answer(400)
        if int(length) > self.server.largest_value:
            return self._answer(413)
        value = self.rfile.read(int(length))
        if len(value) < int(length):
            return self._answer(400)
        return self._answer(200 if self.server.put(self.path, value, self.client_address[0]) else 507)

    def do_DELETE(self) -> None:
        """200, whether there was a value or not."""
        self.server.delete(self.path)
        self._answer(200)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _answer(self, status: int, content: bytes = b"") -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
