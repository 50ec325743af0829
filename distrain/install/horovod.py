"""Builds Horovod for the TensorFlow of the running environment, installs it there, and tries it.

Decides: the order of the steps, and when a build is already there. Never: installs TensorFlow.

    install_horovod("gpu")

The wheel stays in a cache, so that another environment needs no compiler, and no second trial of Gloo. After
the trial, `horovod-installed` in the environment names the wheel.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from distrain.errors import ConfigurationError
from distrain.install.compilers import find_compilers
from distrain.install.environment import (
    TensorFlow,
    check_driver,
    check_environment,
    find_cuda_libraries,
    find_tensorflow,
    has_gpu,
)
from distrain.install.horovod_build import VERSION, compile_wheel, fetch, wheel_name
from distrain.install.linkage import check_linkage
from distrain.install.progress import ended_by_signals, run_step, show_tail

KINDS = ("cpu", "gpu")
TRIAL_SECONDS = 300
_INSTALLED = Path(sys.prefix) / "horovod-installed"


def install_horovod(kind: str | None = None) -> None:
    """Build and install Horovod, unless exactly this build is there.

    Args:
        kind: "cpu" for Gloo and MPI, "gpu" for NCCL as well. Default: the kind that is installed; else "gpu" if there
            are a GPU and TensorFlow's build for GPUs.

    Raises:
        ConfigurationError: something is missing, or a step failed.
    """
    check_environment()
    tensorflow = find_tensorflow()
    kind = kind or _default_kind(tensorflow)
    cuda = find_cuda_libraries(tensorflow) if kind == "gpu" else None
    if cuda is not None and (said := check_driver(tensorflow)):
        print(said)
    cache = _cache_folder()
    with ended_by_signals(), _work_folder(cache) as (work, log):
        _install_requirements(log)
        wheel = wheel_name(kind, tensorflow, cuda)
        if _is_installed(wheel):
            command = Path(sys.prefix) / "bin" / "horovodrun"
            print(f"Horovod {VERSION} is in {sys.prefix} already ({wheel}). To try it: {command} --check-build")
            return
        if list(cache.glob(f"{wheel}/horovod-*.whl")):
            print(f"3/5  Using the cached wheel: {cache / wheel}")
        else:
            compilers = find_compilers(os.environ)
            fetch(work, log)
            built = compile_wheel(work, log, compilers, cuda)
            if cuda is not None:
                print("    ", check_linkage(next(built.glob("horovod-*.whl")), cuda, log))
            shutil.rmtree(cache / wheel, ignore_errors=True)
            built.replace(cache / wheel)  # a rename, so that a wheel in the cache is complete
        _install(cache / wheel, log)
        tried = cache / wheel / "tried"
        _try(cache / wheel, log, with_nccl=cuda is not None, with_gloo=not tried.exists())
        tried.touch()
    _INSTALLED.write_text(f"{wheel}\n", encoding="utf-8")
    print(f"Horovod {VERSION} is in {sys.prefix} ({wheel}).")


def _default_kind(tensorflow: TensorFlow) -> str:
    with contextlib.suppress(OSError):
        installed = _INSTALLED.read_text(encoding="utf-8").partition("-")[0]
        if installed in KINDS:
            return installed
    return "gpu" if tensorflow.cuda and has_gpu() else "cpu"


def _is_installed(wheel: str) -> bool:
    with contextlib.suppress(OSError, PackageNotFoundError):
        return _INSTALLED.read_text(encoding="utf-8").strip() == wheel and version("horovod") == VERSION
    return False


def _cache_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or (f"{os.environ['HOME']}/.cache" if os.environ.get("HOME") else "")
    if not home:
        raise ConfigurationError("there is no folder for the wheel: set XDG_CACHE_HOME or HOME")
    cache = Path(home) / "distrain" / "horovod"
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"{cache} cannot be made ({error.strerror}). Set XDG_CACHE_HOME.") from None
    if not os.access(cache, os.W_OK):
        raise ConfigurationError(f"cannot write the wheel to {cache}. To keep it elsewhere, set XDG_CACHE_HOME.")
    return cache


@contextlib.contextmanager
def _work_folder(cache: Path) -> Iterator[tuple[Path, Path]]:
    """Yield an empty folder and a log, which no other build uses at the same time."""
    work, log = cache / "building", cache / "build.log"
    with (cache / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Waiting for another build of Horovod to end ...", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        log.write_bytes(b"")
        try:
            yield work, log
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _install_requirements(log: Path) -> None:
    """Install the packages that Horovod and its build need; pip leaves installed packages alone."""
    command = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "distrain[horovod]"]
    if run_step("1/5  Checking the packages that Horovod needs", command, log=log):
        show_tail(log)
        raise ConfigurationError("pip could not install what Horovod needs, see above. Run this again.")


def _install(folder: Path, log: Path) -> None:
    _INSTALLED.unlink(missing_ok=True)
    (wheel,) = folder.glob("horovod-*.whl")
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--force-reinstall", str(wheel)]
    if run_step(f"4/5  Installing it in {sys.prefix}", command, log=log):
        show_tail(log)
        raise ConfigurationError(f"pip could not install the wheel, see above. To build it anew: rm -r {folder}")


def _try(folder: Path, log: Path, *, with_nccl: bool, with_gloo: bool) -> None:
    """Try the installed build, and remove it if it does not work."""
    libraries = ["Gloo", "MPI", *(["NCCL"] if with_nccl else [])]
    commands = _trials(libraries, with_gloo=with_gloo, on_gpu=with_nccl and has_gpu())
    environ = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "HOROVOD_GLOO_IFACE": "lo"}
    environ["PATH"] = f"{Path(sys.prefix) / 'bin'}{os.pathsep}{environ.get('PATH', os.defpath)}"
    if os.geteuid() == 0:
        environ |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    if any(run_step(f"5/5  Trying it: {title}", words, log=log, environ=environ) for title, words in commands.items()):
        show_tail(log)
        subprocess.run([sys.executable, "-m", "pip", "uninstall", "--quiet", "--yes", "horovod"], check=False)
        raise ConfigurationError(
            f"Horovod was built, but does not work here, and was removed again. The log {log} says why. To build it "
            f"anew: rm -r {folder}, and run this again."
        )
    if with_nccl and not has_gpu():
        print("     There is no GPU here, so no sum was tried on one.")


def _trials(libraries: Sequence[str], *, with_gloo: bool, on_gpu: bool) -> dict[str, Sequence[str]]:
    """Return commands by what they try. Each has a time limit, no shell, and listens on the loopback device alone."""
    trial = [sys.executable, "-m", "distrain.install.trial"]
    on_two = [*trial, "2", *libraries]
    mpirun = ["mpirun", "--mca", "plm", "isolated", "--oversubscribe", "--bind-to", "none", "-n"]
    commands: dict[str, Sequence[str]] = {"a sum over two processes by MPI": [*mpirun, "2", *on_two]}
    if with_gloo:
        # Without an interface, Gloo crashes where the name of this machine does not resolve, as in builds of images.
        horovodrun = ["horovodrun", "--gloo", "-np", "2", "-H", "localhost:2"]
        commands["a sum over two processes by Gloo"] = [*horovodrun, *on_two]
    if on_gpu:
        commands["a sum on one GPU by NCCL"] = [*mpirun, "1", *trial, "1", "NCCL", "gpu"]
    limit = ["timeout", "--foreground", str(TRIAL_SECONDS)]
    return {title: [*limit, *words] for title, words in commands.items()}
