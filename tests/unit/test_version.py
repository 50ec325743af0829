"""The version stands in distrain/version.py alone; the project's metadata reads it from there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import distrain
from distrain.version import __version__

PROJECT = Path(distrain.__file__).parents[1] / "pyproject.toml"


def test_the_project_reads_its_version_from_the_module():
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "distrain.version.__version__"}


def test_the_package_has_the_version():
    assert distrain.__version__ == __version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
