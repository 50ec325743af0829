"""Checks of the software and the GPUs: TensorFlow, Keras, the driver, NCCL, Horovod, MPI.

Decides: which fault of the software stops training. Never: loads TensorFlow or Horovod into this process.

    facts = tensorflow_facts.ask(dict(os.environ))
    check_gpus(facts)
    check_horovod(facts)
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from distrain.cluster import nvidia
from distrain.cluster.other_program import answer_of
from distrain.cluster.placement import grouped
from distrain.doctor.finding import Finding
from distrain.extras import install_command
from distrain.keras_backend.private_names import TRIED_VERSIONS

MPIRUN_SECONDS = 20.0

Facts = Mapping[str, Any]


def check_tensorflow(facts: Facts) -> Finding:
    """Check that TensorFlow loads, in a version that distrain was tried with."""
    if "failure" in facts:
        return Finding.error(
            f"TensorFlow or Keras cannot be loaded ({facts['failure']})",
            f"{install_command('cpu')}, or 'distrain[gpu]' for NVIDIA GPUs",
        )
    return _tried("tensorflow", facts["version"], facts["tensorflow"])


def check_keras(facts: Facts) -> Finding:
    """Check that Keras runs on TensorFlow, in a version that distrain was tried with."""
    if "failure" in facts:
        return Finding.warning("unknown, because TensorFlow or Keras cannot be loaded", "see TensorFlow")
    if facts["backend"] != "tensorflow":
        return Finding.error(f"Keras is set to run on {facts['backend']}", "set KERAS_BACKEND=tensorflow")
    return _tried("keras", facts["keras"], facts["keras"])


def check_gpus(facts: Facts) -> Finding:
    """Check that TensorFlow uses the GPUs of this machine, and say why if it does not."""
    if facts.get("gpus"):
        return Finding.ok(grouped(facts["gpus"]))
    present = facts["present"] if "present" in facts else nvidia.gpus_present()
    if present and facts.get("hidden"):
        return Finding.ok(f"{grouped(present)}, all hidden by CUDA_VISIBLE_DEVICES")
    if present:
        reason, _, cure = facts.get("reason", "TensorFlow cannot be loaded. See TensorFlow.").partition(". ")
        return Finding.error(f"{grouped(present)}, but TensorFlow can use no GPU: {reason}", cure.rstrip("."))
    on_bus = nvidia.gpus_on_bus()
    if on_bus:
        return Finding.warning(
            f"{on_bus} NVIDIA GPU(s) on the bus, but no driver shows any to this process",
            "install NVIDIA's driver; a container needs --gpus all, a job must request GPUs",
        )
    return Finding.ok("none, training uses the CPU")


def check_driver(facts: Facts) -> Finding:
    """Check that the driver supports the CUDA release that TensorFlow is built for."""
    release = nvidia.driver_version()
    if not release and not facts.get("present"):
        return Finding.ok("no NVIDIA driver, and no GPU that needs one")
    driver = nvidia.ask_driver()
    supports = f"CUDA up to {driver.cuda[0]}.{driver.cuda[1]}" if driver.cuda else "an unknown release of CUDA"
    message = f"{release or 'unknown release'}, supports {supports}"
    wanted = facts.get("cuda", "").partition(".")[0]
    if driver.cuda and wanted.isdigit() and driver.cuda[0] < int(wanted):
        return Finding.error(f"{message}; TensorFlow is built for CUDA {facts['cuda']}", "install a newer driver")
    if driver.fault and not facts.get("hidden"):
        fault, _, cure = driver.fault.partition(". ")
        return Finding.error(f"{message}; {fault}", cure or "see what nvidia-smi says")
    return Finding.ok(message)


def check_nccl(facts: Facts) -> Finding:
    """Check that NCCL is there if several GPUs have to sum."""
    found = importlib.util.find_spec("nvidia.nccl") if importlib.util.find_spec("nvidia") else None
    if found is not None:
        return Finding.ok(f"NCCL {_version('nvidia-nccl-cu12') or _version('nvidia-nccl-cu13') or ''}".strip())
    if len(facts.get("gpus", [])) > 1:
        return Finding.warning("NCCL is not installed, so GPUs sum slowly or not at all", install_command("gpu"))
    return Finding.ok("not installed, and only several GPUs need it")


def check_horovod(facts: Facts) -> Finding:
    """Check that Horovod was built for the installed TensorFlow, by what its build recorded."""
    spec = importlib.util.find_spec("horovod")
    rebuild = "distrain install-horovod builds it"
    if spec is None or not spec.origin:
        return Finding.ok(f"not installed; several processes use MPI ({rebuild})")
    folder = Path(spec.origin).parent
    try:
        built_for = json.loads((folder / "metadata.json").read_text(encoding="utf-8")).get("tensorflow")
    except (OSError, ValueError):
        built_for = None
    installed = facts.get("version") or _version("tensorflow") or _version("tensorflow-cpu")
    name = f"Horovod {_version('horovod') or ''}".strip()
    libraries = list((folder / "tensorflow").glob("mpi_lib*.so"))
    if built_for is None or not libraries:
        return Finding.error(f"{name} was built without TensorFlow", f"{rebuild} anew")
    if installed and built_for != installed:
        message = f"{name} was built for TensorFlow {built_for}, but {installed} is installed"
        return Finding.error(message, f"{rebuild} anew, or use --strategy mpi")
    if facts.get("gpus") and not any(b"ncclAllReduce" in library.read_bytes() for library in libraries):
        message = f"{name}, built for TensorFlow {built_for} without NCCL, so it cannot sum on GPUs"
        return Finding.warning(message, "distrain install-horovod --gpu, or one process for all GPUs of a machine")
    return Finding.ok(f"{name}, built for TensorFlow {built_for}")


def check_mpi(*, needs_mpirun: bool) -> Finding:
    """Check that mpirun is Open MPI's, and that Python reaches MPI.

    Args:
        needs_mpirun: whether training on other hosts was asked about.
    """
    cure = install_command("mpi")
    judge = Finding.error if needs_mpirun else Finding.warning
    program = shutil.which(str(Path(sys.executable).with_name("mpirun"))) or shutil.which("mpirun")
    if program is None:
        return judge("no mpirun, which starts several processes", cure)
    try:
        done = answer_of([program, "--version"], seconds=MPIRUN_SECONDS)
    except (OSError, subprocess.TimeoutExpired) as error:
        return judge(f"{program} does not answer ({type(error).__name__})", cure)
    said = (done.stdout + done.stderr).strip().partition("\n")[0][:80]
    if "Open MPI" not in said:
        return judge(f"{program} is not Open MPI's, but says {said!r}", cure)
    if importlib.util.find_spec("mpi4py") is None:
        return judge(f"{said}, but no mpi4py", cure)
    return Finding.ok(f"Open MPI {said.split()[-1]}, mpi4py {_version('mpi4py') or ''}".strip())


def _tried(library: str, found: str, shown: str) -> Finding:
    tried = TRIED_VERSIONS[library]
    if not f"{found}.".startswith(f"{tried}."):
        return Finding.warning(f"{shown}, but distrain was tried with {tried}", f"pip install '{library}=={tried}.*'")
    return Finding.ok(shown)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
