"""`status` and `logs` of `launch/k8s.sh`, with a real kubectl and a server that speaks Kubernetes' API."""

from __future__ import annotations

import manifests
from cluster_pods import COMMON, add_pod, add_warning, end

pytestmark = manifests.needs_kubectl


def test_a_user_without_rights_to_operators_kinds_sees_and_deletes_the_rest(cluster_with_operators, script):
    cluster = cluster_with_operators
    script(cluster, "apply", "--name=a")
    add_pod(cluster, "a-0", progress='{"step": 7}\n')
    cluster.forbidden = {"mpijobs", "trainjobs", "trainingruntimes", "podgroups"}
    done = script(cluster, "status", "--name=a")
    assert done.returncode == 0
    assert done.stdout.endswith('{"step": 7}\n')
    assert done.stderr.splitlines() == [
        "note: left out mpijobs.kubeflow.org, which you may not list.",
        "note: left out trainjobs.trainer.kubeflow.org, which you may not list.",
    ]
    assert script(cluster, "delete", "--name=a").returncode == 0
    assert cluster.names() == COMMON | {("pods", "a-0")}


def test_status_says_how_a_job_ended(cluster, script):
    script(cluster, "apply", "--name=a")
    add_pod(cluster, "a-0")
    conditions = [{"type": "Failed", "status": "False", "reason": ""}]
    job = cluster.objects["jobs", "a"]
    job["status"] = {
        "conditions": [*conditions, {"type": "Complete", "status": "True", "reason": "CompletionsReached"}]
    }
    last = script(cluster, "status", "--name=a").stdout.splitlines()[-1]
    assert last == "a is complete: the model is in /runs/a, and `logs` shows the results."
    job["status"] = {"conditions": [{"type": "Failed", "status": "True", "reason": "PodFailurePolicy"}]}
    last = script(cluster, "status", "--name=a").stdout.splitlines()[-1]
    assert last.startswith("a has failed for good (PodFailurePolicy): `logs` says why.")
    job["status"] = {"conditions": [{"type": "Suspended", "status": "True", "reason": "JobSuspended"}]}
    assert "a is suspended" in script(cluster, "status", "--name=a").stdout


def last_line(cluster, script, *arguments):
    return script(cluster, "status", "--name=a", *arguments).stdout.splitlines()[-1]


