"""The time that an Indexed Job loses to the back-off of Kubernetes, and its table in the README of k8s."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from job_controller import MAX_BACKOFF, START_SECONDS, JobController, minutes_lost
from manifests import variables

ROOT = Path(__file__).parents[2]
PODS = (1, 2, 4, 8, 16, 32, 64)
OLD_SECONDS = 600.0  # DISTRAIN_RENDEZVOUS_SECONDS when all pods left with a drained pod


def waits(*pods_that_end_together: int) -> list[float]:
    controller = JobController()
    waited = []
    for number in pods_that_end_together:
        controller.fail(number, 0.0)
        waited.append(controller.creates_at())
    return waited


@pytest.mark.parametrize(
    ("ended", "seconds"), [([4, 4], [80, 600]), ([8], [600]), ([1] * 8, [10, 20, 40, 80, 160, 320, 600, 600])]
)
def test_the_rule_is_what_clusters_do(ended, seconds):
    """Kubernetes 1.36.2 took 81 s and 600 s for 4 pods that left together twice, and 600 s for 8 pods."""
    assert waits(*ended) == seconds


@pytest.mark.parametrize(("failures", "seconds"), [(1, 10), (4, 80), (10, 600)])
def test_a_new_job_hurries_kubernetes_and_a_pause_does_not(failures, seconds):
    """What the README tells somebody who does not want to wait for a replaced pod."""
    drained = 1000.0
    controller = JobController()
    controller.fail(failures, drained)
    controller.suspend()
    assert controller.creates_at() == drained + seconds
    controller.delete()
    assert controller.creates_at() <= drained


@pytest.mark.parametrize("num_pods", PODS)
@pytest.mark.parametrize("incidents", [1, 3, 10])
def test_pods_that_keep_their_place_lose_less(num_pods, incidents):
    drained = minutes_lost(num_pods=num_pods, incidents=incidents, pods_ended=1)
    assert drained <= minutes_lost(num_pods=num_pods, incidents=incidents, pods_ended=num_pods)
    assert drained == minutes_lost(num_pods=1, incidents=incidents, pods_ended=1)  # whatever the number of pods
    assert drained <= incidents * (MAX_BACKOFF + START_SECONDS) / 60
    assert minutes_lost(num_pods=num_pods, incidents=incidents, pods_ended=0) == incidents * START_SECONDS / 60


def test_a_late_replacement_pushes_nobody_out():
    """Its node comes 20 minutes after the drain: pods that keep their place wait for exactly that long."""
    late = {"num_pods": 8, "incidents": 1, "node_seconds": 20 * 60.0}
    assert minutes_lost(pods_ended=1, **late) == (10 + START_SECONDS) / 60 + 20
    assert minutes_lost(pods_ended=8, seconds=OLD_SECONDS, **late) > 31


def test_pods_wait_longer_than_kubernetes_and_a_start():
    job = yaml.safe_load((ROOT / "k8s/overlays/indexed/train.yaml").read_text())
    (container,) = job["spec"]["template"]["spec"]["containers"]
    found = variables(container)
    assert int(found["DISTRAIN_RENDEZVOUS_SECONDS"]) >= MAX_BACKOFF + 10 * START_SECONDS
    assert int(found["DISTRAIN_RESTARTS"]) > 0


def table() -> str:
    """Return the table of the README: minutes lost, before and after pods kept their place."""
    lines = ["| pods | 1 drain | 3 drains | 10 drains | 10 lost ranks |", "|---|---|---|---|---|"]
    for num_pods in PODS:
        cells = []
        for incidents, pods_ended in ((1, 1), (3, 1), (10, 1), (10, 0)):
            before = minutes_lost(num_pods=num_pods, incidents=incidents, pods_ended=num_pods, seconds=OLD_SECONDS)
            after = minutes_lost(num_pods=num_pods, incidents=incidents, pods_ended=pods_ended)
            cells.append(f"{before:.0f} → {after:.0f}")
        lines.append(f"| {num_pods} | {' | '.join(cells)} |")
    return "\n".join(lines)


def test_the_readme_has_the_table_of_the_simulation():
    assert table() in (ROOT / "k8s/README.md").read_text(), table()
