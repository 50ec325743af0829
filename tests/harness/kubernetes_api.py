"""A small server that speaks as much of Kubernetes' API as kubectl needs to apply, list, follow and delete objects.

Decides: the answers of a cluster without controllers. Never: validates fields, or starts a pod.

    with serving() as cluster:
        subprocess.run(["kubectl", "get", "pods"], env={**os.environ, "KUBECONFIG": str(cluster.kubeconfig(folder))})
        cluster.objects["pods", "reviews-0"] = {...}

All objects are in one namespace. The annotation `log` of a pod is its log; `kubectl exec` prints its annotation `exec`.
If that is "run", the command runs on this machine. The server refuses an object that refers to a missing one.
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from manifests import references

NAMESPACE = "team"
_KINDS = {
    "v1": {
        "pods": "Pod",
        "services": "Service",
        "serviceaccounts": "ServiceAccount",
        "persistentvolumeclaims": "PersistentVolumeClaim",
        "events": "Event",
    },
    "batch/v1": {"jobs": "Job"},
    "policy/v1": {"poddisruptionbudgets": "PodDisruptionBudget"},
    "networking.k8s.io/v1": {"networkpolicies": "NetworkPolicy"},
}
_OPERATORS = {
    "kubeflow.org/v2beta1": {"mpijobs": "MPIJob"},
    "trainer.kubeflow.org/v1alpha1": {"trainjobs": "TrainJob", "trainingruntimes": "TrainingRuntime"},
    "scheduling.volcano.sh/v1beta1": {"podgroups": "PodGroup"},
}
_SUCCESS = '{"metadata":{},"status":"Success"}'
_START_SECONDS = 0.1  # of a command; kubectl discards what comes before it is ready to read, as no cluster is so quick
_WEBSOCKET = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3


class Cluster:
    """The state of the server.

    Attributes:
        objects: Objects by plural name of the kind, and name.
        requests: Method and path of each request that changes an object.
        forbidden: Plural names of kinds to which the user has no rights.
    """

    def __init__(self, port: int, *, with_operators: bool) -> None:
        self.port = port
        self.kinds = _KINDS | (_OPERATORS if with_operators else {})
        self.objects: dict[tuple[str, str], dict[str, Any]] = {}
        self.requests: list[str] = []
        self.forbidden: set[str] = set()

    def kubeconfig(self, folder: Path) -> Path:
        """Write a file that leads kubectl to this server, and return its path."""
        path = folder / "kubeconfig"
        cluster = {"name": "c", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}
        context = {"name": "c", "context": {"cluster": "c", "namespace": NAMESPACE, "user": "u"}}
        config = {"apiVersion": "v1", "kind": "Config", "current-context": "c"}
        path.write_text(json.dumps({**config, "clusters": [cluster], "contexts": [context], "users": []}))
        return path

    def names(self) -> set[tuple[str, str]]:
        """Return the plural of the kind and the name of all objects."""
        return set(self.objects)


@contextmanager
def serving(*, with_operators: bool = False) -> Iterator[Cluster]:
    """Run a server on a free port of the loopback address."""
    with _Server(with_operators=with_operators) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server.cluster
        finally:
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    def __init__(self, *, with_operators: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.cluster = Cluster(self.server_port, with_operators=with_operators)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    @property
    def cluster(self) -> Cluster:
        return self.server.cluster

    def do_GET(self) -> None:
        path = urlsplit(self.path).path.strip("/")
        if path == "api":
            self._answer({"kind": "APIVersions", "versions": ["v1"]})
        elif path == "apis":
            self._answer({"kind": "APIGroupList", "apiVersion": "v1", "groups": self._groups()})
        elif path == "openapi/v3":
            addresses = {path: {"serverRelativeURL": f"/openapi/v3/{path}"} for path in map(_root, self.cluster.kinds)}
            self._answer({"paths": addresses})
        elif path.startswith("openapi/v3/"):
            self._answer({"openapi": "3.0.0", "paths": self._patch_operations(path.removeprefix("openapi/v3/"))})
        elif path in map(_root, self.cluster.kinds):
            self._answer(self._resources(path))
        else:
            self._object(path)

    def do_POST(self) -> None:
        document = self._body()
        (plural,) = (kinds[0] for kinds in self._flat() if kinds[1] == document["kind"])
        if self._is_dry_run():
            self._answer(document, 201)
            return
        there = {(one["kind"], one["metadata"]["name"]) for one in self.cluster.objects.values()}
        if missing := set(references(document)) - there:
            self._answer(_failure("Forbidden", f"{document['kind']} refers to {missing}, which do not exist", 403), 403)
            return
        self.cluster.requests.append(f"POST {plural}/{document['metadata']['name']}")
        document["metadata"]["uid"] = f"uid-{len(self.cluster.requests)}"
        self.cluster.objects[plural, document["metadata"]["name"]] = document
        self._answer(document, 201)

    def do_PATCH(self) -> None:
        plural, name = urlsplit(self.path).path.split("/")[-2:]
        self._body()
        self.cluster.requests.append(f"PATCH {plural}/{name}")
        if plural == "jobs":
            message = f'Job.batch "{name}" is invalid: spec.template: field is immutable'
            self._answer(_failure("Invalid", message, 422), 422)
        else:
            self._answer(self.cluster.objects[plural, name])

    def do_DELETE(self) -> None:
        plural, name = urlsplit(self.path).path.split("/")[-2:]
        if not (options := self._body()).get("dryRun"):
            self.cluster.requests.append(f"DELETE {plural}/{name} {options['propagationPolicy']}")
            self.cluster.objects.pop((plural, name))
        self._answer({"kind": "Status", "apiVersion": "v1", "status": "Success"})

    def _is_dry_run(self) -> bool:
        return "dryRun" in parse_qs(urlsplit(self.path).query)

    def _flat(self) -> list[tuple[str, str, str]]:
        return [(plural, kind, api) for api, kinds in self.cluster.kinds.items() for plural, kind in kinds.items()]

    def _object(self, path: str) -> None:
        words = path.split("/")
        rest: list[str] = words[words.index("namespaces") + 2 :] if "namespaces" in words else []
        if rest and rest[0] in self.cluster.forbidden:
            message = (
                f'{rest[0]} is forbidden: User "u" cannot list resource "{rest[0]}" in the namespace "{NAMESPACE}"'
            )
            self._answer(_failure("Forbidden", message, 403), 403)
        elif len(rest) == 3 and rest[2] == "log":
            self._send(self._annotation(rest[1], "log").encode(), "text/plain")
        elif len(rest) == 3 and rest[2] == "exec":
            self._exec(self._annotation(rest[1], "exec"))
        elif len(rest) == 2 and tuple(rest) in self.cluster.objects:
            self._answer(self.cluster.objects[rest[0], rest[1]])
        elif len(rest) == 1:
            self._answer(self._list(rest[0]))
        else:
            self._answer(_failure("NotFound", f"{path} not found", 404), 404)

    def _annotation(self, pod: str, name: str) -> str:
        return self.cluster.objects["pods", pod]["metadata"].get("annotations", {}).get(name, "")

    def _list(self, plural: str) -> dict[str, Any]:
        asked = parse_qs(urlsplit(self.path).query).get("labelSelector", [""])[0]
        wanted = dict(one.split("=") for one in asked.split(",") if one)
        found = [
            document
            for (its_plural, _), document in self.cluster.objects.items()
            if its_plural == plural and wanted.items() <= document["metadata"].get("labels", {}).items()
        ]
        (kind, api), *_ = [(kind, api) for its_plural, kind, api in self._flat() if its_plural == plural]
        return {"kind": f"{kind}List", "apiVersion": api, "metadata": {"resourceVersion": "1"}, "items": found}

    def _groups(self) -> list[dict[str, Any]]:
        versions = [(api.split("/")[0], api) for api in self.cluster.kinds if "/" in api]
        return [
            {"name": group, "versions": [one], "preferredVersion": one}
            for group, one in ((group, {"groupVersion": api, "version": api.split("/")[1]}) for group, api in versions)
        ]

    def _resources(self, root: str) -> dict[str, Any]:
        (api,) = (api for api in self.cluster.kinds if _root(api) == root)
        verbs = ["create", "delete", "get", "list", "patch", "watch"]
        resources = [
            {"name": plural, "singularName": kind.lower(), "namespaced": True, "kind": kind, "verbs": verbs}
            for plural, kind in self.cluster.kinds[api].items()
        ]
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api, "resources": resources}

    def _patch_operations(self, root: str) -> dict[str, Any]:
        """Return the operations that tell kubectl that the server itself refuses unknown fields."""
        operations = {}
        for plural, kind, api in self._flat():
            group, _, version = api.rpartition("/")
            operations[f"/{root}/namespaces/{{namespace}}/{plural}/{{name}}"] = {
                "patch": {
                    "parameters": [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}],
                    "responses": {},
                    "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
                }
            }
        return operations

    def _body(self) -> dict[str, Any]:
        text = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return json.loads(text) if text else {}

    def _answer(self, document: object, status: int = 200) -> None:
        self._send(json.dumps(document).encode(), "application/json", status)

    def _send(self, body: bytes, kind: str, status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _exec(self, output: str) -> None:
        """Speak Kubernetes' protocol v5.channel.k8s.io: the first byte of a frame is its channel."""
        if not output:
            self._answer(_failure("BadRequest", "container not found", 400), 400)
            return
        key = hashlib.sha1((self.headers["Sec-WebSocket-Key"] + _WEBSOCKET).encode()).digest()
        self.send_response(101)
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(key).decode())
        self.send_header("Sec-WebSocket-Protocol", "v5.channel.k8s.io")
        self.end_headers()
        time.sleep(_START_SECONDS)
        for channel, text in zip((1, 3), self._run() if output == "run" else (output, _SUCCESS), strict=True):
            frame = bytes([channel]) + text.encode()
            self.wfile.write(struct.pack("!BBH", 0x82, 126, len(frame)) + frame)
        self.wfile.write(struct.pack("!BBH", 0x88, 2, 1000))
        self.close_connection = True

    def _run(self) -> tuple[str, str]:
        """Run the command of a `kubectl exec`, and return its output and its status."""
        asked = parse_qs(urlsplit(self.path).query)
        given = b"".join(self._channel_0()) if "stdin" in asked else b""
        done = subprocess.run(asked["command"], input=given, capture_output=True, check=False)
        if not done.returncode:
            return done.stdout.decode(), _SUCCESS
        details = {"causes": [{"reason": "ExitCode", "message": str(done.returncode)}]}
        failure = {"status": "Failure", "reason": "NonZeroExitCode", "details": details}
        return done.stdout.decode(), json.dumps({"metadata": {}, **failure, "message": done.stderr.decode()})

    def _channel_0(self) -> Iterator[bytes]:
        """Yield what the client sends to standard input, until the client closes this channel."""
        while True:
            _, length = self.rfile.read(2)
            length &= 0x7F
            if length > 125:
                form = "!H" if length == 126 else "!Q"
                (length,) = struct.unpack(form, self.rfile.read(struct.calcsize(form)))
            mask = self.rfile.read(4)
            data = bytes(byte ^ mask[number % 4] for number, byte in enumerate(self.rfile.read(length)))
            if data[:1] == b"\xff":  # the close of a channel, which version 5 of the protocol added
                return
            if data[:1] == b"\0":
                yield data[1:]


def _root(api: str) -> str:
    return f"apis/{api}" if "/" in api else f"api/{api}"


def _failure(reason: str, message: str, code: int) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "reason": reason,
        "message": message,
        "code": code,
    }