def test_status_says_why_a_job_failed_or_does_not_run(cluster_with_operators, script):
    cluster = cluster_with_operators
    assert last_line(cluster, script).startswith("there is no job a here: `apply` starts it.")
    script(cluster, "apply", "--name=a", "--queue=gpus")
    job = cluster.objects["jobs", "a"]

    def said(kind, reason, message):
        job["status"] = {"conditions": [{"type": kind, "status": "True", "reason": reason, "message": message}]}
        return last_line(cluster, script)

    assert said("Suspended", "JobSuspended", "Job suspended") == (
        "a is suspended: it waits in the queue gpus for its whole quota. `kubectl get workloads` says what is missing."
    )
    why = "Container distrain for pod team/a-x failed with exit code 3 matching FailJob rule at index 2"
    assert said("Failed", "PodFailurePolicy", why).endswith(f"`delete`, then `apply`. Kubernetes: {why}")
    long = "Job was active longer than specified deadline"
    assert said("Failed", "DeadlineExceeded", long) == (
        "a has reached its time limit: `delete`, then `apply` goes on from the last checkpoint. Kubernetes: " + long
    )
    del job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"]
    assert said("Suspended", "JobSuspended", "Job suspended") == (
        "a is suspended: somebody paused it. To go on: kubectl patch job a --type merge "
        """-p '{"spec":{"suspend":false}}'"""
    )
    assert script(cluster, "delete", "--name=a").returncode == 0
    script(cluster, "apply", "--name=a", "--layout=mpijob")
    paused = {"type": "Suspended", "status": "True", "reason": "MPIJobSuspended", "message": "MPIJob suspended"}
    cluster.objects["mpijobs", "a"]["status"] = {"conditions": [paused]}
    assert last_line(cluster, script).endswith(
        """kubectl patch mpijob a --type merge -p '{"spec":{"runPolicy":{"suspend":false}}}'"""
    )
    script(cluster, "apply", "--name=a", "--layout=prepare", "--train=/data/text/train.csv")
    cluster.objects["jobs", "a-prepare"]["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
    assert last_line(cluster, script, "--layout=prepare") == "a-prepare is complete: `logs` shows the results."


def test_status_says_what_pods_wait_for(cluster, script):
    """Pods that wait for the same are one sentence; a pod that Kubernetes has not created is missing."""
    script(cluster, "apply", "--name=a", "--layout=indexed", "--pods=16")
    running = add_pod(cluster, "a-0-x", progress='{"step": 7}\n', **{"batch.kubernetes.io/job-completion-index": "0"})
    running["status"]["conditions"] = [{"type": "PodScheduled", "status": "True"}]
    no_room = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": no_room}

    def waiting(reason):
        return [{"name": "distrain", "state": {"waiting": {"reason": reason}}}]

    starting = {"containerStatuses": waiting("PodInitializing")}
    init = [{"name": "wait-for-data", "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]
    states = [
        *[{"conditions": [unscheduled]}] * 3,
        {"containerStatuses": waiting("ContainerCreating")},
        *[{"initContainerStatuses": waiting("ImagePullBackOff"), **starting}] * 2,
        {"initContainerStatuses": init, **starting},
        {"containerStatuses": waiting("CreateContainerConfigError")},
    ]
    other = {"batch.kubernetes.io/job-completion-index": "1"}
    for index, state in enumerate(states, 1):
        add_pod(cluster, f"a-{index}-x", **other)["status"] = {"phase": "Pending", **state}
    end(add_pod(cluster, "a-9-x", **other), 42)
    end(add_pod(cluster, "a-10-x", **other), 0)
    done = script(cluster, "status", "--name=a")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-7:] == [
        f"a-1-x (and 2 more) waits for a node: {no_room}",
        "a-4-x waits for its volumes and its image, as each pod does at its start.",
        "a-5-x (and 1 more) waits for its image (ImagePullBackOff): see --image and --pull-secret.",
        "a-7-x waits for prepared data: `logs --name a --layout prepare` shows its job.",
        "a-8-x waits in vain (CreateContainerConfigError): `kubectl describe pod` says for what.",
        "6 of 16 pods are missing. If no warning above says why, Kubernetes waits up to 10 minutes before it replaces "
        "them. To hurry it: `delete`, then the same `apply`.",
        '{"step": 7}',
    ]


def test_status_says_what_to_do_about_an_evicted_worker(cluster_with_operators, script):
    cluster = cluster_with_operators
    script(cluster, "apply", "--name=a", "--layout=mpijob")
    failed = {"type": "Failed", "status": "True", "reason": "MPIJobEvicted"}
    cluster.objects["mpijobs", "a"]["status"] = {"conditions": [failed]}
    add_pod(cluster, "a-launcher-x", progress='{"step": 7}\n', **{"training.kubeflow.org/job-role": "launcher"})
    worker = add_pod(cluster, "a-worker-1", **{"training.kubeflow.org/job-role": "worker"})
    worker["status"] = {"phase": "Failed", "reason": "Evicted"}
    status = script(cluster, "status", "--name=a").stdout
    advice = "a-worker-1 is gone (Evicted), and the operator replaces it only after: kubectl delete pod a-worker-1"
    assert status.splitlines()[-2:] == [advice, '{"step": 7}']


def test_logs_and_progress_are_the_chiefs(cluster, script):
    index = "batch.kubernetes.io/job-completion-index"
    add_pod(cluster, "a-0-old", log="before\n", **{index: "0"})
    add_pod(cluster, "a-0-new", log="chief\n", progress='{"step": 7}\n', **{index: "0"})
    add_pod(cluster, "a-1-new", log="other\n", **{index: "1"})
    add_pod(cluster, "a-prepare-x", component="prepare", log="prepared\n")
    assert script(cluster, "logs", "--name=a").stdout == "chief\n"
    assert script(cluster, "logs", "--name=a", "--layout=prepare").stdout == "prepared\n"
    status = script(cluster, "status", "--name=a")
    assert status.returncode == 0
    assert status.stdout.endswith('{"step": 7}\n')
    none = script(cluster, "logs", "--name=b")
    assert none.returncode == 1
    assert none.stderr.startswith("error: there is no pod of b")


def test_logs_of_an_operators_job_are_the_launchers(cluster, script):
    add_pod(cluster, "a-launcher-x", log="launcher\n", **{"training.kubeflow.org/job-role": "launcher"})
    add_pod(cluster, "a-worker-0", log="worker\n", **{"training.kubeflow.org/job-role": "worker"})
    assert script(cluster, "logs", "--name=a").stdout == "launcher\n"
    for pod in ("a-launcher-x", "a-worker-0"):
        del cluster.objects["pods", pod]
    replicated = "jobset.sigs.k8s.io/replicatedjob-name"
    add_pod(cluster, "a-launcher-0-0-x", log="launcher\n", **{replicated: "launcher"})
    add_pod(cluster, "a-node-0-0-x", log="worker\n", **{replicated: "node"})
    assert script(cluster, "logs", "--name=a").stdout == "launcher\n"


def test_logs_after_a_failure_are_those_of_a_pod_that_failed(cluster, script):
    """Kubernetes deletes the pods that run when a job fails for good, so the chief's may be gone."""
    index = "batch.kubernetes.io/job-completion-index"
    end(add_pod(cluster, "a-1-x", log="lost\n", **{index: "1"}), 5)
    done = script(cluster, "logs", "--name=a")
    assert (done.stdout, done.returncode) == ("lost\n", 0)
    end(add_pod(cluster, "a-2-x", log="wrong data\n", **{index: "2"}), 3)
    end(add_pod(cluster, "a-3-x", log="lost too\n", **{index: "3"}), 5)
    done = script(cluster, "logs", "--name=a")
    assert done.stdout == "wrong data\n"
    assert done.stderr == "note: the chief has no log, so here is the log of a-2-x, which ended with exit code 3.\n"
    waiting = add_pod(cluster, "a-0-x", log="not yet\n", **{index: "0"})
    waiting["status"] = {"phase": "Pending"}
    assert script(cluster, "logs", "--name=a").stdout == "wrong data\n"
    end(waiting, 3)
    done = script(cluster, "logs", "--name=a")
    assert (done.stdout, done.stderr) == ("not yet\n", "")


def test_status_says_why_a_job_does_not_go_on(cluster, script):
    add_pod(cluster, "a-0")["status"] = {"phase": "Pending"}
    ended = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    add_pod(cluster, "a-1")["status"] = {"phase": "Failed", "containerStatuses": [{"name": "distrain", "state": ended}]}
    add_warning(cluster, "a-0", "FailedScheduling", "0/3 nodes are available: 3 Insufficient nvidia.com/gpu.")
    add_warning(cluster, "ab-0", "FailedScheduling", "of another job")
    add_warning(cluster, "a", "FailedCreate", 'pods "a-1" is forbidden: exceeded quota')
    lines = script(cluster, "status", "--name=a").stdout.splitlines()
    assert "a-1: ended with exit code 137, OOMKilled" in lines
    assert "a-0: FailedScheduling: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu." in lines
    assert 'a: FailedCreate: pods "a-1" is forbidden: exceeded quota' in lines
    assert not any("another job" in line for line in lines)
    why = "kubectl: error: cannot exec into a container in a completed pod; current phase is Failed"
    assert f"a-1 reports no progress: it does not run, or has not begun to train. {why}" in lines
