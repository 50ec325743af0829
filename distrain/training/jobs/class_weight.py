"""The setting `--class-weight` as weights of the training examples.

Decides: which class a label of the setting names, and that no weight is without effect. Never: weighs an example.

    examples, recorded = weigh_classes(examples, "balanced")
    examples, recorded = weigh_classes(examples, "spam=20,other=1", classes=("other", "spam"))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from distrain.data.examples import Examples
from distrain.data.labels.class_weights import balanced_weights, class_counts, class_weighted
from distrain.errors import ConfigurationError

MAX_NAMED = 12  # classes in a message


def weigh_classes(
    examples: Examples, setting: str | None, classes: Sequence[str] = ()
) -> tuple[Examples, dict[str, Any]]:
    """Return the examples weighed as the setting asks, and the entry of `config.json` that records the weights.

    Args:
        examples: training examples without weights, if there is a setting.
        setting: "balanced", or "LABEL=WEIGHT,..."; None leaves the examples as they are.
        classes: names of the classes by number; empty if classes have numbers alone.

    Raises:
        ConfigurationError: a label names no class, or twice the same, or a weight is not a number, or the examples
            have weights or no class.
    """
    if setting is None:
        return examples, {}
    given = balanced_weights(class_counts(examples)) if setting == "balanced" else given_weights(setting, classes)
    return class_weighted(examples, given), {"class_weights": {str(label): weight for label, weight in given.items()}}


def given_weights(setting: str, classes: Sequence[str]) -> dict[int, float]:
    """Return the weights by class number of a setting "LABEL=WEIGHT,...".

    A label is the name of a class, else its number.

    Raises:
        ConfigurationError: a label names no class, or twice the same, or a weight is not a number.
    """
    weights: dict[int, float] = {}
    for pair in setting.split(","):
        label, _, weight = pair.partition("=")
        number = _class_number(label.strip(), classes)
        if number in weights:
            raise ConfigurationError(f"--class-weight names the class {label.strip()!r} twice; give one weight.")
        try:
            weights[number] = float(weight)
        except ValueError:
            raise ConfigurationError(f"--class-weight has {pair!r}, whose weight is not a number.") from None
    return weights


def _class_number(label: str, classes: Sequence[str]) -> int:
    if label in classes:
        return classes.index(label)
    if label.isdecimal() and (not classes or int(label) < len(classes)):
        return int(label)
    known = ", ".join(classes[:MAX_NAMED]) + (", ..." if len(classes) > MAX_NAMED else "")
    rule = f"the classes are {known}" if classes else "give the number of a class, from 0"
    raise ConfigurationError(f"--class-weight names {label!r}, which is no class: {rule}.")
