"""What `distrain.fit` refuses before anything is built."""

from __future__ import annotations

import numpy as np
import pytest

from distrain.config import TrainConfig
from distrain.errors import ConfigurationError
from distrain.training.fit import fit

EXAMPLES = (np.zeros((4, 2), "f4"), np.zeros(4, "f4"))


def never_built():
    raise AssertionError("the model is not built")


@pytest.mark.parametrize("name", ["wings", "data", "model", "units", "embedding", "blocks", "filters", "dropout"])
def test_a_setting_that_would_have_no_effect_is_refused(name):
    value = getattr(TrainConfig, name, None)
    with pytest.raises(ConfigurationError, match=f"{name}: no such setting of distrain.fit"):
        fit(never_built, EXAMPLES, **{name: value})


@pytest.mark.parametrize("part", [np.zeros(3), (np.zeros(3),), [np.zeros(3), np.zeros(3)]])
def test_arrays_are_given_as_a_tuple(part):
    with pytest.raises(ConfigurationError, match=r"train .*: give a tuple"):
        fit(never_built, part)
    with pytest.raises(ConfigurationError, match=r"validation .*: give a tuple"):
        fit(never_built, EXAMPLES, validation=part)
