"""Which values the state of a checkpoint may hold, because a forged or damaged value must not reach training.

Decides: type and range of each value that a run reads from `state.json`. Never: what training does with a value.

    >>> odd_value({"epoch": 3, "global_step": -1})
    '"global_step" is -1, not a count'
    >>> odd_value({"epoch": 3})
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

MAX_COUNT = 2**53  # larger whole numbers are not exact in every reader of JSON


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < MAX_COUNT


def _is_duration(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf


def _is_figure(value: Any) -> bool:
    return value is None or type(value) in (int, float) or (type(value) is list and all(map(_is_figure, value)))


def _is_early_stopping(value: Any) -> bool:
    return value is None or (
        isinstance(value, dict)
        and (value.get("best_step") is None or _is_count(value["best_step"]))
        and _is_count(value.get("epochs_since", 0))
        and isinstance(figures := value.get("best_figures", {}), dict)
        and all(map(_is_figure, figures.values()))
    )


def _is_callbacks(value: Any) -> bool:
    attributes = value.get("attributes", {}) if isinstance(value, dict) else None
    return isinstance(attributes, dict) and all(
        isinstance(states, dict)
        and all(isinstance(one, dict) and isinstance(one.get("kind"), str) for one in states.values())
        for states in attributes.values()
    )


_COUNTS = ("epoch", "position", "epoch_steps", "global_step", "examples_trained", "skipped_steps")
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(_COUNTS, (_is_count, "a count")),
    **dict.fromkeys(("train_seconds", "run_seconds"), (_is_duration, "a number of seconds")),
    **dict.fromkeys(("finished", "data_digest"), (lambda value: isinstance(value, str), "text")),
    **dict.fromkeys(("description", "variables", "architecture"), (lambda value: isinstance(value, dict), "an object")),
    "early_stopping": (_is_early_stopping, "the state of early stopping"),
    "callbacks": (_is_callbacks, "the state of callbacks"),
}
_AT_MOST = (("epoch_steps", "global_step"), ("skipped_steps", "global_step"))


def odd_value(state: Mapping[str, Any]) -> str | None:
    """Say which value of a state is impossible, or return None; values may be missing."""
    for name, (is_allowed, what) in _RULES.items():
        if name in state and not is_allowed(state[name]):
            return f'"{name}" is {_shown(state[name])}, not {what}'
    for name, limit in _AT_MOST:
        if state.get(name, 0) > state.get(limit, MAX_COUNT):
            return f'"{name}" is {state[name]:,}, more than the {state[limit]:,} of "{limit}"'
    return None


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}..."
