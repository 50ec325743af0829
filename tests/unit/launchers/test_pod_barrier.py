"""Pods wait for each other: threads stand for pods, over real sockets on this machine."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress

import pytest

from distrain.errors import RankError, StopRequested
from distrain.launchers.pod_barrier import IndexedPod, await_pods

BOUND = 60  # seconds in which anything here ends


@pytest.fixture
def port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        return taken.getsockname()[1]


@pytest.fixture
def pod(port: int) -> Iterator[Callable[..., Future[None]]]:
    """`pod(index, of)` starts one: what becomes of its meeting; `pod.stop` is set to end all in the end."""
    pool = ThreadPoolExecutor(32)
    at_end = threading.Event()

    def start(index: int, of: int, *, seconds: float = BOUND, host: str = "127.0.0.1", stop: object = None) -> Future:
        asked = stop or at_end
        return pool.submit(
            await_pods, IndexedPod(index, of, host, port), seconds=seconds, is_stopped=lambda: asked.is_set()
        )

    yield start
    at_end.set()
    pool.shutdown()


def connection(port: int) -> socket.socket:
    """One to pod 0, as soon as it listens."""
    until = time.monotonic() + BOUND
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=BOUND)
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.01)


def test_all_wait_for_the_last(pod):
    early = [pod(index, 4) for index in (3, 1)]
    host = pod(0, 4)
    time.sleep(0.5)  # nothing happens in it
    assert not any(waiting.done() for waiting in (*early, host))
    last = pod(2, 4)
    assert [waiting.result(BOUND) for waiting in (*early, host, last)] == [None] * 4


def test_many_pods(pod):
    assert {waiting.result(BOUND) for waiting in [pod(index, 24) for index in reversed(range(24))]} == {None}


def test_who_does_not_come_is_named_to_all(pod):
    waiting = [pod(index, 5, seconds=4) for index in (0, 1, 3)]
    for one in waiting:
        with pytest.raises(RankError, match=r"Pods 2, 4 of 5 did not connect within 4 s. .*job-completion-index=2"):
            one.result(BOUND)


def test_pod_0_does_not_come(pod, port):
    with pytest.raises(
        RankError, match=rf"Pod 0 of 2 did not connect within 1 s \(127.0.0.1:{port}: .*Connect call failed.*\)"
    ):
        pod(1, 2, seconds=1).result(BOUND)
    with pytest.raises(RankError, match=r"Pod 0 of 2 did not connect within 1 s \(nowhere.invalid:"):
        pod(1, 2, seconds=1, host="nowhere.invalid").result(BOUND)


def test_pod_0_has_another_address_than_its_name(pod):
    """192.0.2.0/24 is nobody's (RFC 5737), as the address of the pod before it."""
    with pytest.raises(RankError, match=r"Pod 0 cannot listen at 192.0.2.1:\d+: .* tried for 1 s"):
        pod(0, 2, seconds=1, host="192.0.2.1").result(BOUND)


def test_a_pod_that_leaves_is_missing_again_until_another_comes(pod, port):
    leaves = threading.Event()
    host, first = pod(0, 3), pod(1, 3, stop=leaves)
    leaves.set()
    with pytest.raises(StopRequested):
        first.result(BOUND)
    last = pod(2, 3)
    time.sleep(0.5)  # nothing happens in it
    assert not host.done()
    assert not last.done()
    second = pod(1, 3)
    assert [waiting.result(BOUND) for waiting in (host, last, second)] == [None] * 3


def test_of_two_that_are_one_pod_the_newer_counts(pod, port):
    """As where the network hid the end of the older one."""
    host = pod(0, 3)
    with closing(connection(port)) as older:
        older.sendall(f"distrain pod 1 of 3 at 127.0.0.1:{port}\n".encode())
        newer = pod(1, 3)
        assert older.recv(1) == b""  # it was cut off
    assert [waiting.result(BOUND) for waiting in (host, newer, pod(2, 3))] == [None] * 3


def test_pods_of_another_job_do_not_count(pod):
    """They may know the address of this pod 0 as that of theirs, which is gone."""
    host, other = pod(0, 2), pod(1, 2, host="localhost")
    time.sleep(0.5)  # nothing happens in it
    assert not host.done()
    assert not other.done()
    assert [waiting.result(BOUND) for waiting in (host, pod(1, 2))] == [None] * 2


def test_pod_0_may_leave_and_come_again(pod):
    leaves = threading.Event()
    host = pod(0, 3, stop=leaves)
    other = pod(1, 3)
    leaves.set()
    with pytest.raises(StopRequested, match="nothing was trained"):
        host.result(BOUND)
    assert not other.done()
    assert [waiting.result(BOUND) for waiting in (pod(0, 3), pod(2, 3), other)] == [None] * 3


@pytest.mark.parametrize("index", [0, 1])
def test_a_stop_is_heard_at_once(pod, index):
    stop = threading.Event()
    waiting = pod(index, 2, host="nowhere.invalid", stop=stop)
    stop.set()
    began = time.monotonic()
    with pytest.raises(StopRequested):
        waiting.result(BOUND)
    assert time.monotonic() - began < 5


RUBBISH = [
    b"",
    b"\n",
    b"GET / HTTP/1.1\r\n\r\n",
    bytes(300_000),
    b"x" * 100_000 + b"\n",
    b"distrain pod 1 of 2 at elsewhere:1\n",
    b"distrain pod 2 of 2 at 127.0.0.1:%d\n",
    b"distrain pod 0 of 2 at 127.0.0.1:%d\n",
    b"distrain pod 1 of 3 at 127.0.0.1:%d\n",
    b"distrain pod 1 of 2 at 127.0.0.1:%d",
]


def test_strangers_do_no_harm(pod, port, caplog):
    host = pod(0, 2)
    strangers = [connection(port) for _ in range(300)]
    for number, stranger in enumerate(strangers):
        with suppress(OSError):  # it was cut off
            stranger.sendall(RUBBISH[number % len(RUBBISH)].replace(b"%d", str(port).encode()))
    assert not host.done()
    # They are cut off, or are not there any longer; then there is room again.
    other = pod(1, 2)
    assert [waiting.result(BOUND) for waiting in (host, other)] == [None] * 2
    for stranger in strangers:
        stranger.close()
    assert caplog.records == []


def answering(answer: bytes) -> tuple[int, threading.Thread]:
    """Something else at the port of pod 0."""
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with server, suppress(OSError):
            server.settimeout(BOUND)
            while True:
                there, _ = server.accept()
                with there:
                    if there.recv(1000).startswith(b"end"):
                        return
                    there.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return server.getsockname()[1], thread


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.0 400 Bad Request\r\n\r\n", b"", b"missing: 1 x\n", b"missing:\n", b"y" * 200_000]
)
def test_somebody_else_answers(answer):
    port, thread = answering(answer)
    with pytest.raises(RankError, match=r"Pod 0 of 2 did not connect within 1 s"):
        await_pods(IndexedPod(1, 2, "127.0.0.1", port), seconds=1, is_stopped=lambda: False)
    with closing(connection(port)) as last:
        last.sendall(b"end")
    thread.join(BOUND)
