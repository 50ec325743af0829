"""Settings of `distrain synth` and `distrain prepare`: each wrong value is refused by name."""

from __future__ import annotations

import pytest

from distrain.config import PrepareConfig, SynthConfig
from distrain.errors import ConfigurationError


@pytest.mark.parametrize(
    ("name", "value", "option"),
    [
        ("vectorizer", "bert", "--vectorizer"),
        ("dataset", "imdb", "--dataset"),
        ("text_columns", (), "--text-columns"),
        ("text_columns", ("a", ""), "--text-columns"),
        ("top_k", 0, "--top-k"),
        ("max_length", 0, "--max-length"),
        ("holdout", 0.0, "--holdout"),
        ("holdout", 1.0, "--holdout"),
        ("holdout", float("nan"), "--holdout"),
        ("memory_mib", 255, "--memory-mib"),
        ("workers", 0, "--workers"),
    ],
)
def test_a_bad_preparing_setting_is_named_with_its_value(name, value, option):
    with pytest.raises(ConfigurationError) as caught:
        PrepareConfig(train="train.csv", out="data", **{name: value})
    assert str(caught.value).startswith(f"{option} is {value!r}, but it must be ")


def test_the_label_column_is_no_text_column():
    with pytest.raises(ConfigurationError, match="--label-column is 'a'"):
        PrepareConfig(train="train.csv", out="data", label_column="a", text_columns=("a", "b"))


@pytest.mark.parametrize(
    ("name", "value", "option"),
    [
        ("classes", 1, "--classes"),
        ("classes", 1001, "--classes"),
        ("words_per_row", 1, "--words-per-row"),
        ("words_per_row", 100_001, "--words-per-row"),
        ("seed", -1, "--seed"),
        ("seed", 2**63, "--seed"),
    ],
)
def test_a_bad_setting_of_artificial_text_is_named_with_its_value(name, value, option):
    with pytest.raises(ConfigurationError) as caught:
        SynthConfig(out="text", rows=10_000, **{name: value})
    assert str(caught.value).startswith(f"{option} is {value!r}, but it must be ")


def test_each_class_needs_a_row():
    assert SynthConfig(out="text", rows=5, classes=5).rows == 5
    with pytest.raises(ConfigurationError, match="--rows is 4, but 5 classes need at least one row each"):
        SynthConfig(out="text", rows=4, classes=5)
