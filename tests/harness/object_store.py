"""An S3 server on loopback with one bucket.

with object_store() as store:                 # in this process and in those that it starts
    store.put("parts/a.csv", b"...")
    store.put_folder(Path("data"), "data")    # s3://bucket/data/dataset.json
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Any
from unittest import mock

BUCKET = "bucket"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass(frozen=True)
class ObjectStore:
    """What the server serves; tests write to it without requests."""

    backend: Any

    def put(self, key: str, content: bytes) -> str:
        self.backend.put_object(BUCKET, key, content)
        return f"s3://{BUCKET}/{key}"

    def put_folder(self, folder: Path, prefix: str) -> str:
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())
        return f"s3://{BUCKET}/{prefix}"


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    from moto.core import DEFAULT_ACCOUNT_ID
    from moto.moto_server.werkzeug_app import MotoRequestHandler, create_backend_app
    from moto.s3.models import s3_backends
    from werkzeug.serving import make_server

    backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    # The application of S3 alone: moto's own server lists the folder of all services for each request.
    server = make_server("127.0.0.1", 0, create_backend_app("s3"), threaded=True, request_handler=MotoRequestHandler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    backend.create_bucket(BUCKET, CREDENTIALS["AWS_DEFAULT_REGION"])
    try:
        with mock.patch.dict(os.environ, CREDENTIALS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}"}):
            yield ObjectStore(backend)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        backend.reset()
