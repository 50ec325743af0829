"""Every manifest of `k8s/`, as the overlays are and as `launch/k8s.sh` renders them: valid, safe, what was meant."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import manifests
import pytest
import yaml
from manifests import OVERLAYS, REPOSITORY, find, overlay, pod_templates, render

from distrain import errors
from distrain.cluster.world import World, find_world
from distrain.version import __version__

CHECKS = REPOSITORY / ".venv-manifests" / "bin"  # launch/test.sh makes it
RELEASES = ["1.31", "1.32", "1.33", "1.34", "1.35", "1.36", "1.37"]
BUILT_IN = {"Job", "Service", "ServiceAccount", "NetworkPolicy", "PersistentVolumeClaim", "PodDisruptionBudget"}
SHARED = {("ServiceAccount", "distrain"), *(("PersistentVolumeClaim", f"distrain-{name}") for name in ("data", "runs"))}
FOR_GOOD = (errors.ConfigurationError, errors.DataError, errors.CheckpointError, errors.DivergenceError)

pytestmark = manifests.needs_kubectl
needs_checks = pytest.mark.skipif(not CHECKS.exists(), reason="there is no .venv-manifests; launch/test.sh makes it")

# One job of each layout, with as much asked of it as goes together.
_ASKED = ["--name=reviews", "--namespace=team", "--queue=gpus", f"--image=example.org/distrain@sha256:{64 * '0'}"]
JOBS = {
    "prepare": [*_ASKED, "--layout=prepare", "--cpus=2", "--train=/data/text/train.csv"],
    "files": [*_ASKED, "--layout=files"],
    "single-gpu": [*_ASKED, "--layout=single-gpu", "--gpus=0", "--memory=2Gi", "--cpus=500m", "--protect"],
    "multi-gpu": [*_ASKED, "--layout=multi-gpu", "--gpus=8"],
    "indexed": [*_ASKED, "--layout=indexed", "--pods=3", "--gpus=4", "--global-batch-size=96", "--gang=volcano"],
    "mpijob": [*_ASKED, "--layout=mpijob", "--pods=3", "--gpus=0", "--ranks=2", "--global-batch-size=96"],
    "trainer": [*_ASKED, "--layout=trainer", "--pods=4", "--gpus=2", "--protect"],
}


@pytest.fixture(scope="module")
def all_manifests() -> dict[str, list[manifests.Document]]:
    """Documents of each overlay, and of a job of each layout, each after the shared objects."""
    overlays = {name: overlay(name) for name in OVERLAYS}
    documents = overlays | {f"job-{name}": render(*arguments) for name, arguments in JOBS.items()}
    shared = manifests.folder("shared")
    return {name: [*shared, *rendered] for name, rendered in documents.items()}


@pytest.fixture(scope="module")
def file(all_manifests, tmp_path_factory) -> Path:
    """Each document once; a Job stands for each pod template in an object of a kind that is not Kubernetes' own."""
    written: dict[str, manifests.Document] = {}
    for document in (one for documents in all_manifests.values() for one in documents):
        stand_ins = [document]
        if document["kind"] == "PodGroup":
            continue
        if document["kind"] not in BUILT_IN:
            head = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {**document["metadata"], "namespace": "team"}}
            stand_ins = [{**head, "spec": {"template": template}} for template in pod_templates(document)]
        written |= {json.dumps(one): one for one in stand_ins}
    path = tmp_path_factory.mktemp("manifests") / "all.yaml"
    path.write_text(yaml.safe_dump_all(written.values()))
    return path


def test_every_overlay_is_a_layout_of_the_script():
    assert set(JOBS) == set(OVERLAYS)


@needs_checks
@pytest.mark.parametrize("release", RELEASES)
def test_manifests_are_valid_for_a_release(file, release):
    command = [CHECKS / "kubernetes-validate", "--strict", "--quiet", "-k", release, file]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_checks
