"""A model that cannot fit into the memory of the machine, or that nobody ships, is refused before it is built."""

from __future__ import annotations

import pytest

from distrain.config import TrainConfig
from distrain.errors import ConfigurationError
from distrain.models import build
from distrain.models.build import text_model
from distrain.models.weight_count import count_weights


@pytest.mark.parametrize(
    ("kind", "sizes", "option"),
    [
        ("ngram", {"units": 2**20}, "--units"),
        ("sequence", {"embedding": 2**20}, "--embedding"),
        ("sequence", {"filters": 2**20, "blocks": 16}, "--filters"),
    ],
)
def test_an_absurd_model_is_refused(kind, sizes, option):
    config = TrainConfig(data="data", run="run", **sizes)
    with pytest.raises(ConfigurationError, match=rf"The model would take [\d,.]+ GiB to train: .* {option}"):
        text_model(kind, num_features=20_000_000, num_classes=4, config=config)


def test_a_kind_without_a_shipped_model_is_an_error(monkeypatch):
    config = TrainConfig(data="data", run="run", dropout=0.0)
    with pytest.raises(ValueError, match="No shipped model reads rows of the kind 'image'"):
        count_weights("image", num_features=10, num_classes=4, config=config)
    monkeypatch.setattr(build, "require_memory", lambda *_, **__: None)  # it counts weights, as above
    with pytest.raises(ValueError, match="No shipped model reads rows of the kind 'image'"):
        text_model("image", num_features=10, num_classes=4, config=config)
