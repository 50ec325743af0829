"""What a cluster asks of the pods: options of `launch/k8s.sh`, `k8s/base/site.yaml`, and files for other systems."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import manifests
import pytest
import yaml
from manifests import REPOSITORY, find, pod_templates, render

from distrain.errors import StopRequested

ELSEWHERE = REPOSITORY / "k8s" / "elsewhere"
TRAINING = ["single-gpu", "multi-gpu", "indexed", "mpijob", "trainer"]

pytestmark = manifests.needs_kubectl


@pytest.mark.parametrize("layout", [*TRAINING, "prepare", "files"])
def test_options_of_pods_reach_all_pods_of_all_layouts(layout, tmp_path):
    affinity = {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}
    (tmp_path / "pod.yaml").write_text(yaml.safe_dump({"affinity": affinity}))
    asked = ["--node-selector=pool=gpu", "--toleration=team=x:NoSchedule", "--toleration=spot", "--env=NCCL_DEBUG=INFO"]
    asked += [
        "--volume=pvc/models:/models",
        "--volume=secret/keys:/keys:ro",
        "--pull-secret=registry",
        "--host-network",
    ]
    asked += [
        "--priority-class=batch",
        "--runtime-class=nvidia",
        f"--pod-spec={tmp_path}/pod.yaml",
        "--resource=rdma/x=2",
    ]
    data = ["--train=/t"] if layout == "prepare" else []
    templates = list(pod_templates(render("--name=a", f"--layout={layout}", *asked, *data)))
    assert len(templates) == (2 if layout in ("mpijob", "trainer") else 1)
    for template in templates:
        pod = template["spec"]
        (container,) = pod["containers"]
        assert pod["nodeSelector"] == {"pool": "gpu"}
        assert pod["tolerations"] == [
            {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
            {"key": "team", "operator": "Equal", "value": "x", "effect": "NoSchedule"},
            {"key": "spot", "operator": "Exists"},
        ]
        assert {"name": "NCCL_DEBUG", "value": "INFO"} in container["env"]
        assert {"name": "HOME", "value": "/tmp"} in container["env"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        assert volumes[mounts["/models"]["name"]]["persistentVolumeClaim"] == {"claimName": "models"}
        assert volumes[mounts["/keys"]["name"]]["secret"] == {"secretName": "keys"}
        assert mounts["/keys"]["readOnly"] is True
        assert {"/data", "/tmp"} <= mounts.keys()
        assert pod["imagePullSecrets"] == [{"name": "registry"}]
        assert (pod["priorityClassName"], pod["runtimeClassName"]) == ("batch", "nvidia")
        assert (pod["hostNetwork"], pod["dnsPolicy"]) == (True, "ClusterFirstWithHostNet")
        assert pod["affinity"] == affinity
    devices = [template["spec"]["containers"][0]["resources"]["limits"].get("rdma/x") for template in templates]
    assert sorted(devices, key=str) == ([2, None] if len(templates) == 2 else [2])  # a launcher has no devices


def test_egress_is_opened_on_demand_alone():
    policy = find(render("--name=a", "--egress=10.0.0.0/8:443", "--egress=2001:db8::/32"), "NetworkPolicy", "a")
    assert policy["spec"]["egress"][2:] == [
        {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"protocol": "TCP", "port": 443}]},
        {"to": [{"ipBlock": {"cidr": "2001:db8::/32"}}]},
    ]
    assert policy["spec"]["egress"][:2] == find(render("--name=a"), "NetworkPolicy", "a")["spec"]["egress"]


@pytest.mark.parametrize("scheduler", ["volcano", "scheduler-plugins"])
def test_a_gang_is_all_pods_of_the_job(scheduler):
    documents = render("--name=a", "--layout=indexed", "--pods=4", f"--gang={scheduler}")
    assert find(documents, "PodGroup", "a")["spec"] == {"minMember": 4}
    template = find(documents, "Job", "a")["spec"]["template"]
    group, name = {
        "volcano": (template["metadata"].get("annotations", {}).get("scheduling.k8s.io/group-name"), "volcano"),
        "scheduler-plugins": (
            template["metadata"]["labels"].get("scheduling.x-k8s.io/pod-group"),
            "scheduler-plugins-scheduler",
        ),
    }[scheduler]
    assert (group, template["spec"]["schedulerName"]) == ("a", name)
    job = find(render("--name=a", "--layout=mpijob", "--pods=4", f"--gang={scheduler}"), "MPIJob", "a")
    assert job["spec"]["runPolicy"]["schedulingPolicy"] == {"minAvailable": 4}  # the launcher comes later


@pytest.mark.parametrize(("layout", "count"), [("single-gpu", 1), ("indexed", 3), ("mpijob", 4), ("trainer", 4)])
def test_a_protected_job_loses_no_pod_to_a_drain(layout, count):
    pods = [] if layout == "single-gpu" else ["--pods=3", "--global-batch-size=96"]
    documents = render("--name=a", f"--layout={layout}", "--protect", *pods)
    budget = find(documents, "PodDisruptionBudget", "a")["spec"]
    assert budget["minAvailable"] == count
    for template in pod_templates(documents):
        assert budget["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()


def test_the_examples_of_the_site_reach_every_layout(tmp_path):
    shutil.copytree(REPOSITORY / "k8s", tmp_path / "k8s")
    site = tmp_path / "k8s" / "base" / "site.yaml"
    lines = site.read_text().splitlines()
    site.write_text("\n".join(line.removeprefix("#") if line.startswith(("#s", "# ")) else line for line in lines[3:]))
    for layout in TRAINING:
        templates = list(pod_templates(manifests.folder(f"overlays/{layout}", tmp_path / "k8s")))
        assert len(templates) >= 2  # one prepares the data
        for template in templates:
            pod = template["spec"]
            assert (pod["priorityClassName"], pod["runtimeClassName"]) == ("batch", "nvidia")
            assert [one["key"] for one in pod["tolerations"]] == ["nvidia.com/gpu", "team"]
            assert "nodeAffinity" in pod["affinity"]
            assert {"name": "NCCL_DEBUG", "value": "INFO"} in pod["containers"][0]["env"]
            assert "/scratch" in {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}


def test_skypilot_starts_again_after_a_stop_on_request_alone():
    task = yaml.safe_load((ELSEWHERE / "skypilot.yaml").read_text())
    assert task["resources"]["job_recovery"] == {"recover_on_exit_codes": [StopRequested.exit_code]}
    assert "exec " in task["run"]  # its exit code is that of distrain
    assert "export DISTRAIN_LAUNCH_ID=$SKYPILOT_TASK_ID " in task["run"]  # a recovered task goes on in its own run


def test_dstack_starts_again_after_a_stop_on_request_alone(tmp_path: Path):
    task = yaml.safe_load((ELSEWHERE / "dstack.yaml").read_text())
    assert task["retry"]["on_events"] == ["no-capacity", "interruption"]
    stand_in = tmp_path / "distrain"
    stand_in.write_text(
        '#!/bin/sh\necho $DISTRAIN_LAUNCH_ID >>"$0.log"\n[ "$(wc -l <"$0.log")" -gt 2 ] && exit $LAST\nexit 42\n'
    )
    stand_in.chmod(0o755)
    for last in (0, 3):
        (tmp_path / "distrain.log").unlink(missing_ok=True)
        environment = {"PATH": f"{tmp_path}:/usr/bin:/bin", "LAST": str(last), "DSTACK_RUN_ID": "run-1"}
        done = subprocess.run(["sh", "-ec", task["commands"][-1]], env=environment, timeout=30, check=False)
        assert (done.returncode, (tmp_path / "distrain.log").read_text()) == (last, "run-1\n" * 3)