def test_findings_of_checkov_are_those_that_are_explained(file, tmp_path):
    config = yaml.safe_load((REPOSITORY / "k8s" / "checks" / "checkov.yaml").read_text())
    explained = config.pop("skip-check")
    everything = tmp_path / "everything.yaml"
    everything.write_text(yaml.safe_dump({**config, "output": "json", "compact": True}))
    command = [CHECKS / "checkov", "--config-file", everything, "--file", file]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    result = json.loads(done.stdout)
    assert result["results"]["parsing_errors"] == []
    assert result["summary"]["passed"] > 500
    assert sorted({one["check_id"] for one in result["results"]["failed_checks"]}) == explained


def test_pods_are_restricted(all_manifests):
    """The level *restricted* of Kubernetes' Pod Security Standards, v1.31 to v1.37, field by field."""
    for name, documents in all_manifests.items():
        templates = list(pod_templates(documents))
        assert templates, name
        for template in templates:
            pod = template["spec"]
            assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod), name
            assert all({"persistentVolumeClaim", "emptyDir"} & set(volume) for volume in pod["volumes"]), name
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
            assert (pod["securityContext"]["runAsNonRoot"], pod["securityContext"]["runAsUser"]) == (True, 1000), name
            for container in pod["containers"] + pod.get("initContainers", []):
                security = container["securityContext"]
                assert security["allowPrivilegeEscalation"] is False, name
                assert security["capabilities"] == {"drop": ["ALL"]}, name
                assert security["readOnlyRootFilesystem"] is True, name
                allowed = {"allowPrivilegeEscalation", "capabilities", "readOnlyRootFilesystem", "runAsNonRoot"}
                assert set(security) <= allowed, name
                assert not any("hostPort" in port for port in container.get("ports", [])), name


def test_pods_ask_for_what_they_use_and_nothing_of_kubernetes(all_manifests):
    for name, documents in all_manifests.items():
        for template in pod_templates(documents):
            pod = template["spec"]
            assert pod["automountServiceAccountToken"] is False, name
            assert pod["enableServiceLinks"] is False, name
            assert pod["serviceAccountName"] == find(documents, "ServiceAccount", "distrain")["metadata"]["name"], name
            assert pod["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch", name
            for container in pod["containers"] + pod.get("initContainers", []):
                limits, requests = container["resources"]["limits"], container["resources"]["requests"]
                assert limits["memory"] == requests["memory"], name
                assert "cpu" in requests, name
                assert "cpu" not in limits, name
            (container,) = pod["containers"]
            assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}, name
            assert {"name": "HOME", "value": "/tmp"} in container["env"], name


