"""The barrier of pods: threads stand for pods, over real sockets on this machine.

That pod 0 still waits shows in a connection that it accepts and closes: a barrier that is over accepts none.
"""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress

import pytest
from free_ports import free_port
from waiting import BOUND, wait_until

from distrain.errors import RankError, StopRequested
from distrain.launchers import pod_barrier, pod_barrier_server
from distrain.launchers.pod_barrier import PodBarrier
from distrain.launchers.pod_barrier_server import IndexedPod

SHORT = 0.2  # seconds; each pod makes one attempt at least


def await_pods(pod: IndexedPod, *, seconds: float, is_stopped: Callable[[], bool]) -> None:
    """Come to the barrier, wait there, and leave."""
    with PodBarrier(pod, seconds=seconds) as barrier:
        barrier.await_pods(is_stopped)


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def pod(port: int) -> Iterator[Callable[..., Future[None]]]:
    """`pod(index, num_pods)` starts a pod, and returns the outcome of its barrier; the end of the test stops all."""
    pool = ThreadPoolExecutor(32)
    at_end = threading.Event()

    def start(
        index: int,
        num_pods: int,
        *,
        seconds: float = BOUND,
        host: str = "127.0.0.1",
        stop: threading.Event = at_end,
    ) -> Future[None]:
        indexed = IndexedPod(index, num_pods, host, port)
        return pool.submit(await_pods, indexed, seconds=seconds, is_stopped=stop.is_set)

    yield start
    at_end.set()
    pool.shutdown()


def connection(port: int) -> socket.socket:
    """Connect to pod 0, as soon as it listens."""
    until = time.monotonic() + BOUND
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=BOUND)
        except OSError:
            assert time.monotonic() < until
            time.sleep(0.01)


def greet(port: int, index: int, num_pods: int, *, host: str = "127.0.0.1") -> socket.socket:
    """Connect to pod 0, and send the greeting of a pod."""
    connected = connection(port)
    connected.sendall(IndexedPod(index, num_pods, host, port).greeting() + b", waiting\n")
    return connected


def line(connected: socket.socket) -> bytes:
    """Return the next line that pod 0 sends."""
    received = b""
    while not received.endswith(b"\n") and (more := connected.recv(1)):
        received += more
    return received


def assert_pod_0_waits(port: int) -> None:
    """Pod 0 serves a new connection, after it has handled all that was sent before."""
    for _ in range(2):
        with closing(connection(port)) as stranger:
            stranger.sendall(b"\n")
            assert stranger.recv(1) == b""


def test_all_wait_for_the_last(pod, port):
    host = pod(0, 4)
    with closing(greet(port, 3, 4)) as third, closing(greet(port, 1, 4)) as first:
        assert_pod_0_waits(port)
        assert not host.done()
        last = pod(2, 4)
        assert [waiting.result(BOUND) for waiting in (host, last)] == [None] * 2
        assert [line(early) for early in (third, first)] == [b"here\n"] * 2
        started = {line(early) for early in (third, first)}
        assert len(started) == 1
        assert started.pop().startswith(b"all are there: ")


def test_many_pods(pod):
    assert {waiting.result(BOUND) for waiting in [pod(index, 24) for index in reversed(range(24))]} == {None}


def test_missing_pods_are_named_to_all(pod):
    waiting = [pod(index, 5, seconds=2) for index in (0, 1, 3)]
    for one in waiting:
        with pytest.raises(RankError, match=r"Pods 2, 4 of 5 did not connect within 2 s. .*job-completion-index=2"):
            one.result(BOUND)


def test_a_missing_pod_0_is_named(pod, port):
    with pytest.raises(
        RankError, match=rf"Pod 0 of 2 did not connect within 0.2 s \(127.0.0.1:{port}: .*Connect call failed.*\)"
    ):
        pod(1, 2, seconds=SHORT).result(BOUND)
    with pytest.raises(RankError, match=r"Pod 0 of 2 did not connect within 0.2 s \(nowhere.invalid:"):
        pod(1, 2, seconds=SHORT, host="nowhere.invalid").result(BOUND)


