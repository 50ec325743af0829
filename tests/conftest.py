"""What holds for all tests."""

import gc
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from long_turns import take_long_turns
from preloaded import share_server
from web_server import WebServer, web_server

from distrain.remote import cache, storage

# Processes that tests start inherit ignored signals: SIGHUP from nohup, SIGINT from a shell's background job.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

# Time is measured by the benchmarks, and a busy machine is no failure.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_configure(config: pytest.Config) -> None:
    """Let the test processes of `launch/test.sh` share one server of imports, and take long turns on processors."""
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        take_long_turns()
        share_server()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Import the tests without garbage collection, and exempt what they imported from later collections.

    Keras collects garbage in `clear_session`. A collection walks the objects of TensorFlow for half a second.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)  # a traced graph makes many objects and little garbage: 5% of the time
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_unconfigure() -> None:
    """Collect garbage here; pytest would do so five times, and Python at its end, through all objects of TensorFlow."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(tryfirst=True)  # before the fixtures, which may build models too
def pytest_runtest_setup() -> None:
    """Let models of a test begin with the same weights each time: sums that cancel have few exact digits."""
    if keras := sys.modules.get("keras"):
        keras.utils.set_random_seed(0)


@pytest.fixture
def cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache for one test, and short waits before a request is tried again."""
    monkeypatch.setenv("DISTRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("DISTRAIN_CACHE_GIB", raising=False)
    monkeypatch.setattr(storage, "_FIRST_WAIT", 0.01)
    cache.find_cache.cache_clear()
    yield tmp_path / "cache"
    cache.find_cache.cache_clear()


@pytest.fixture
def server() -> Iterator[WebServer]:
    """A web server of one test."""
    with web_server() as started:
        yield started


MOSTLY_WAIT = ("tests/deploy/", "tests/faults/")
# The tests of these files read the same launches (tests/multiprocess/conftest.py).
SHARE_LAUNCHES = {"test_distribution_contract.py", "test_exactness_of_ranks.py", "test_resume_of_ranks.py"}


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the tests of a file, and of files that share launches, in one of the processes of `launch/test.sh`.

    The first process begins with tests that mostly wait. Three processes that compute on two cores take a tenth more
    processor time than two. Files of short tests come last, so that all processes end at nearly the same time.
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.split("::", 1)[0]
            return "launches" if Path(file).name in SHARE_LAUNCHES else file

        def _assign_work_unit(self, node: Any) -> None:
            is_first = node.gateway.id == "gw0"

            def rank(scope: str) -> tuple[bool, bool]:
                return scope.startswith(MOSTLY_WAIT) != is_first, scope.startswith("tests/unit/")

            if self.workqueue:
                self.workqueue.move_to_end(min(self.workqueue, key=rank), last=False)
            super()._assign_work_unit(node)

    return ByFile(config, log)
