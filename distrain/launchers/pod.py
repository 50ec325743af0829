"""The entry of each pod of an Indexed Job: waits for the other pods, then runs and supervises the ranks of this pod.

Decides: when the ranks start and start again, what a signal means to them, the exit code and the final message. Never:
trains, or finds out which rank of the run was lost; the ranks do.

    $ python -m distrain.pod --data /data --run /runs/1        # the arguments of `distrain train`

The manifest sets JOB_COMPLETION_INDEX, DISTRAIN_NUM_PODS and DISTRAIN_RANKS_PER_POD (default 1). It also sets
DISTRAIN_RENDEZVOUS, host and port of pod 0, where the pods meet; the ranks meet at the next port. DISTRAIN_RESTARTS
(default 0) says how often the ranks start again. DISTRAIN_RENDEZVOUS_SECONDS limits the wait for a missing pod.

    Event                          Reaction
    the command is wrong           exit code 2, before any pod waits
    this run is finished already   exit code 0: other pods may have completed, and Kubernetes never restarts those
    a pod does not connect         exit code 5, and its name
    SIGTERM, SIGINT, SIGUSR1,      exit code 42 at once while pods are missing; later each rank gets it and saves
    SIGHUP
    a second SIGINT                the ranks are killed
    a rank fails or is killed      the other ranks notice and exit, or are killed later; a killed rank gives exit code 5
    another pod was told to stop   the ranks save and exit with 42
    the ranks exited with 1, 5 or  without a signal to this process: the pod keeps its place, waits for all pods, and
    42, or were killed             starts its ranks again from the last checkpoint, at most DISTRAIN_RESTARTS times
    the run is over in other pods  a rank that still runs hangs: it is killed after 30 s
    this process is killed         the kernel kills its ranks

As process 1 of a container, this process has no default signal actions: a signal before `listen_for_stop` is lost.
"""

from __future__ import annotations

import importlib.util
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING

from distrain.cluster.signals import StopRequest, listen_for_stop
from distrain.cluster.world import World, find_world, whole_number
from distrain.errors import ERROR_BY_EXIT_CODE, CheckpointError, ConfigurationError, RankError, StopRequested
from distrain.file_names import CHECKPOINTS_NAME, CONFIG_NAME
from distrain.files import read_json_object
from distrain.launchers.processes import handles
from distrain.launchers.supervisor import (
    FINAL_CODES,
    GO_ON,
    StderrRelay,
    exit_code_of,
    polls,
    run_with_restarts,
    say,
    send_once,
    start,
)

if TYPE_CHECKING:
    from distrain.config import TrainConfig
    from distrain.launchers.pod_barrier import PodBarrier
    from distrain.launchers.pod_barrier_server import IndexedPod

# All ranks learn of a lost rank within a minute (distrain/cluster/failure_detector.py), and then exit.
ENDING_SECONDS = 75.0
# The ranks of another pod have all ended. A rank that still runs needs this time to leave, unless it hangs.
OVER_SECONDS = 30.0
# A rank exits with these codes because it knows the cause, so they count before the codes of ranks that followed.
_KNOWN_CAUSES = ERROR_BY_EXIT_CODE.keys() - {RankError.exit_code}


def main(arguments: Sequence[str]) -> int:
    """Run this pod's part of `distrain train ARGUMENTS`.

    Returns:
        Exit code of the ranks or of an error; 5 when a rank was killed; 130 after a second SIGINT.
    """
    stop = listen_for_stop()  # before the slower imports
    return exit_code_of(lambda: run_pod(arguments, os.environ, stop), prefix=_prefix())


def _prefix() -> str:
    index = os.environ.get("JOB_COMPLETION_INDEX", "")
    return f"pod {index[:9]}: " if index else ""


def run_pod(arguments: Sequence[str], environ: Mapping[str, str], stop: StopRequest) -> int:
    """Check the command, wait for the other pods, and run the ranks of this pod; run them again where that helps."""
    from distrain.cli.main import train_arguments
    from distrain.cluster.rendezvous import rendezvous_seconds
    from distrain.launchers.pod_barrier import PodBarrier
    from distrain.reporting.restart_note import note_restart

    config = train_arguments(arguments)
    world = find_world(environ)
    _check(config, world)
    restarts = whole_number({"DISTRAIN_RESTARTS": "0", **environ}, "DISTRAIN_RESTARTS")
    seconds = rendezvous_seconds(environ)
    has_others = world.rendezvous and world.size > world.local_size
    with PodBarrier(_indexed_pod(world), seconds=seconds) if has_others else nullcontext() as barrier:

        def run_once() -> int:
            if _is_finished(config):
                print(f"{config.run} is finished already. Ask for more --epochs, or train into another --run.")
                return 0
            if barrier:
                barrier.await_pods(lambda: stop.signal_name is not None)
            code = _run_ranks(arguments, world, barrier, stop)
            if code and barrier:
                barrier.say_over()
            return code

        def prepare_restart(code: int) -> bool:
            """Return False if a restart would not help, or this pod was told to stop; else inform the probe."""
            if stop.signal_name or (code in FINAL_CODES and code != StopRequested.exit_code):
                return False
            note_restart(config.run)
            return True

        return run_with_restarts(run_once, restarts, prepare_restart, prefix=_prefix())


