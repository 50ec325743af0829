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
from typing import Any
from unittest import mock

BUCKET = "bucket"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass(frozen=True)
class ObjectStore:
    """The address of the server, and a client to it."""

    endpoint: str
    client: Any

    def put(self, key: str, content: bytes) -> str:
        self.client.put_object(Bucket=BUCKET, Key=key, Body=content)
        return f"s3://{BUCKET}/{key}"

    def put_folder(self, folder: Path, prefix: str) -> str:
        for path in folder.rglob("*"):
            if path.is_file():
                self.put(f"{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())
        return f"s3://{BUCKET}/{prefix}"


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        endpoint = f"http://{host}:{port}"
        with mock.patch.dict(os.environ, CREDENTIALS | {"AWS_ENDPOINT_URL": endpoint}):
            client = boto3.client("s3")
            client.create_bucket(Bucket=BUCKET)
            yield ObjectStore(endpoint, client)
            client.close()
    finally:
        server.stop()
