"""Checks what a compiled Horovod links: TensorFlow's CUDA runtime and NCCL, each once.

Decides: which libraries a build for GPUs must name. Never: loads the library.

    check_linkage(wheel, find_cuda_libraries(tensorflow), log)

A second CUDA runtime inside the library would need a newer driver than TensorFlow's, and keep its own state.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import zipfile
from pathlib import Path

from distrain.cluster.other_program import answer_of
from distrain.errors import ConfigurationError
from distrain.install.environment import CudaLibraries

SECONDS = 60.0


def check_linkage(wheel: Path, cuda: CudaLibraries, log: Path) -> str:
    """Return a sentence about the libraries that the wheel's library names, and write them into the log.

    Raises:
        ConfigurationError: a library is missing, is another one, or is linked statically.
    """
    if shutil.which("readelf") is None:
        raise ConfigurationError("readelf is missing, which shows what is linked. Install the package binutils.")
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(wheel) as archive:
        (member,) = (name for name in archive.namelist() if re.search(r"horovod/tensorflow/mpi_lib[^/]*\.so$", name))
        library = archive.extract(member, folder)
        dynamic = answer_of(["readelf", "-W", "--dynamic", library], seconds=SECONDS).stdout
        symbols = answer_of(["readelf", "-W", "--syms", library], seconds=SECONDS).stdout
    with log.open("a", encoding="utf-8") as file:
        file.write(f"\n$ readelf --dynamic {member}\n{dynamic}\n")
    needed = re.findall(r"\(NEEDED\).*\[(.+)\]", dynamic)
    faults = linkage_faults(needed, symbols, cuda.runtime.name)
    if faults:
        raise ConfigurationError(
            f"the compiled Horovod {'; '.join(faults)}. Training on GPUs would fail. The log {log} has the whole list; "
            "report this as a defect of distrain."
        )
    return f"It links {', '.join(sorted(name for name in needed if 'cuda' in name or 'nccl' in name))}."


def linkage_faults(needed: list[str], symbols: str, runtime: str) -> list[str]:
    """Return the faults of a library, as ends of sentences.

    Args:
        needed: the libraries that it names.
        symbols: its table of symbols, as readelf prints it.
        runtime: file name of TensorFlow's CUDA runtime.
    """
    faults = [f"does not name {name}" for name in (runtime, "libnccl.so.2") if name not in needed]
    faults += [f"names {name} beside {runtime}" for name in needed if "libcudart" in name and name != runtime]
    defined = [line.split() for line in symbols.splitlines() if re.search(r"\b(FUNC|OBJECT)\b", line)]
    for prefix, title in (("cuda", "CUDA runtime"), ("nccl", "NCCL")):
        own = [word[-1] for word in defined if word[-2] != "UND" and re.match(rf"{prefix}[A-Z]", word[-1])]
        faults += [f"holds the {title} itself ({own[0]})"] if own else []
    return faults
