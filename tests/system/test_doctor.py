"""`distrain doctor` on a healthy machine, and on one with many real faults at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from stand_in_gpus import smi

DISTRAIN = str(Path(sys.executable).with_name("distrain"))

# Faults that only a namespace can have: a name that nothing resolves, small shared memory, a full disk.
SICK = """
hostname nobody-knows-this-name
mount -t tmpfs -o size=1m tmpfs /dev/shm
mount -t tmpfs -o size=1m tmpfs "$FULL"
exec "$@"
"""


def doctor(*arguments, wrapped=(), **environment):
    """Return exit code, findings by name, and standard error of `distrain doctor --json`."""
    done = subprocess.run(
        [*wrapped, DISTRAIN, "doctor", "--json", *arguments],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    told = json.loads(done.stdout)
    checks = {check["name"]: check for check in told["checks"]}
    assert told["ok"] == (done.returncode == 0) == all(check["status"] != "error" for check in checks.values())
    assert all(bool(check["cure"]) == (check["status"] != "ok") for check in checks.values())
    return done.returncode, checks, done.stderr


def test_a_machine_that_trains_has_no_error(tmp_path):
    code, checks, err = doctor("--dir", str(tmp_path))
    assert list(checks) == [
        *("TensorFlow", "Keras", "GPUs", "driver", "NCCL", "Horovod", "MPI"),
        *("shared memory", "disk", "host name", "ports"),
    ]
    assert (code, err) == (0, ""), checks
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")
def test_a_machine_with_many_faults(tmp_path):
    horovod = tmp_path / "packages" / "horovod"
    (horovod / "tensorflow").mkdir(parents=True)
    (horovod / "__init__.py").touch()
    (horovod / "tensorflow" / "mpi_lib.so").touch()
    (horovod / "metadata.json").write_text('{"tensorflow": "2.16.1"}')
    (tmp_path / "ssh").write_text("#!/bin/sh\necho 'Permission denied (publickey).' >&2\nexit 255\n")
    (tmp_path / "ssh").chmod(0o755)
    smi(tmp_path, "NVIDIA H200", "NVIDIA H200")
    (tmp_path / "full").mkdir()
    isolated = ["unshare", "--uts", "--mount", "sh", "-ec", SICK, "sh"]
    if subprocess.run(["unshare", "--uts", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this root may not make namespaces (a container without CAP_SYS_ADMIN)")
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(horovod.parent)}
    environment |= {"FULL": str(tmp_path / "full")}
    arguments = ("--dir", str(tmp_path / "full"), "--hosts", "node2,node3")
    code, checks, err = doctor(*arguments, wrapped=isolated, **environment)
    assert code == 2
    for name, words in {
        "GPUs": "2 x NVIDIA H200, but TensorFlow can use no GPU",
        "Horovod": "built for TensorFlow 2.16.1",
        "shared memory": "1 MiB",
        "disk": "No space left on device",
        "host name": "nobody-knows-this-name does not resolve",
        "host node2": "Permission denied (publickey).",
        "host node3": "Permission denied (publickey).",
    }.items():
        assert checks[name]["status"] == "error", checks[name]
        assert words in checks[name]["message"]
        assert name in err
    assert checks["TensorFlow"]["status"] == checks["ports"]["status"] == "ok"
    assert len(err.splitlines()) == 1
