"""A fusion of the user's own, which makes the order of sums depend on time, is told."""

from __future__ import annotations

import pytest

pytest.importorskip("horovod")

from distrain.distribution.collectives.horovod import _warn_of_fusion


@pytest.mark.parametrize(
    ("environ", "named"),
    [
        ({}, ()),
        ({"HOROVOD_FUSION_THRESHOLD": "0", "HOROVOD_AUTOTUNE": "0"}, ()),
        ({"HOROVOD_FUSION_THRESHOLD": "", "HOROVOD_AUTOTUNE": "false"}, ()),  # 0 to Horovod, which reads numbers
        ({"HOROVOD_FUSION_THRESHOLD": "67108864"}, ("HOROVOD_FUSION_THRESHOLD=67108864",)),
        ({"HOROVOD_AUTOTUNE": "1"}, ("HOROVOD_AUTOTUNE=1",)),
    ],
)
def test_a_fusion_of_the_users_own_is_told(environ, named, caplog):
    _warn_of_fusion(environ)
    assert len(caplog.messages) == len(named)
    assert all(name in caplog.text for name in named)
