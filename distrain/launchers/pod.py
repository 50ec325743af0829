"""The entry of each pod of an Indexed Job: waits for the other pods, starts its own ranks, and answers for them.

Decides: when the ranks start, what a signal means to them, the exit code and the last word. Never: trains, or finds out
which rank of the run was lost; the ranks do.

    $ python -m distrain.pod --data /data --run /runs/1        # the arguments of `distrain train`

Where it is in the job is told by JOB_COMPLETION_INDEX, DISTRAIN_NUM_PODS, DISTRAIN_RANKS_PER_POD (1),
DISTRAIN_RENDEZVOUS (host and port of pod 0) and DISTRAIN_RENDEZVOUS_SECONDS (60).

What happens                            What follows
the command is wrong                    2, before anything waits
this very run is finished already       0: the other pods may have completed, and Kubernetes never starts them again
a pod does not come                     5, and its name
SIGTERM, SIGINT, SIGUSR1                42 at once while pods are missing; else every rank hears it: all save, and 42
a second SIGINT                         the ranks are killed
a rank fails                            its siblings hear of it and leave; they are killed if they do not
a rank is killed                        the same, with 5
this process is killed                  its ranks are killed

As process number 1 of a container it has no default actions: a signal that comes in the tenth of a second before it
listens is lost, and it reaps whatever its ranks leave behind.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import json
import math
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from distrain.cluster.world import World, find_world
from distrain.errors import (
    CheckpointError,
    ConfigurationError,
    DataError,
    DistrainError,
    DivergenceError,
    RankError,
    StopRequested,
)
from distrain.training.actions import StopRequest, listen_for_stop

if TYPE_CHECKING:
    from distrain.config import TrainConfig

POLL_SECONDS = 0.1
# A rank that is lost is known to all others within a minute (distribution/heartbeat.py); then they leave.
ENDING_SECONDS = 75.0
# What a rank leaves with knowingly. It counts before what becomes of the others then.
_SAID = {kind.exit_code for kind in (ConfigurationError, DataError, CheckpointError, DivergenceError, StopRequested)}
LONGEST_LINE = 2**16  # bytes
_LAST_WORD = re.compile(rb"distrain: (error|stopped|interrupted)|distrain \w+: error")
_GO_ON = "Start again: training goes on from the last checkpoint."


def main(arguments: Sequence[str]) -> int:
    """Run this pod's part of `distrain train ARGUMENTS`.

    Returns:
        The exit code of `errors.py`: that of the ranks, 5 also where one of them was killed; 130 after a second SIGINT.
    """
    stop = listen_for_stop()  # before the slower imports
    try:
        return _run(arguments, os.environ, stop)
    except DistrainError as error:
        _say("stopped" if isinstance(error, StopRequested) else "error", str(error))
        return error.exit_code
    except KeyboardInterrupt:
        _say("interrupted", f"its ranks were killed. {_GO_ON}")
        return 130


def _run(arguments: Sequence[str], environ: Mapping[str, str], stop: StopRequest) -> int:
    from distrain.cli.main import train_arguments
    from distrain.cluster.rendezvous import rendezvous_seconds
    from distrain.launchers.pod_barrier import PodPlace, meet_pods

    config = train_arguments(arguments)
    world = find_world(environ)
    _check(config, world)
    if _is_finished(config):
        print(f"{config.run} is finished already. Ask for more --epochs, or train into another --run.")
        return 0
    if world.rendezvous and world.size > world.local_size:
        host, _, port = world.rendezvous.rpartition(":")
        place = PodPlace(world.rank // world.local_size, world.size // world.local_size, host, int(port))
        meet_pods(place, seconds=rendezvous_seconds(environ), is_stopped=lambda: stop.signal_name is not None)
    return _run_ranks(arguments, world, stop)


def _check(config: TrainConfig, world: World) -> None:
    """Refuse what would fail in each rank, later."""
    if world.launcher != "indexed job":
        raise ConfigurationError(
            "this is no pod of an Indexed Job: JOB_COMPLETION_INDEX and DISTRAIN_NUM_PODS are not set, or those of "
            "another launcher are. Render the job with launch/k8s.sh, or start 'distrain train' itself."
        )
    if world.size == 1:
        return
    if config.strategy not in ("auto", "horovod"):
        raise ConfigurationError(
            f"--strategy {config.strategy} cannot bring {world.size} ranks together in an Indexed Job: Horovod alone "
            "can without mpirun. Leave --strategy out; for MPI run an MPIJob, for the others a single rank."
        )
    if importlib.util.find_spec("horovod") is None:
        raise ConfigurationError(
            f"Horovod is not installed, without which the {world.size} ranks of an Indexed Job cannot come together. "
            "Build it into the image by launch/install_horovod.sh."
        )


def _is_finished(config: TrainConfig) -> bool:
    """Whether this very command has been trained to its end, so that the other pods may have completed for good."""
    from distrain.runs import directory as run_directory
    from distrain.runs.checkpoint import list_checkpoints, load_checkpoint

    try:
        summary = run_directory.read_summary(config.run)
        if summary is None:
            return False
        settings = json.loads((config.run / run_directory.CONFIG_NAME).read_text(encoding="utf-8"))
        before = asdict(run_directory.config_of(settings))
        if any(value not in (None, "auto", before[name]) for name, value in asdict(config).items()):
            return False  # None and "auto" came to something there
        newest = load_checkpoint(list_checkpoints(config.run / "checkpoints")[-1])
        if summary["global_steps"] != newest.state["global_step"]:
            return False
        return run_directory.is_finished(config, newest)
    except (CheckpointError, OSError, ValueError, LookupError, TypeError, AttributeError):
        return False  # not a run that has finished; the ranks say what it is


def _run_ranks(arguments: Sequence[str], world: World, stop: StopRequest) -> int:
    """Start the ranks, and wait for their end."""
    libc = ctypes.CDLL(None)

    def ask_for_signal() -> None:
        libc.prctl(1, int(signal.SIGKILL))  # PR_SET_PDEATHSIG: when this process is gone

    said, saying = os.pipe()
    first = world.rank - world.local_rank
    ranks: dict[int, subprocess.Popen[bytes]] = {}
    try:
        for local_rank in range(world.local_size):
            ranks[first + local_rank] = subprocess.Popen(
                [sys.executable, "-m", "distrain", "train", *arguments],
                env={**os.environ, "DISTRAIN_LOCAL_RANK": str(local_rank)},
                stdin=subprocess.DEVNULL,
                stderr=saying,
                preexec_fn=ask_for_signal,
                process_group=0,  # so that Ctrl-C reaches this process alone, which passes it on
            )
        os.close(saying)
        words = _Words(said)
        ended = _wait(ranks, stop)
    finally:
        for process in ranks.values():
            process.kill()
            process.wait()
    words.end()
    return _conclude(ranks, ended, has_last_word=words.has_last_word)


class _Words:
    """Passes on what the ranks write to standard error, and hears whether one of them has said what happened."""

    def __init__(self, said: int) -> None:
        self.has_last_word = False
        self._thread = threading.Thread(target=self._pass_on, args=(said,), daemon=True)
        self._thread.start()

    def end(self) -> None:
        """Wait for the end of the stream: all who could write to it are gone."""
        self._thread.join(5.0)

    def _pass_on(self, said: int) -> None:
        with open(said, "rb") as stream:
            while line := stream.readline(LONGEST_LINE):
                self.has_last_word = self.has_last_word or bool(_LAST_WORD.match(line))
                with contextlib.suppress(OSError):  # nobody reads any more
                    sys.stderr.buffer.write(line)
                    sys.stderr.buffer.flush()


def _wait(ranks: Mapping[int, subprocess.Popen[bytes]], stop: StopRequest) -> dict[int, int]:
    """The exit codes of the ranks, without those that outstay another's failure."""
    ended: dict[int, int] = {}
    told: set[int] = set()
    deadline = math.inf
    while len(ended) < len(ranks) and time.monotonic() < deadline:
        for rank, process in ranks.items():
            if rank not in ended and process.poll() is not None:
                ended[rank] = process.returncode
                if process.returncode != 0:
                    deadline = min(deadline, time.monotonic() + ENDING_SECONDS)
            elif stop.signal_name and rank not in told and _listens(process.pid):
                process.send_signal(signal.Signals[stop.signal_name])
                told.add(rank)
        _reap_others({process.pid for process in ranks.values()})
        time.sleep(POLL_SECONDS)
    return ended


