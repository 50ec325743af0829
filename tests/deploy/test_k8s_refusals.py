"""`launch/k8s.sh` refuses what could not run, before it sends anything."""

from __future__ import annotations

import manifests
import pytest
from manifests import run

REFUSED = {
    "no command": ([], "is no command; it must be render, apply, status, logs or delete"),
    "unknown command": (["remove", "--name=a"], '"remove" is no command'),
    "no name": (["render"], "--name is missing"),
    "option without a value": (["render", "--name"], "--name needs a value"),
    "empty value": (["render", "--name=a", "--pods="], "--pods needs a value"),
    "capital in a name": (["render", "--name=Reviews"], '--name is "Reviews", but it must be a DNS label'),
    "name that begins with a digit": (["render", "--name=4gpus"], "from a letter to a letter or digit"),
    "name with a line break": (["render", "--name=a\nb"], "must be a DNS label"),
    "path in a name": (["delete", "--name=../a"], "must be a DNS label"),
    "long name": (["render", f"--name={'a' * 64}"], "has 64 characters, but a DNS label has at most 63"),
    "pod's long name under Trainer": (
        ["render", f"--name={'a' * 45}", "--layout=trainer"],
        "-launcher-0-0-abcde would have 64 characters",
    ),
    "pod's long name": (
        ["render", f"--name={'a' * 61}", "--layout=indexed", "--pods=16", "--gpus=0"],
        "-15 would have 64 characters, but at most 63 are allowed. Remove at least 1",
    ),
    "preparation's long name": (
        ["render", f"--name={'a' * 56}", "--layout=prepare", "--train=/t"],
        "would have 64 characters",
    ),
    "worker's long name": (["render", f"--name={'a' * 55}", "--layout=mpijob"], "would have 64 characters"),
    "namespace": (["render", "--name=a", "--namespace=team_a"], '--namespace is "team_a"'),
    "queue": (["render", "--name=a", "--queue=q: x"], '--queue is "q: x"'),
    "layout": (["render", "--name=a", "--layout=cluster"], '--layout is "cluster", but it must be single-gpu, '),
    "several pods of one": (["render", "--name=a", "--pods=2"], "is one pod; --layout indexed has several"),
    "several GPUs of one": (["render", "--name=a", "--gpus=2"], "--layout multi-gpu has several in one pod"),
    "one GPU of several": (["render", "--name=a", "--layout=multi-gpu", "--gpus=1"], "whole number from 2 to 64"),
    "no pods": (["render", "--name=a", "--layout=indexed", "--pods=0"], '--pods is "0", but it must be a whole number'),
    "GPUs that are no number": (["render", "--name=a", "--layout=indexed", "--gpus=all"], '--gpus is "all"'),
    "octal": (["render", "--name=a", "--layout=indexed", "--pods=010"], '--pods is "010"'),
    "ranks without GPUs of their own": (
        ["render", "--name=a", "--layout=indexed", "--gpus=2", "--ranks=4"],
        "each process needs its own GPU",
    ),
    "ranks of one process": (["render", "--name=a", "--ranks=2"], "--ranks does not fit --layout single-gpu"),
    "GPUs to prepare": (["render", "--name=a", "--layout=prepare", "--gpus=1", "--train=/t"], "one pod on CPUs"),
    "nothing to prepare": (["render", "--name=a", "--layout=prepare"], "--layout prepare needs --train FILE"),
    "data twice to prepare": (
        ["render", "--name=a", "--layout=prepare", "--train=/t", "--out=/data/x"],
        "--out cannot be among the arguments",
    ),
    "arguments without a command": (["render", "--name=a", "--layout=files", "ls"], '"ls" is one'),
    "default batch": (["render", "--name=a", "--layout=indexed", "--pods=3"], "of 128 does not divide by 3 replicas"),
    "batch": (
        ["render", "--name=a", "--layout=indexed", "--pods=2", "--gpus=4", "--", "--global-batch-size", "100"],
        "the global batch of 100 does not divide by 8 replicas",
    ),
    "batch of one pod": (["render", "--name=a", "--layout=multi-gpu", "--gpus=5"], "does not divide by 5 replicas"),
    "accumulated batch": (
        ["render", "--name=a", "--layout=indexed", "--accumulation-steps=3"],
        "does not divide by 2 replicas x 3 accumulation steps",
    ),
    "option given twice": (["render", "--name=a", "--name", "b"], "--name is given twice"),
    "option of another command": (["status", "--name=a", "--pods=2"], "--pods does not fit the command status"),
    "claims of another command": (["apply", "--name=a", "--claims"], "--claims does not fit the command apply"),
    "arguments of no command": (["delete", "--name=a", "b"], 'delete takes no arguments, but "b" is one'),
    "job of shared objects": (["delete", "--layout=shared"], "--layout shared is no job"),
    "name of shared objects": (["render", "--layout=shared", "--name=a"], "--name does not fit --layout shared"),
    "pods of shared objects": (["render", "--layout=shared", "--pods=2"], "--pods does not fit --layout shared"),
    "claims that are not printed": (["render", "--name=a", "--access=ReadWriteOnce"], "render prints no claims"),
    "claims and none": (["apply", "--name=a", "--no-claims", "--access=ReadWriteOnce"], "--no-claims does not fit"),
    "dry run": (["apply", "--name=a", "--dry-run=yes"], '--dry-run is "yes"'),
    "unknown option": (
        ["apply", "--name=a", "--epoch=3"],
        "--epoch is no option of distrain train, or of k8s.sh; write ",
    ),
    "unknown argument": (["apply", "--name=a", "--", "--namespaces=b"], "--namespaces is no option of distrain train"),
    "unknown short option": (["apply", "--name=a", "-e", "3"], '"-e" is no option'),
    "argument without an option": (["render", "--name=a", "--seed=1", "2"], '"2" is no option of distrain train'),
    "argument without a value": (["render", "--name=a", "--seed"], "--seed of distrain train needs a value"),
    "argument before an option": (["render", "--name=a", "--seed", "--epochs=3"], "--seed of distrain train needs a"),
    "value of a flag": (["render", "--name=a", "--no-jit=1"], "--no-jit of distrain train takes no value"),
    "argument given twice": (["render", "--name=a", "--seed=1", "--seed", "2"], "--seed is given twice"),
    "strategy of the layout": (["render", "--name=a", "--layout=indexed", "--strategy=mpi"], "has its own"),
    "unknown option to prepare": (
        ["apply", "--name=a", "--layout=prepare", "--train=/t", "--epochs=3"],
        "--epochs is no option of distrain prepare",
    ),
    "node selector": (["render", "--name=a", "--node-selector=gpu"], "--node-selector is "),
    "toleration": (["render", "--name=a", "--toleration=a:Never"], "--toleration is "),
    "variable": (["render", "--name=a", "--env=NCCL_DEBUG"], "--env is "),
    "variable of the layout": (
        ["render", "--name=a", "--env=DISTRAIN_NUM_PODS=2"],
        "--env cannot set DISTRAIN_NUM_PODS",
    ),
    "variable of the job": (["render", "--name=a", "--env=DISTRAIN_LAUNCH_ID=x"], "cannot set DISTRAIN_LAUNCH_ID"),
    "restarts as a variable": (
        ["render", "--name=a", "--layout=indexed", "--env=DISTRAIN_RESTARTS=3"],
        "--env cannot set DISTRAIN_RESTARTS: --restarts does",
    ),
    "variable that ssh drops": (["render", "--name=a", "--layout=mpijob", "--env=FOO=1"], "--env cannot set FOO with"),
    "bytes in a variable": (["render", "--name=a", b"--env=A=\xff"], "is not UTF-8"),
    "volume": (["render", "--name=a", "--volume=/host:/x"], "--volume is "),
    "volume in the place of another": (["render", "--name=a", "--volume=pvc/x:/data"], "its folder cannot be /data"),
    "volume below read-only data": (["render", "--name=a", "--volume=pvc/x:/data/x/"], "its folder cannot be /data/x"),
    "two volumes in one folder": (
        ["render", "--name=a", "--volume=pvc/x:/x", "--volume=secret/x:/x/:ro"],
        "--volume names the folder /x twice",
    ),
    "variable given twice": (["render", "--name=a", "--env=A=1", "--env=A=2"], "--env sets A twice"),
    "device": (["render", "--name=a", "--resource=rdma/hca"], "--resource is "),
    "GPUs as a device": (["render", "--name=a", "--resource=nvidia.com/gpu=2"], "--gpus, --cpus and --memory say"),
    "address": (["render", "--name=a", "--egress=storage.example.org"], "--egress is "),
    "address within a network": (["render", "--name=a", "--egress=10.0.0.1/8:443"], "10.0.0.1/8 is no network"),
    "address of large numbers": (["render", "--name=a", "--egress=10.0.256.0/24"], "10.0.256.0/24 is no network"),
    "large prefix": (["render", "--name=a", "--egress=10.0.0.0/33"], "10.0.0.0/33 is no network"),
    "octal port": (["render", "--name=a", "--egress=10.0.0.0/8:0443"], "--egress is "),
    "port": (["render", "--name=a", "--egress=10.0.0.0/8:70000"], "a port is at most 65535"),
    "file of a pod": (["render", "--name=a", "--pod-spec=/no/such/file"], "it must be a file that can be read"),
    "gang": (["render", "--name=a", "--layout=indexed", "--gang=kueue"], "--queue names a queue of Kueue"),
    "restarts without pods that wait": (
        ["render", "--name=a", "--restarts=3"],
        "--restarts does not fit",
    ),
    "restarts that are no number": (["render", "--name=a", "--layout=indexed", "--restarts=many"], "--restarts is "),
    "gang of one pod": (["render", "--name=a", "--gang=volcano"], "--gang does not fit --layout single-gpu"),
    "gang under Trainer": (["render", "--name=a", "--layout=trainer", "--gang=volcano"], "--queue does"),
    "batch that is no number": (["render", "--name=a", "--global-batch-size=many"], "whole number from 1"),
    "data elsewhere": (["render", "--name=a", "--data=reviews"], "must be a folder on the data volume"),
    "data of a function to prepare": (
        ["render", "--name=a", "--layout=prepare", "--data=shop:data", "--train=/data/a.csv"],
        "must be a folder on the data volume",
    ),
    "data of no function": (["render", "--name=a", "--data=shop:"], "a function is package.module:function"),
    "data of another server": (["render", "--name=a", "--data=ftp://host/data"], "a URL begins with s3://"),
    "data with a secret": (["render", "--name=a", "--data=https://host/data?token=x"], "a URL begins with s3://"),
    "data of a server to prepare": (
        ["render", "--name=a", "--layout=prepare", "--data=s3://bucket/data", "--train=/data/a.csv"],
        "must be a folder on the data volume",
    ),
    "data above": (["render", "--name=a", "--data=/data/../runs"], "must be a folder on the data volume"),
    "data twice": (["render", "--name=a", "--", "--data=/data/x"], "--data cannot be among the arguments"),
    "another run directory": (["render", "--name=a", "--run", "/runs/b"], "the run directory is /runs/a"),
    "image without a tag": (["render", "--name=a", "--image=example.org/distrain"], "must be REGISTRY/NAME:TAG"),
    "image with a space": (["render", "--name=a", "--image=a b:1"], "must be REGISTRY/NAME:TAG"),
    "memory": (["render", "--name=a", "--memory=lots"], "a number of bytes like 16Gi"),
    "cores": (["render", "--name=a", "--cpus=0.5"], "--cpus is "),
    "access": (["apply", "--name=a", "--access=ReadOnly"], "--access is "),
    "storage class": (["apply", "--name=a", "--storage-class=a b"], "--storage-class is "),
    "bytes that are no text": (["render", "--name=a", "--model", b"\xff"], "is not UTF-8"),
    "control characters": (["render", "--name=a", "--model=\x85"], "has a control character"),
}


@manifests.needs_kubectl
@pytest.mark.parametrize("case", REFUSED)
def test_it_refuses_what_could_not_run(case):
    arguments, message = REFUSED[case]
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    first = done.stderr.decode().partition("\n\n")[0]
    assert first.startswith("error: ")
    assert message in first
