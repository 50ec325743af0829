"""The entry of a pod without processes: the exit code and the final message, and commands that are refused."""

from __future__ import annotations

import pytest

from distrain.cluster.signals import StopRequest
from distrain.errors import ConfigurationError
from distrain.launchers.pod import conclude, run_pod
from distrain.launchers.supervisor import exit_code_of

JOINED = {"JOB_COMPLETION_INDEX": "0", "DISTRAIN_NUM_PODS": "3", "DISTRAIN_RANKS_PER_POD": "2"}
JOINED |= {"DISTRAIN_RENDEZVOUS": "127.0.0.1:29400"}
STILL_RUNS = None


@pytest.mark.parametrize(
    ("codes", "has_final_message", "code", "message"),
    [
        ([0, 0], False, 0, ""),
        ([3, 3], True, 3, ""),
        ([5, 6], True, 6, ""),
        ([2, 2], True, 2, ""),
        ([4, 4], False, 4, "error: pod 0: its ranks exited with code 4; the messages above, or the log of another pod"),
        ([42, 42], False, 42, "stopped: pod 0: a rank in another pod asked all ranks to stop; its log says more."),
        ([1, 5], False, 1, "error: pod 0: its ranks exited with code 1; the messages above"),
        ([5, -9], False, 5, "error: pod 0: rank 1 was killed by signal 9 (Killed). Perhaps it ran out of memory"),
        ([-6, 5], False, 5, "error: pod 0: rank 0 was killed by signal 6 (Aborted). Start again: training goes on"),
        ([-40, 42], False, 42, "stopped: pod 0: "),
        (
            [STILL_RUNS, STILL_RUNS],
            False,
            5,
            "error: pod 0: rank 0, 1 did not end and was killed, though the run is over",
        ),
        ([3, STILL_RUNS], True, 3, "warning: pod 0: rank 1 was killed, because it still ran long after others had"),
    ],
)
def test_the_exit_code_and_the_final_message(codes, has_final_message, code, message, monkeypatch, capfd):
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "0")
    ranks = dict(enumerate(codes))
    ended = exit_code_of(lambda: conclude(ranks, has_final_message=has_final_message), prefix="pod 0: ")
    written = capfd.readouterr().err
    assert ended == code
    assert written.count("\n") == bool(message)
    assert written.startswith(f"distrain: {message}" if message else "")


@pytest.mark.parametrize(
    ("variables", "more", "message"),
    [
        ({"DISTRAIN_NUM_PODS": ""}, [], "this is no pod of an Indexed Job: JOB_COMPLETION_INDEX and"),
        ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}, [], "or another launcher's variables are"),
        ({"JOB_COMPLETION_INDEX": ""}, [], "JOB_COMPLETION_INDEX is not set"),
        ({"JOB_COMPLETION_INDEX": "3"}, [], "JOB_COMPLETION_INDEX=3, but DISTRAIN_NUM_PODS=3"),
        ({"DISTRAIN_RENDEZVOUS": "here"}, [], "DISTRAIN_RENDEZVOUS='here' is not HOST:PORT"),
        ({"DISTRAIN_RESTARTS": "-1"}, [], "DISTRAIN_RESTARTS='-1' is not a whole number from 0."),
        ({"DISTRAIN_RENDEZVOUS_SECONDS": "soon"}, [], "DISTRAIN_RENDEZVOUS_SECONDS='soon'"),
        ({}, ["--strategy", "mpi"], "--strategy mpi cannot connect 6 ranks in an Indexed Job"),
        ({}, ["--strategy", "mirrored"], "--strategy mirrored cannot connect 6 ranks"),
        ({}, ["--epochs", "0"], "--epochs is 0, but it must be at least 1."),
    ],
)
def test_a_wrong_command_is_refused_before_anything_waits(variables, more, message, tmp_path):
    pytest.importorskip("horovod")
    arguments = ["--data", str(tmp_path / "data"), "--run", str(tmp_path / "run"), *more]
    with pytest.raises(ConfigurationError, match=message.replace(".", r"\.")):
        run_pod(arguments, JOINED | variables, StopRequest())
