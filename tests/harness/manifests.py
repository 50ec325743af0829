"""Rendered manifests, and the pod templates in them.

Decides: how a test gets manifests, and how the kubelet expands their strings. Never: judges manifests, or reaches a
cluster.

    documents = overlay("indexed")
    documents = render("--name", "reviews", "--layout", "indexed", "--pods", "3")
    for template in pod_templates(documents): ...
    variables(container, labels={"batch.kubernetes.io/controller-uid": "1"})
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "launch" / "k8s.sh"
OVERLAYS = sorted(path.name for path in (REPOSITORY / "k8s" / "overlays").iterdir())

Document = dict[str, Any]


def _why_not() -> str:
    """Return why this machine cannot render manifests; "" if it can."""
    if shutil.which("kubectl") is None:
        return "there is no kubectl, which renders the manifests"
    done = subprocess.run(["kubectl", "kustomize", REPOSITORY / "k8s" / "overlays" / "single-gpu"], capture_output=True)
    return "" if done.returncode == 0 else "this kubectl is too old to render the manifests; 1.27 or newer does"


# No package of the Python index renders overlays as kubectl does.
_WHY_NOT = _why_not()
needs_kubectl = pytest.mark.skipif(bool(_WHY_NOT), reason=_WHY_NOT)


def overlay(name: str) -> list[Document]:
    """Return the objects that `kubectl apply -k k8s/overlays/NAME` sends."""
    return folder(f"overlays/{name}")


def folder(path: str, root: Path = REPOSITORY / "k8s") -> list[Document]:
    """Return the objects that `kubectl apply -k k8s/PATH` sends."""
    done = subprocess.run(["kubectl", "kustomize", root / path], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return _load(done.stdout)


def render(*arguments: str) -> list[Document]:
    """Return the objects that `launch/k8s.sh render ARGUMENTS` prints."""
    done = run("render", *arguments)
    assert done.returncode == 0, done.stderr.decode()
    return _load(done.stdout)


def run(*arguments: str, **settings: Any) -> subprocess.CompletedProcess[bytes]:
    """Run `launch/k8s.sh` to its end."""
    return subprocess.run([SCRIPT, *arguments], capture_output=True, stdin=subprocess.DEVNULL, timeout=60, **settings)


def find(documents: Sequence[Document], kind: str, name: str) -> Document:
    """Return the only object with this kind and name."""
    (found,) = (one for one in documents if (one["kind"], one["metadata"]["name"]) == (kind, name))
    return found


def pod_templates(node: Any) -> Iterator[Document]:
    """Yield all pod templates in objects of any kind."""
    if isinstance(node, list):
        for one in node:
            yield from pod_templates(one)
    elif isinstance(node, dict):
        if "containers" in node.get("spec", {}):
            yield node
        else:
            yield from pod_templates(list(node.values()))


def references(document: Document) -> Iterator[tuple[str, str]]:
    """Yield (kind, name) of the objects to which an object refers, and which must exist before it."""
    spec = document.get("spec", {})
    if "runtimeRef" in spec:
        yield spec["runtimeRef"]["kind"], spec["runtimeRef"]["name"]
    for template in pod_templates(document):
        pod, metadata = template["spec"], template["metadata"]
        yield "ServiceAccount", pod["serviceAccountName"]
        if "subdomain" in pod:
            yield "Service", pod["subdomain"]
        for volume in pod["volumes"]:
            if claim := volume.get("persistentVolumeClaim"):
                yield "PersistentVolumeClaim", claim["claimName"]
        group = metadata.get("annotations", {}).get("scheduling.k8s.io/group-name")
        if group := group or metadata["labels"].get("scheduling.x-k8s.io/pod-group"):
            yield "PodGroup", group


def variables(container: Document, labels: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of a container as the manifest gives it.

    Args:
        container: The container.
        labels: Labels of its pod, to which a variable may refer; Kubernetes gives a missing label as an empty string.
    """
    found = {}
    for one in container.get("env", []):
        if "valueFrom" in one:
            path = one["valueFrom"]["fieldRef"]["fieldPath"]
            (label,) = re.fullmatch(r"metadata\.labels\['(.*)'\]", path).groups()
            found[one["name"]] = (labels or {}).get(label, "")
        else:
            found[one["name"]] = one["value"]
    return found


def expanded(text: str, environment: Mapping[str, str]) -> str:
    """Expand an argument or the value of a variable as the kubelet does.

    `$(NAME)` becomes the variable if it is set; `$$` becomes `$` (Kubernetes' documentation of `args`).
    """
    return re.sub(
        r"\$\$|\$\(([^)]*)\)",
        lambda found: "$" if found[0] == "$$" else environment.get(found[1], found[0]),
        text,
    )


def replaced(arguments: Sequence[str], options: Sequence[str]) -> list[str]:
    """Return arguments with other options of one value, which may be given twice to no command of distrain.

    >>> replaced(["train", "--run=a", "--epochs", "3", "--seed=1"], ["--epochs", "4", "--run=b"])
    ['train', '--seed=1', '--epochs', '4', '--run=b']
    """
    names = {option.partition("=")[0] for option in options if option.startswith("--")}
    is_old = [argument.partition("=")[0] in names for argument in arguments]
    is_value = [False, *(old and "=" not in argument for old, argument in zip(is_old, arguments, strict=True))]
    kept = [a for a, old, value in zip(arguments, is_old, is_value[:-1], strict=True) if not (old or value)]
    return [*kept, *options]


class _Loader(yaml.SafeLoader):
    """Reads YAML as Go does: `=` and `<<` in a list are plain strings."""


for _tag in ("value", "merge"):
    _Loader.add_constructor(f"tag:yaml.org,2002:{_tag}", lambda loader, node: node.value)


def _load(text: bytes) -> list[Document]:
    return list(yaml.load_all(text.decode(), _Loader))
