"""The page `docs/reference/keras.md` names every argument and class of Keras, with the verdict that the code has."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import keras
import pytest
from keras_families import EXACT, LOSSES, METRICS, NOT_TAKEN, REFUSED
from keras_optimizer_families import OPTIMIZERS, SCHEDULES

from distrain.errors import ConfigurationError
from distrain.training.callbacks.rules import RULES
from distrain.training.fit import fit
from distrain.training.jobs.fit_arguments import REFUSED as REFUSED_ARGUMENTS

PAGE = (Path(__file__).parents[2] / "docs/reference/keras.md").read_text(encoding="utf-8")
NO_CALLBACKS = {"Callback", "CallbackList"}  # the base class, and a container of callbacks
OTHER_VALUES = {"run_eagerly": True, "auto_scale_loss": False, "validation_freq": 2}


def rows(section: str) -> list[tuple[str, ...]]:
    """Return the cells of the table in a section, without its head."""
    text = PAGE.split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in text.splitlines() if line.startswith("|")][2:]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines]


def verdicts(section: str) -> dict[str, str]:
    """Return the verdicts of a table by the name in its first column."""
    return {cells[0].strip("`"): cells[1] for cells in rows(section)}


@pytest.mark.parametrize("function", [keras.Model.compile, keras.Model.fit], ids=["compile", "fit"])
def test_the_page_names_every_argument(function):
    assert list(verdicts(f"Arguments of `{function.__name__}`")) == list(inspect.signature(function).parameters)[1:]


def test_the_page_refuses_the_arguments_of_fit_that_the_code_refuses():
    refused = {name for name, verdict in verdicts("Arguments of `fit`").items() if verdict == REFUSED}
    of_compile = set(inspect.signature(keras.Model.compile).parameters)
    assert refused == REFUSED_ARGUMENTS.keys() - of_compile


@pytest.mark.parametrize("name", REFUSED_ARGUMENTS)
def test_a_refused_argument_is_refused_in_a_sentence_that_names_it(name):
    with pytest.raises(ConfigurationError, match=f"{name}=.* is not served by distrain.fit: .+\\."):
        fit(keras.Sequential, ([[1.0]], [1.0]), **{name: OTHER_VALUES.get(name, 3)})


def test_the_page_names_every_callback_with_its_rule():
    classes = {name for name, value in vars(keras.callbacks).items() if inspect.isclass(value)} - NO_CALLBACKS
    found = {cells[0].strip("`"): REFUSED if cells[1] == REFUSED else cells[2] for cells in rows("Callbacks")}
    assert found.keys() == classes
    assert found == RULES


@pytest.mark.parametrize("family", ["losses", "metrics", "optimizers", "schedules"])
def test_the_page_names_every_class_with_its_verdict(family):
    by_rows = {"losses": LOSSES, "metrics": METRICS}
    others = {"optimizers": OPTIMIZERS, "schedules": SCHEDULES}
    expected = {name: row.verdict for name, row in by_rows.get(family, {}).items()}
    expected |= dict.fromkeys(others.get(family, {}), EXACT)
    found = {
        name: verdict
        for kind, verdict, names in rows("Classes")
        if kind == family
        for name in re.findall(r"`(\w+)`", names)
    }
    assert found == expected
    assert set(found.values()) <= {EXACT, REFUSED, NOT_TAKEN}
