"""How long an Indexed Job stands still after incidents: the rule by which Kubernetes replaces pods, and a simulation.

    minutes_lost(num_pods=8, incidents=3, pods_ended=1)       # 3 drains, hours apart: minutes without training

The rule is written down from Kubernetes 1.36, pkg/controller/job/backoff_utils.go (newBackoffRecord,
getRemainingTimeForFailuresCount) and job_controller.go (manageJob):

- every failed pod counts, also one that a podFailurePolicy ignores; a pod that succeeds resets the count;
- no pod of the Job is created until 10 s x 2^(count - 1), at most 600 s, have passed since the last failure;
- then all missing pods are created at once;
- a suspended Job deletes its pods (manageJob, deleteJobPods), which counts none of them, and keeps its record;
- syncJob drops the record of a Job that is gone (removeBackoffRecord), so a new Job of the same name begins at 0.
"""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_BACKOFF, MAX_BACKOFF = 10.0, 600.0  # seconds: DefaultJobPodFailureBackOff, MaxJobPodFailureBackOff
START_SECONDS = 60.0  # from the creation of a pod to the start of its ranks: a node is there, and has the image
BETWEEN_SECONDS = 4 * 3600.0


@dataclass
class JobController:
    """The back-off record of one Job.

    Attributes:
        failures: Failed pods since the last pod that succeeded.
        last_failure: Time of the last failure, in seconds.
    """

    failures: int = 0
    last_failure: float = 0.0

    def fail(self, num_pods: int, time: float) -> None:
        """Count pods that ended without success."""
        self.failures += num_pods
        self.last_failure = time

    def suspend(self) -> None:
        """Delete all pods: they leave the record as it is, and so does the Job that goes on."""

    def delete(self) -> None:
        """Drop the record with the Job; a new Job may take its name."""
        self.failures, self.last_failure = 0, 0.0

    def creates_at(self) -> float:
        """Return when the missing pods are created."""
        if self.failures == 0:
            return self.last_failure
        return self.last_failure + min(DEFAULT_BACKOFF * 2.0 ** min(self.failures - 1, 60), MAX_BACKOFF)


def minutes_lost(
    *, num_pods: int, incidents: int, pods_ended: int, seconds: float = 1500.0, node_seconds: float = 0.0
) -> float:
    """Return the minutes without training of a job with several incidents, hours apart.

    Args:
        num_pods: Pods of the job.
        incidents: Number of incidents.
        pods_ended: Pods that end in each incident; the others keep their place.
        seconds: DISTRAIN_RENDEZVOUS_SECONDS.
        node_seconds: How long the successor of one pod waits for a node.
    """
    controller, time, lost = JobController(), 0.0, 0.0
    for _ in range(incidents):
        time += BETWEEN_SECONDS
        again = _restart(controller, time, num_pods, pods_ended, seconds, node_seconds)
        lost += again - time
        time = again
    return lost / 60


def _restart(
    controller: JobController, time: float, num_pods: int, pods_ended: int, seconds: float, node_seconds: float
) -> float:
    """Return when the ranks of all pods train again after an incident."""
    if pods_ended == 0:
        return time + START_SECONDS
    controller.fail(pods_ended, time)
    late = controller.creates_at() + START_SECONDS + node_seconds  # one pod, whose node is gone
    others = late - node_seconds if pods_ended == num_pods else time  # since then they wait for the late pod
    while num_pods > 1 and abs(late - others) > seconds:
        gives_up = min(late, others) + seconds
        controller.fail(num_pods - 1 if others < late else 1, gives_up)
        if others < late:
            others = controller.creates_at() + START_SECONDS
        else:
            late = controller.creates_at() + START_SECONDS
    return max(late, others if pods_ended == num_pods else late)