def _listens(pid: int) -> bool:
    """Whether a rank has come as far as to take a signal for a request, and not to be ended by it."""
    with contextlib.suppress(OSError):
        caught = re.search(r"^SigCgt:\s*([0-9a-f]+)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        return caught is not None and bool(int(caught[1], 16) >> (signal.SIGUSR1 - 1) & 1)
    return False


def _reap_others(ranks: Collection[int]) -> None:
    """Take note of the end of what the ranks have left behind; that is the duty of process number 1."""
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and ended.si_pid not in ranks:
            os.waitpid(ended.si_pid, 0)


def _conclude(ranks: Collection[int], ended: Mapping[int, int], *, has_last_word: bool) -> int:
    """The exit code of the pod, after a last word where the ranks have not said it."""
    for rank in sorted(set(ranks) - set(ended)):
        _say("warning", f"rank {rank} was killed, as it was still there {ENDING_SECONDS:g} s after another had left.")
    codes = {code for code in ended.values() if code > 0}
    killed = [(rank, -code) for rank, code in ended.items() if code < 0]
    if killed and not codes & _SAID:
        rank, number = killed[0]
        memory = (
            "Perhaps it ran out of memory, which 'kubectl describe pod' knows: then give the pod more, or each step "
            "less by --accumulation-steps. "
        )
        hint = memory if number == signal.SIGKILL else ""
        _say("error", f"rank {rank} was killed by signal {number} ({signal.strsignal(number)}). {hint}{_GO_ON}")
        return RankError.exit_code
    code = min(codes & _SAID or codes, default=0)
    if code == StopRequested.exit_code and not has_last_word:
        _say("stopped", "all ranks were asked to by one in another pod, whose log says more. Start again to go on.")
    elif code and not has_last_word:
        _say("error", f"its ranks left with {code}; what is said above, or in the log of another pod, tells why.")
    return code


def _say(kind: str, what: str) -> None:
    index = os.environ.get("JOB_COMPLETION_INDEX", "")
    pod = f"pod {index[:9]}: " if index else ""
    with contextlib.suppress(OSError):  # nobody reads any more
        print(f"distrain: {kind}: {pod}{what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
