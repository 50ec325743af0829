"""Which texts are URLs, and what of a URL is shown."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest

from distrain.config import PrepareConfig, TrainConfig
from distrain.errors import ConfigurationError
from distrain.remote.path import RemotePath, text_of, to_path


@pytest.mark.parametrize(
    ("given", "shown", "name"),
    [
        ("s3://bucket/parts/a.csv", "s3://bucket/parts/a.csv", "a.csv"),
        ("S3://bucket/parts/", "s3://bucket/parts", "parts"),
        ("s3://bucket/a?b#c.csv", "s3://bucket/a?b#c.csv", "a?b#c.csv"),
        ("https://ana:pw@host:8080/x/a.csv.gz?sig=pw&x=/y", "https://host:8080/x/a.csv.gz", "a.csv.gz"),
        ("https://host/a%20b.csv", "https://host/a%20b.csv", "a b.csv"),
        (Path("s3://bucket/a.csv"), "s3://bucket/a.csv", "a.csv"),
    ],
)
def test_a_url_is_shown_without_its_secrets(given, shown, name):
    path = to_path(given)
    assert isinstance(path, RemotePath)
    assert (str(path), path.name) == (shown, name)
    assert "pw" not in f"{path} {path!r}"
    for other in (pickle.loads(pickle.dumps(path)), copy.deepcopy(path), to_path(text_of(path))):
        assert other == path
        assert text_of(other) == text_of(path)


def test_a_name_below_a_url_keeps_its_query():
    path = to_path("https://host/data?token=1") / "dataset.json"
    assert text_of(path) == "https://host/data/dataset.json?token=1"
    assert text_of(to_path("s3://bucket/data/") / "dataset.json") == "s3://bucket/data/dataset.json"


@pytest.mark.parametrize("given", ["a.csv", "C:/a.csv", "s3:bucket", "/s3://bucket", Path("a/s3:/b"), "a:b/c"])
def test_other_texts_are_local_paths(given):
    assert to_path(given) == Path(given)


@pytest.mark.parametrize(
    "given", ["ftp://host/a", "file:///a", "s3://", "https://", "https://:80/a", "http://host:x/a"]
)
def test_a_url_that_cannot_be_read_is_refused(given):
    with pytest.raises(ConfigurationError, match=r"is not read|names no"):
        to_path(given)


def test_settings_take_urls_to_read_and_refuse_urls_to_write():
    assert TrainConfig(data="s3://bucket/data", run="r").data == to_path("s3://bucket/data")
    config = PrepareConfig(train=("https://host/a.csv?sig=pw",), out="o")
    assert text_of(config.train[0]) == "https://host/a.csv?sig=pw"
    with pytest.raises(ConfigurationError, match=r"--run is s3://bucket/run, but it must be a path of this machine"):
        TrainConfig(data="d", run="s3://bucket/run")
    with pytest.raises(ConfigurationError, match=r"--out is s3://bucket/data, but it must be a path of this machine"):
        PrepareConfig(train=("a.csv",), out="s3://bucket/data")
