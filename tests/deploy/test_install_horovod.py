"""install_horovod.sh refuses wrong input, leaves nothing half-built behind, and does not build twice.

A whole build takes minutes; launch/test.sh makes it if there is no wheel yet, and these tests do not.
"""

from __future__ import annotations

import fcntl
import importlib.util
import io
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from launching import launcher_command, needs_horovod
from preloaded import preloaded_python

from distrain.install.environment import find_tensorflow
from distrain.install.horovod_build import wheel_name

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = Path("launch/install_horovod.sh")
NOBODY_LISTENS = "http://127.0.0.1:9/index"
PAGE = b'<!DOCTYPE html><html><body><a href="horovod-0.28.1.tar.gz">horovod-0.28.1.tar.gz</a></body></html>'


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with only the scripts and the package."""
    path = tmp_path / "check out"
    for name in ("launch", "distrain"):
        shutil.copytree(REPOSITORY / name, path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "pyproject.toml", path)
    return path


@pytest.fixture
def installed(checkout: Path) -> Path:
    """The checkout, with its own .venv that sees the packages of this environment."""
    environment = checkout / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (packages,) = environment.glob("lib/python3.*/site-packages")
    (packages / "here.pth").write_text(sysconfig.get_path("purelib") + "\n")
    with (checkout / "pyproject.toml").open() as project:
        stamp = subprocess.run(["cksum"], stdin=project, capture_output=True, text=True, check=True).stdout
    for extras in ("cpu", "cpu-horovod"):
        (environment / f"installed-{extras}").write_text(stamp)
    return checkout


def settings(checkout: Path, index: str = NOBODY_LISTENS, **others: str) -> dict[str, str]:
    """Return an environment with an empty cache and this package index; the program `true` serves as the compiler."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    pip = {"PIP_INDEX_URL": index, "PIP_CONFIG_FILE": os.devnull, "PIP_RETRIES": "0", "NO_PROXY": "127.0.0.1"}
    pip |= {"PYTHONDONTWRITEBYTECODE": "1"}
    places = {"HOME": str(checkout.parent / "home"), "XDG_CACHE_HOME": str(checkout.parent / "cache")}
    return {**kept, **pip, **places, "CXX": "true", "CC": "true", **others}


def run(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [str(folder / SCRIPT), *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120, check=False, env=env
    )


def everything_below(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def left_in_cache(checkout: Path) -> set[str]:
    return {path.name for path in (checkout.parent / "cache" / "distrain" / "horovod").iterdir()}


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[BaseHTTPRequestHandler], None]], str]]:
    """`serve(answer)` starts a package index that calls `answer(request)`, and returns its address."""
    servers = []

    def start(answer: Callable[[BaseHTTPRequestHandler], None]) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer(self)

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}/index"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_it_is_clean_by_shellcheck():
    shellcheck = Path(sys.executable).with_name("shellcheck")  # from the development extra
    subprocess.run([shellcheck, "-x", SCRIPT], cwd=REPOSITORY, check=True)