def test_pod_0_has_another_address_than_its_name(pod):
    """No machine has an address of 192.0.2.0/24 (RFC 5737); it stands for the address of a former pod 0."""
    with pytest.raises(RankError, match=r"Pod 0 cannot listen at 192.0.2.1:\d+: .* tried for 0.2 s"):
        pod(0, 2, seconds=SHORT, host="192.0.2.1").result(BOUND)


def test_a_pod_that_leaves_is_missing_again_until_another_comes(pod, port):
    host = pod(0, 3)
    with closing(greet(port, 1, 3)):
        assert_pod_0_waits(port)
    with closing(greet(port, 2, 3)) as last:
        assert_pod_0_waits(port)
        assert not host.done()
        assert [waiting.result(BOUND) for waiting in (host, pod(1, 3))] == [None] * 2
        assert line(last) == b"here\n"
        assert line(last).startswith(b"all are there: ")


def test_of_two_that_are_one_pod_the_newer_counts(pod, port):
    """The network may have hidden the end of the older connection."""
    host = pod(0, 3)
    with closing(greet(port, 1, 3)) as older:
        assert line(older) == b"here\n"
        newer = pod(1, 3)
        assert line(older) == b""  # pod 0 closed it
    assert [waiting.result(BOUND) for waiting in (host, newer, pod(2, 3))] == [None] * 3


def test_pods_of_another_job_do_not_count(pod, port):
    """The address of this pod 0 may have belonged to the pod 0 of their job before."""
    host = pod(0, 2)
    with closing(greet(port, 1, 2, host="localhost")) as other:
        assert other.recv(1) == b""
    assert_pod_0_waits(port)
    assert not host.done()
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
def test_a_stop_ends_the_barrier_at_once(pod, index):
    stop = threading.Event()
    waiting = pod(index, 2, host="nowhere.invalid", stop=stop)
    stop.set()
    began = time.monotonic()
    with pytest.raises(StopRequested):
        waiting.result(BOUND)
    assert time.monotonic() - began < 5


@pytest.fixture
def run(port: int) -> Iterator[list[PodBarrier]]:
    """Three pods that have all waited, so that their ranks run."""
    barriers = [PodBarrier(IndexedPod(index, 3, "127.0.0.1", port), seconds=BOUND) for index in range(3)]
    for barrier in barriers:
        barrier.__enter__()
    await_all(barriers)
    yield barriers
    for barrier in barriers:
        barrier.__exit__()


def await_all(barriers: Sequence[PodBarrier]) -> None:
    with ThreadPoolExecutor(len(barriers)) as pool:
        for waiting in [pool.submit(barrier.await_pods, lambda: False) for barrier in barriers]:
            waiting.result(BOUND)


@pytest.mark.parametrize("index", [0, 2])
def test_a_pod_whose_ranks_failed_ends_the_run_in_all_pods_which_keep_their_place(run, index):
    assert not any(barrier.is_over for barrier in run)
    run[index].say_over()
    wait_until(lambda: all(barrier.is_over for barrier in run))
    await_all(run)
    assert not any(barrier.is_over for barrier in run)


@pytest.mark.parametrize("index", [0, 2])
def test_a_pod_that_comes_back_ends_the_run(run, index, port, monkeypatch):
    """Its entry could not say so: the new pod of an index replaces a pod whose node was lost."""
    monkeypatch.setattr(pod_barrier, "RECONNECT_SECONDS", 0.1)
    run.pop(index).__exit__()
    if index:
        time.sleep(0.5)  # a lost connection alone ends no run; the ranks know whether a rank was lost
        assert not any(barrier.is_over for barrier in run)
    with PodBarrier(IndexedPod(index, 3, "127.0.0.1", port), seconds=BOUND) as new, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(new.await_pods, lambda: False)
        wait_until(lambda: all(barrier.is_over for barrier in run))
        await_all(run)
        waiting.result(BOUND)


def test_a_broken_connection_ends_no_run(run, monkeypatch):
    monkeypatch.setattr(pod_barrier, "RECONNECT_SECONDS", 0.1)
    assert run[0]._server
    before = [barrier._writer for barrier in run]
    for writer in list(run[0]._server._running.values()):  # as a firewall does that forgets its connections
        run[0]._loop.call_soon_threadsafe(writer.transport.abort)
    # Each pod knows its new connection; pod 0 may know it earlier.
    wait_until(lambda: all(own._writer not in (None, old) for own, old in zip(run, before, strict=True)))
    assert not any(barrier.is_over for barrier in run)
    run[1].say_over()
    wait_until(lambda: all(barrier.is_over for barrier in run))