def _indexed_pod(world: World) -> IndexedPod:
    from distrain.launchers.pod_barrier_server import IndexedPod

    assert world.rendezvous
    host, _, port = world.rendezvous.rpartition(":")
    return IndexedPod(world.rank // world.local_size, world.size // world.local_size, host, int(port))


def _check(config: TrainConfig, world: World) -> None:
    """Refuse what would fail in each rank, later."""
    if world.launcher != "indexed job":
        raise ConfigurationError(
            "this is no pod of an Indexed Job: JOB_COMPLETION_INDEX and DISTRAIN_NUM_PODS are not set, or another "
            "launcher's variables are. Render the job with launch/k8s.sh, or start 'distrain train' itself."
        )
    if world.size == 1:
        return
    if config.strategy not in ("auto", "horovod"):
        raise ConfigurationError(
            f"--strategy {config.strategy} cannot connect {world.size} ranks in an Indexed Job: only Horovod can "
            "without mpirun. Leave --strategy out; for MPI run an MPIJob, for the others a single rank."
        )
    if importlib.util.find_spec("horovod") is None:
        raise ConfigurationError(
            f"Horovod is not installed, without which the {world.size} ranks of an Indexed Job cannot connect. "
            "Build it into the image by launch/install_horovod.sh."
        )


def _is_finished(config: TrainConfig) -> bool:
    """Return whether exactly this command has been trained to its end, so that the other pods may have completed."""
    from distrain.runs import directory as run_directory
    from distrain.runs.checkpoint import list_checkpoints, load_checkpoint

    try:
        summary = run_directory.read_summary(config.run)
        if summary is None:
            return False
        settings = read_json_object(config.run / CONFIG_NAME)
        before = asdict(run_directory.config_of(settings))
        if any(value not in (None, "auto", before[name]) for name, value in asdict(config).items()):
            return False  # the run has resolved None and "auto" to values
        newest = load_checkpoint(list_checkpoints(config.run / CHECKPOINTS_NAME)[-1])
        if summary["global_steps"] != newest.state["global_step"]:
            return False
        return run_directory.is_finished(config, newest)
    except (CheckpointError, OSError, ValueError, LookupError, TypeError, AttributeError):
        return False  # not a finished run; the ranks report what is wrong with the directory


def _run_ranks(arguments: Sequence[str], world: World, barrier: PodBarrier | None, stop: StopRequest) -> int:
    """Start the ranks, supervise them to their end, and return the exit code of the pod."""
    relay = StderrRelay()
    ranks: dict[int, subprocess.Popen[bytes]] = {}
    environ = {**os.environ, **({"DISTRAIN_RENDEZVOUS": barrier.ranks_rendezvous} if barrier else {})}
    try:
        for local_rank in range(world.local_size):
            ranks[world.rank - world.local_rank + local_rank] = start(
                [sys.executable, "-m", "distrain", "train", *arguments],
                signal_at_death=signal.SIGKILL,
                env={**environ, "DISTRAIN_LOCAL_RANK": str(local_rank)},
                stderr=relay,
                process_group=0,  # so that Ctrl-C reaches this process alone, which relays it
            )
        relay.begin()
        codes = _await_ranks(ranks, barrier, stop)
    finally:
        for process in ranks.values():
            process.kill()
            process.wait()
    relay.end()
    return exit_code_of(lambda: conclude(codes, has_final_message=relay.has_final_message), prefix=_prefix())


def _await_ranks(
    ranks: Mapping[int, subprocess.Popen[bytes]], barrier: PodBarrier | None, stop: StopRequest
) -> dict[int, int | None]:
    """Return the exit code of each rank; None for a rank that hangs after others ended, here or in other pods."""
    sent: set[int] = set()
    deadline = math.inf
    for _ in polls(ranks.values()):
        if any(process.returncode for process in ranks.values()):
            deadline = min(deadline, time.monotonic() + ENDING_SECONDS)
        if barrier and barrier.is_over:
            deadline = min(deadline, time.monotonic() + OVER_SECONDS)
        if time.monotonic() > deadline:
            break
        if stop.signal_name:
            running = [process.pid for process in ranks.values() if process.returncode is None]
            # Without a handler, the signal would kill a rank that is still starting.
            prepared = [pid for pid in running if handles(pid, signal.SIGUSR1)]
            send_once(signal.Signals[stop.signal_name], prepared, sent)
    return {rank: process.returncode for rank, process in ranks.items()}


def conclude(codes: Mapping[int, int | None], *, has_final_message: bool) -> int:
    """Return the exit code of the pod, after a final message where the ranks have written none."""
    hanging = sorted(rank for rank, code in codes.items() if code is None)
    exited = {code for code in codes.values() if code is not None and code > 0}
    killed = [(rank, -code) for rank, code in codes.items() if code is not None and code < 0]
    if hanging and not exited and not killed:
        ranks = ", ".join(map(str, hanging))
        raise RankError(f"rank {ranks} did not end and was killed, though the run is over in the other pods. {GO_ON}")
    for rank in hanging:
        say("warning", f"{_prefix()}rank {rank} was killed, because it still ran long after others had ended.")
    if killed and not exited & _KNOWN_CAUSES:
        rank, number = killed[0]
        memory = (
            "Perhaps it ran out of memory, which 'kubectl describe pod' knows: then give the pod more, or each step "
            "less by --accumulation-steps. "
        )
        hint = memory if number == signal.SIGKILL else ""
        raise RankError(f"rank {rank} was killed by signal {number} ({signal.strsignal(number)}). {hint}{GO_ON}")
    code = min(exited & _KNOWN_CAUSES or exited, default=0)
    if code and not has_final_message:
        if code == StopRequested.exit_code:
            raise StopRequested(
                "a rank in another pod asked all ranks to stop; its log says more. Start again to go on."
            )
        what = f"its ranks exited with code {code}; the messages above, or the log of another pod, say why."
        say("error", f"{_prefix()}{what}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