def test_help_prints_the_usage(checkout):
    before = everything_below(checkout.parent)
    done = run(checkout, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: launch/install_horovod.sh")
    assert everything_below(checkout.parent) == before


@pytest.mark.parametrize("arguments", [["--what"], ["cpu"], ["--cpu", "--gpu"], ["--cpu", "--gpus"]])
def test_unknown_arguments_are_refused_with_the_usage(arguments, checkout):
    before = everything_below(checkout.parent)
    done = run(checkout, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert "Usage: launch/install_horovod.sh" in done.stderr
    assert everything_below(checkout.parent) == before


def test_without_a_compiler_nothing_is_downloaded_or_written(checkout):
    bin_folder = checkout.parent / "bin"
    bin_folder.mkdir()
    for name in ("bash", "cat", "dirname", "env", "grep", "uname"):
        (bin_folder / name).symlink_to(shutil.which(name))
    (bin_folder / "python3").symlink_to(Path(sys.executable).resolve())
    before = everything_below(checkout.parent)
    done = run(
        checkout,
        "--cpu",
        env={"PATH": str(bin_folder), "HOME": str(checkout.parent / "home"), "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "no C++ compiler was found" in done.stderr
    assert "apt-get install g++" in done.stderr
    assert everything_below(checkout.parent) == before


def test_a_compiler_that_does_not_compile_is_refused_by_name(checkout):
    before = everything_below(checkout.parent)
    done = run(checkout, "--cpu", env=settings(checkout, CXX="false -v"))
    assert done.returncode == 2
    assert "tried: false -v" in done.stderr
    assert everything_below(checkout.parent) == before


def test_gpu_operations_are_not_built_for_a_tensorflow_without_them(installed):
    before = everything_below(installed.parent)
    done = run(installed, "--gpu", env=settings(installed))
    assert done.returncode == 2
    assert "rm -r .venv" in done.stderr
    assert everything_below(installed.parent) == before


def test_another_source_than_the_pinned_one_is_refused_unopened(installed, serve):
    opened = installed.parent / "opened"
    program = f"open({str(opened)!r}, 'w')\n".encode()
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, content in {"setup.py": program, "PKG-INFO": b"Name: horovod\nVersion: 0.28.1\n"}.items():
            member = tarfile.TarInfo(f"horovod-0.28.1/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    asked = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        asked.append(request.path)
        content = archive.getvalue() if request.path.endswith(".gz") else PAGE
        request.send_response(200)
        request.send_header("Content-Type", "application/gzip" if content is not PAGE else "text/html")
        request.send_header("Content-Length", str(len(content)))
        request.end_headers()
        request.wfile.write(content)

    done = run(installed, "--cpu", env=settings(installed, serve(answer)))
    assert done.returncode == 2
    assert "another horovod-0.28.1.tar.gz than the pinned archive" in done.stderr
    assert asked == ["/index/horovod/", "/index/horovod/horovod-0.28.1.tar.gz"]
    assert not opened.exists()
    assert left_in_cache(installed) == {"build.log", "lock"}
    assert not (installed / ".venv" / "horovod-installed").exists()


def test_without_a_way_to_the_index_it_says_so(installed):
    done = run(installed, "--cpu", env=settings(installed))
    assert done.returncode == 2
    assert "fetching failed" in done.stderr
    assert "PIP_INDEX_URL" in done.stderr
    assert left_in_cache(installed) == {"build.log", "lock"}


def test_a_second_one_waits_for_the_first(installed):
    cache = installed.parent / "cache" / "distrain" / "horovod"
    (cache / "building").mkdir(parents=True)
    (cache / "building" / "of the first").touch()
    command = [str(installed / SCRIPT), "--cpu"]
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=settings(installed))
        assert "Waiting for another" in second.stdout.readline()
        assert (cache / "building" / "of the first").exists()
    output, _ = second.communicate(timeout=120)
    assert second.returncode == 2  # nobody listens at its index
    assert output.startswith("1/5  Checking")
    assert left_in_cache(installed) == {"build.log", "lock"}


def test_stopped_in_the_middle_it_leaves_no_process_and_nothing_half_built(installed, serve):
    fetching, hung_up = threading.Event(), threading.Event()

    def answer(request: BaseHTTPRequestHandler) -> None:
        fetching.set()
        request.rfile.read(1)  # returns when pip has gone
        hung_up.set()

    command = [str(installed / SCRIPT), "--cpu"]
    patient = settings(
        installed, serve(answer), PIP_DEFAULT_TIMEOUT="600"
    )  # longer than the test, so that pip does not give up
    script = subprocess.Popen(command, stdout=subprocess.DEVNULL, env=patient)
    assert fetching.wait(60)
    script.send_signal(signal.SIGTERM)
    assert script.wait(60) == 128 + signal.SIGTERM
    assert hung_up.wait(60)
    assert left_in_cache(installed) == {"build.log", "lock"}


def test_a_second_call_does_not_build_again():
    installed = REPOSITORY / ".venv" / "horovod-installed"
    if not installed.exists() or installed.read_text().strip() != wheel_name("cpu", find_tensorflow(), None):
        pytest.skip("launch/install_horovod.sh has not been run here; it would take minutes")
    done = run(REPOSITORY)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"is in {REPOSITORY / '.venv'} already" in done.stdout
    assert "2/5" not in done.stdout


def test_the_wheel_does_not_name_the_environment_it_was_built_in():
    horovod = importlib.util.find_spec("horovod")
    if horovod is None:
        pytest.skip("Horovod is not installed; launch/install_horovod.sh installs it")
    libraries = list(Path(horovod.origin).parent.rglob("*.so"))
    assert libraries
    for library in libraries:
        dynamic = subprocess.run(["readelf", "-d", library], capture_output=True, text=True, check=True).stdout
        paths = [line.split("[")[1].rstrip("]") for line in dynamic.splitlines() if "PATH)" in line]
        assert paths
        assert all(folder.startswith("$ORIGIN/") for path in paths for folder in path.split(":"))


@needs_horovod
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a namespace another host name")
def test_gloo_works_where_the_name_of_the_machine_does_not_resolve():
    """Builds of images with the network of their host have such names."""
    launcher = [*launcher_command("horovodrun --gloo", 2), "-H", "localhost:2"]
    trial = [*preloaded_python(), "-m", "distrain.install.trial", "2", "Gloo"]
    renamed = ["unshare", "--uts", "sh", "-c", 'hostname nobody.invalid && exec "$@"', "sh"]
    environ = {**os.environ, "HOROVOD_GLOO_IFACE": "lo", "TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(
        [*renamed, *launcher, *trial], capture_output=True, text=True, timeout=120, check=False, env=environ
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("sums over 2 rank(s) on the CPU") == 2


@needs_horovod
def test_a_trial_names_what_a_build_lacks():
    build = (REPOSITORY / ".venv" / "horovod-installed").read_text()
    if not build.startswith("cpu-"):
        pytest.skip("this build holds NCCL")
    done = subprocess.run(
        [*preloaded_python(), "-m", "distrain.install.trial", "1", "MPI", "NCCL"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "Horovod was built without NCCL\n" in done.stderr