def test_pods_that_come_late_one_after_another_push_nobody_out(pod):
    """The limit is 3 s; the last pod comes 3.6 s after the first."""
    waiting = []
    for index in (1, 0, 3, 2):
        waiting.append(pod(index, 4, seconds=3))
        time.sleep(1.2)
    assert [each.result(BOUND) for each in waiting] == [None] * 4


@pytest.fixture
def dropped_connections() -> Iterator[None]:
    """Let asyncio drop what it accepts at the end of a barrier, and collect that here, not in a later test."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "unclosed", ResourceWarning)
        yield
        gc.collect(1)  # young objects; all objects of TensorFlow take half a second


RUBBISH = [
    b"",
    b"\n",
    b"GET / HTTP/1.1\r\n\r\n",
    bytes(300_000),
    b"x" * 100_000 + b"\n",
    b"distrain pod 1 of 2 at elsewhere:1, waiting\n",
    b"distrain pod 1 of 2 at 127.0.0.1:%d, running 0123456789abcdef\n",
    b"over\n",
    b"distrain pod 2 of 2 at 127.0.0.1:%d, waiting\n",
    b"distrain pod 1 of 3 at 127.0.0.1:%d, waiting\n",
    b"distrain pod 1 of 2 at 127.0.0.1:%d, sleeping\n",
    b"distrain pod 1 of 2 at 127.0.0.1:%d",
]


@pytest.mark.usefixtures("dropped_connections")
def test_strangers_do_no_harm(pod, port, caplog):
    host = pod(0, 2)
    strangers = [connection(port) for _ in range(300)]
    for number, stranger in enumerate(strangers):
        with suppress(OSError):  # pod 0 has closed it
            stranger.sendall(RUBBISH[number % len(RUBBISH)].replace(b"%d", str(port).encode()))
    assert not host.done()
    # Pod 0 closes their connections, and then has room again.
    other = pod(1, 2)
    assert [waiting.result(BOUND) for waiting in (host, other)] == [None] * 2
    for stranger in strangers:
        stranger.close()
    assert caplog.messages == []


@pytest.mark.usefixtures("dropped_connections")
@pytest.mark.parametrize("turns", range(6))
def test_connections_that_come_while_pod_0_leaves_do_not_hold_it(port, monkeypatch, caplog, turns):
    """They come to its loop `turns` turns before it leaves; one greets as a pod that waits."""
    monkeypatch.setattr(pod_barrier_server, "CONNECT_SECONDS", 10 * BOUND)
    barrier, blocked, may_go_on = (
        PodBarrier(IndexedPod(0, 2, "127.0.0.1", port), seconds=BOUND),
        threading.Event(),
        threading.Event(),
    )

    def block() -> None:
        blocked.set()
        may_go_on.wait(BOUND)

    async def leave() -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        await barrier._leave()

    with barrier, ExitStack() as peers:
        barrier._submit(barrier._server.listen()).result(BOUND)
        barrier._loop.call_soon_threadsafe(block)
        assert blocked.wait(BOUND)
        for connected in [greet(port, 1, 2), *(connection(port) for _ in range(20))]:
            peers.enter_context(connected)
        leaving = barrier._submit(leave())
        may_go_on.set()
        leaving.result(BOUND)
    assert caplog.messages == []


def answering(answer: bytes) -> tuple[int, threading.Thread]:
    """Start a server that gives every client the same answer; return its port and its thread."""
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
    "answer",
    [
        b"HTTP/1.0 400 Bad Request\r\n\r\n",
        b"",
        b"here\nmissing: 1 x\n",
        b"here\nmissing:\n",
        b"here\n" + b"y" * 200_000,
    ],
)
def test_another_program_that_answers_is_not_pod_0(answer):
    port, thread = answering(answer)
    with pytest.raises(RankError, match=r"Pod 0 of 2 did not connect within 0.2 s"):
        await_pods(IndexedPod(1, 2, "127.0.0.1", port), seconds=SHORT, is_stopped=lambda: False)
    with closing(connection(port)) as last:
        last.sendall(b"end")
    thread.join(BOUND)
