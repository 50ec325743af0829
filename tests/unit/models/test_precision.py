"""A mixed precision computes in half precision, keeps weights and probabilities in float32, and ends with the model."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from distrain.config import TrainConfig
from distrain.errors import ConfigurationError
from distrain.models.build import text_model
from distrain.models.precision import precision
from distrain.training.jobs.job import open_job


def built(kind, num_classes, name):
    keras.utils.set_random_seed(3)
    config = TrainConfig(data="d", run="r", mixed_precision=name, embedding=16, filters=8, blocks=1)
    return text_model(kind, num_features=40, num_classes=num_classes, config=config)


INPUTS = {
    "ngram": np.random.default_rng(0).random((6, 40)).astype("f4"),
    "sequence": np.random.default_rng(0).integers(1, 40, (6, 12)).astype("i4"),
}


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.parametrize("num_classes", [2, 3])
def test_a_model_computes_in_half_precision_from_the_same_float32_weights(kind, num_classes):
    full, mixed = built(kind, num_classes, None), built(kind, num_classes, "bfloat16")
    assert mixed.dtype_policy.name == "mixed_bfloat16"
    assert {weight.dtype for weight in mixed.trainable_weights} == {"float32"}
    for ours, theirs in zip(mixed.get_weights(), full.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    outputs, expected = mixed(INPUTS[kind]).numpy(), full(INPUTS[kind]).numpy()
    assert outputs.dtype == np.float32
    assert not np.array_equal(outputs, expected)
    np.testing.assert_allclose(outputs, expected, atol=0.02)


def test_the_policy_ends_with_the_model():
    before = keras.config.dtype_policy().name
    with precision("bfloat16"):
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    assert keras.config.dtype_policy().name == before


def test_float16_on_a_cpu_is_refused_with_what_works():
    with pytest.raises(ConfigurationError, match=r"--mixed-precision float16 needs a GPU.* Use bfloat16"):
        built("ngram", 2, "float16")


def test_a_model_of_ones_own_has_its_own_policy():
    config = TrainConfig(data="d", run="r", model="a:b", mixed_precision="float16")
    with pytest.raises(ConfigurationError, match=r"for the shipped models\..*set_dtype_policy\(\"mixed_float16\"\)"):
        open_job(config)
