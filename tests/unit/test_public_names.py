"""The public names of `distrain` are imported from their modules, and documented."""

from __future__ import annotations

import importlib
import operator

import pytest

import distrain


@pytest.mark.parametrize("name", distrain.__all__)
def test_a_public_name_is_its_modules_own(name):
    value = getattr(distrain, name)
    assert value is getattr(importlib.import_module(value.__module__), name)
    assert value.__doc__


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'wings'"):
        operator.attrgetter("wings")(distrain)
