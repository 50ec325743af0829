"""The examples in docstrings run, and give what they show."""

from __future__ import annotations

import doctest
import importlib
import linecache
from pathlib import Path

import pytest

import distrain

PACKAGE = Path(distrain.__file__).parent
SOURCES = {path: path.read_text(encoding="utf-8") for path in sorted(PACKAGE.rglob("*.py"))}
WITH_EXAMPLES = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")
    for path, source in SOURCES.items()
    if ">>> " in source
]


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_the_examples_give_what_they_show(module):
    linecache.clearcache()  # for each docstring, doctest looks whether any file in it changed
    failed, attempted = doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS)
    assert (failed, attempted > 0) == (0, True)
