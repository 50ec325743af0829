"""A web server on loopback that serves bytes, counts them, and fails on demand.

with web_server() as server:
    server.files["/a.csv"] = b"..."
    server.faults += ["500", "reset"]         # of the next two requests
    server.url("/a.csv"), server.sent, server.requests
"""

from __future__ import annotations

import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class WebServer:
    """What the server holds and has seen.

    Attributes:
        files: content by path.
        faults: of the next requests: a status, or "reset", "short", "silent", "trickle", "changed", or "" for none.
        has_ranges: whether ranges are served.
        has_identity: whether an ETag is sent.
        redirect: where every request is sent on to.
        requests: (path, range) of each request.
        sent: bytes of content that were sent.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    has_ranges: bool = True
    has_identity: bool = True
    redirect: str = ""
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    sent: int = 0
    port: int = 0
    scheme: str = "http"
    released: threading.Event = field(default_factory=threading.Event)

    def url(self, path: str) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}{path}"


@contextmanager
def web_server(context: ssl.SSLContext | None = None) -> Iterator[WebServer]:
    state = WebServer(scheme="https" if context else "http")

    class Handler(_Handler):
        server_state = state

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients leave in the middle on purpose
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    state.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        state.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_state: WebServer

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        faults = self.server_state.faults
        self._answer(int(faults.pop(0)) if faults else 404, b"")

    def do_GET(self) -> None:
        state = self.server_state
        asked = self.headers.get("Range")
        state.requests.append((self.path, asked))
        fault = state.faults.pop(0) if state.faults else ""
        path = self.path.partition("?")[0]
        if state.redirect:
            self._answer(302, b"", {"Location": state.redirect})
        elif fault.isdecimal():
            self._answer(int(fault), b"")
        elif fault == "silent":
            state.released.wait(20)
            self.close_connection = True
        elif path not in state.files:
            self._answer(404, b"")
        else:
            self._serve(state.files[path], asked, fault)

    def _serve(self, content: bytes, asked: str | None, fault: str) -> None:
        state = self.server_state
        tag = f'"{hash(content)}{fault if fault == "changed" else ""}"'
        headers = {"ETag": tag} if state.has_identity else {}
        match = re.fullmatch(r"bytes=(\d+)-(\d+)", asked or "") if state.has_ranges else None
        if match is None:
            self._answer(200, content, headers, fault)
            return
        start, last = int(match[1]), min(int(match[2]), len(content) - 1)
        if start > last:
            self._answer(416, b"", {"Content-Range": f"bytes */{len(content)}"})
            return
        headers["Content-Range"] = f"bytes {start}-{last}/{len(content)}"
        self._answer(206, content[start : last + 1], headers, fault)

    def _answer(self, status: int, content: bytes, headers: dict[str, str] | None = None, fault: str = "") -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if fault in ("reset", "short"):
            content = content[: len(content) // 2]
            self.close_connection = True
        if fault == "trickle":
            for number in range(len(content)):
                self.wfile.write(content[number : number + 1])
                self.wfile.flush()
                if self.server_state.released.wait(0.05):
                    return
        self.server_state.sent += len(content)  # before the last byte leaves: then a client may read this already
        self.wfile.write(content)
        if fault == "reset":
            self.wfile.flush()
            time.sleep(0.05)
            with suppress(OSError):
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
