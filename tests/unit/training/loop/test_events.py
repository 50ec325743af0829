"""The largest of several decisions wins."""

from __future__ import annotations

from distrain.training.loop.events import Decision


def test_the_largest_decision_counts():
    assert max(Decision.GO_ON, Decision.FINISH, Decision.STOP) is Decision.STOP
    assert max(Decision.FINISH, Decision.GO_ON) is Decision.FINISH
