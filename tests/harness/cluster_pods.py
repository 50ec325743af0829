"""Pods and events of a job `a` on the server of `kubernetes_api.py`.

end(add_pod(cluster, "a-0", log="wrong data"), 3)
"""

from __future__ import annotations

from kubernetes_api import NAMESPACE, Cluster

COMMON = {("serviceaccounts", "distrain"), ("persistentvolumeclaims", "distrain-data")}
COMMON |= {("persistentvolumeclaims", "distrain-runs")}


def add_pod(
    cluster: Cluster, name: str, *, component: str = "train", log: str = "", progress: str = "", **labels: str
) -> dict:
    ours = {f"app.kubernetes.io/{key}": value for key, value in {"part-of": "distrain", "instance": "a"}.items()}
    cluster.objects["pods", name] = {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "labels": {**ours, "app.kubernetes.io/component": component, **labels},
            "annotations": {"log": log, "exec": progress},
            "creationTimestamp": f"2026-01-01T00:00:{len(cluster.objects):02}Z",
        },
        "spec": {"containers": [{"name": "distrain"}]},
        "status": {"phase": "Running", "containerStatuses": [{"name": "distrain", "state": {"running": {}}}]},
    }
    return cluster.objects["pods", name]


def end(pod: dict, code: int) -> None:
    """Let the container of a pod end."""
    state = {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed"}}
    phase = "Failed" if code else "Succeeded"
    pod["status"] = {"phase": phase, "containerStatuses": [{"name": "distrain", "state": state}]}


def add_warning(cluster: Cluster, about: str, reason: str, message: str) -> None:
    name = f"event-{len(cluster.objects)}"
    cluster.objects["events", name] = {
        "kind": "Event",
        "apiVersion": "v1",
        "metadata": {"name": name, "namespace": NAMESPACE, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "involvedObject": {"kind": "Pod", "name": about},
        "reason": reason,
        "message": message,
    }