def test_the_failure_policy_is_that_of_the_exit_codes(all_manifests):
    never_again = sorted(error.exit_code for error in FOR_GOOD)
    stopped = errors.StopRequested.exit_code
    jobs = [one for documents in all_manifests.values() for one in documents if one["kind"] == "Job"]
    for job in jobs:
        disrupted, asked, failed = job["spec"]["podFailurePolicy"]["rules"]
        assert disrupted["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
        assert (asked["action"], asked["onExitCodes"]["values"]) == ("Ignore", [stopped])
        assert (failed["action"], failed["onExitCodes"]["values"]) == ("FailJob", never_again)
        assert errors.RankError.exit_code not in never_again  # a retry
        assert job["spec"]["podReplacementPolicy"] == "Failed"
        assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"
        assert {"activeDeadlineSeconds", "ttlSecondsAfterFinished", "backoffLimit"} <= set(job["spec"])


def test_only_pods_of_the_job_reach_each_other(all_manifests):
    for name, documents in all_manifests.items():
        instance = "reviews" if name.startswith("job-") else "distrain"
        ours = {"app.kubernetes.io/instance": instance}
        policy = find(documents, "NetworkPolicy", instance)["spec"]
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        assert policy["podSelector"] == {"matchLabels": ours}
        assert policy["ingress"] == [{"from": [{"podSelector": {"matchLabels": ours}}]}]
        names = [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]
        assert policy["egress"] == [{"to": [{"podSelector": {"matchLabels": ours}}]}, {"ports": names}]
        for template in pod_templates(documents):
            assert ours.items() <= template["metadata"]["labels"].items(), name


@pytest.mark.parametrize("layout", sorted(set(OVERLAYS) - {"prepare", "files"}))
def test_a_job_of_the_overlays_own_name_is_the_overlay(layout, all_manifests):
    """The script and the overlay have the same command; in the script the preparation is a separate job."""
    rendered = [*manifests.folder("shared"), *render("--name=distrain", f"--layout={layout}")]
    for document in rendered:
        if document["kind"] == "NetworkPolicy":
            assert document["metadata"]["labels"].pop("app.kubernetes.io/instance") == "distrain"
    expected = [one for one in all_manifests[layout] if one["metadata"]["name"] != "distrain-prepare"]
    assert sorted(rendered, key=json.dumps) == sorted(expected, key=json.dumps)


def test_what_is_referred_to_comes_first(all_manifests):
    """An API server refuses a TrainJob without a runtime, and pods need their account, claims and Service."""
    for name, documents in all_manifests.items():
        there: set[tuple[str, str]] = set()
        for document in documents:
            missing = set(manifests.references(document)) - there
            assert missing == set(), f"{name}: {document['kind']} comes before {missing}"
            there.add((document["kind"], document["metadata"]["name"]))
        if name in set(OVERLAYS) - {"trainer"}:
            continue  # an order of their own would let `kubectl apply -k` warn of it
        policies = [number for number, one in enumerate(documents) if one["kind"] == "NetworkPolicy"]
        with_pods = [number for number, one in enumerate(documents) if list(pod_templates(one))]
        assert max(policies) < min(with_pods), name


def test_no_layout_holds_what_all_jobs_share(all_manifests):
    """So `kubectl delete` of a layout, or of what the script printed, deletes one job alone."""
    for name, documents in all_manifests.items():
        objects = [(one["kind"], one["metadata"]["name"]) for one in documents]
        assert set(objects[:3]) == SHARED
        assert SHARED.isdisjoint(objects[3:]), name


def test_claims_are_as_asked_for():
    asked = ["--layout=shared", "--access=ReadWriteOnce", "--storage-class=standard", "--namespace=team"]
    account, *claims = render(*asked)
    assert (account["kind"], account["metadata"]["namespace"]) == ("ServiceAccount", "team")
    assert [claim["metadata"]["name"] for claim in claims] == ["distrain-data", "distrain-runs"]
    assert all("app.kubernetes.io/instance" not in claim["metadata"]["labels"] for claim in claims)
    assert [claim["spec"]["accessModes"] for claim in claims] == [["ReadWriteOnce"], ["ReadWriteOnce"]]
    assert {claim["spec"]["storageClassName"] for claim in claims} == {"standard"}
    default = manifests.folder("shared")
    assert default == render("--layout=shared")
    assert {claim["spec"]["accessModes"][0] for claim in default[1:]} == {"ReadWriteMany"}


@pytest.mark.parametrize("layout", sorted(set(OVERLAYS) - {"prepare", "files"}))
def test_a_queue_holds_the_job_back(layout, all_manifests):
    kind = {"mpijob": "MPIJob", "trainer": "TrainJob"}.get(layout, "Job")
    job = find(all_manifests[f"job-{layout}"], kind, "reviews")
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert job["spec"].get("runPolicy", job["spec"])["suspend"] is True


@pytest.mark.parametrize(("pods", "gpus", "ranks"), [(1, 4, None), (3, 1, None), (2, 4, None), (4, 0, 2)])
def test_pods_of_an_indexed_job_make_the_world_that_was_asked_for(pods, gpus, ranks):
    per_pod = ranks or gpus
    arguments = [f"--pods={pods}", f"--gpus={gpus}", *([f"--ranks={ranks}"] if ranks else [])]
    documents = render("--name=w", "--layout=indexed", *arguments, f"--global-batch-size={pods * per_pod}")
    job, service = find(documents, "Job", "w"), find(documents, "Service", "w")
    container = job["spec"]["template"]["spec"]["containers"][0]
    environment = manifests.variables(container)
    assert job["spec"]["completionMode"] == "Indexed"
    assert job["spec"]["completions"] == job["spec"]["parallelism"] == pods
    assert container["resources"]["limits"].get("nvidia.com/gpu", 0) == gpus
    host = f"w-0.{job['spec']['template']['spec']['subdomain']}"  # Kubernetes names a pod's host NAME-INDEX
    assert (host, service["spec"]["clusterIP"]) == (f"w-0.{service['metadata']['name']}", "None")
    assert service["spec"]["selector"].items() <= job["spec"]["template"]["metadata"]["labels"].items()
    worlds = [
        find_world({**environment, "JOB_COMPLETION_INDEX": str(pod), "DISTRAIN_LOCAL_RANK": str(local_rank)})
        for pod in range(pods)
        for local_rank in range(per_pod)
    ]
    port = service["spec"]["ports"][0]["port"]
    assert container["ports"] == [{"name": "rendezvous", "containerPort": port}]
    rendezvous = f"{host}:{port}" if pods * per_pod > 1 else None
    assert worlds == [
        World(rank, pods * per_pod, rank % per_pod, per_pod, "indexed job", rendezvous)
        for rank in range(pods * per_pod)
    ]


def test_pods_of_the_operators_jobs_are_as_many_as_asked_for(all_manifests):
    mpi_job = find(all_manifests["job-mpijob"], "MPIJob", "reviews")["spec"]
    assert (mpi_job["slotsPerWorker"], mpi_job["mpiReplicaSpecs"]["Worker"]["replicas"]) == (2, 3)
    trainer = find(all_manifests["job-trainer"], "TrainJob", "reviews")["spec"]
    policy = find(all_manifests["job-trainer"], "TrainingRuntime", "reviews")["spec"]["mlPolicy"]
    assert trainer["runtimeRef"]["name"] == "reviews"
    assert (trainer["trainer"]["numNodes"], trainer["trainer"]["numProcPerNode"]) == (4, 2)
    assert (policy["numNodes"], policy["mpi"]["numProcPerNode"]) == (4, 2)


def test_all_pods_of_a_job_have_its_uid(all_manifests):
    """So a replaced pod goes on in the run that its job has begun, whatever `--resume` says."""
    label = "batch.kubernetes.io/controller-uid"  # the Job controller sets it on pods, since Kubernetes 1.27
    for name, documents in all_manifests.items():
        for template in pod_templates(documents):
            (container,) = template["spec"]["containers"]
            if template["metadata"]["labels"]["app.kubernetes.io/component"] == "train":
                assert manifests.variables(container, {label: "u"})["DISTRAIN_LAUNCH_ID"] == "u", name


def test_probes_ask_about_the_run_that_is_trained(all_manifests):
    asked = 0
    for name, documents in all_manifests.items():
        for template in pod_templates(documents):
            (container,) = template["spec"]["containers"]
            runs = [word.partition("=")[2] for word in container["args"] if word.startswith("--run=")]
            if not runs:
                assert "livenessProbe" not in container, name
                continue
            expected = ["distrain", "alive", "--run", *runs, "--within", "300"]
            assert container["livenessProbe"]["exec"]["command"] == expected, name
            shell, _, script, run = container["startupProbe"]["exec"]["command"]
            assert (shell, run) == ("sh", *runs), name
            assert script.startswith('until distrain alive --run "$0" --within 300; do'), name
            asked += len(runs)
    assert asked == 2 * 5  # an overlay and a job of each layout that trains


def test_the_image_has_the_tag_of_this_version(all_manifests):
    for name, documents in all_manifests.items():
        for template in pod_templates(documents):
            for container in template["spec"]["containers"] + template["spec"].get("initContainers", []):
                if name.startswith("job-"):
                    assert container["image"] == f"example.org/distrain@sha256:{64 * '0'}"
                else:
                    suffix = "-mpi" if name in ("mpijob", "trainer") else ""
                    assert container["image"] == f"distrain:{__version__}{suffix}"
