"""What tests of shared memory share: ranks that soon sleep."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from distrain.distribution.collectives import shared_memory


@pytest.fixture(scope="module", autouse=True)
def few_polls() -> Iterator[None]:
    """Let a waiting rank sleep after few polls: ranks are threads here, and each poll takes the lock from another."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_memory, "SPINS", 20)
        yield
