"""What holds for unit tests: none starts a process."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def _no_process() -> Iterator[None]:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a unit test started a process; such tests are at home in tests/system")

    platform.processor()  # h5py asks for it when it is imported; Python starts `uname` for the answer, once
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subprocess.Popen, "__init__", refuse)
        patch.setattr(os, "fork", refuse)
        yield
