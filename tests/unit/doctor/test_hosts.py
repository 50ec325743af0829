"""How a list of hosts is written."""

from __future__ import annotations

import pytest

from distrain.doctor import hosts
from distrain.errors import ConfigurationError


def test_hosts_are_named_as_for_multi_node():
    assert hosts.host_names("a,b.c-d:4") == ["a", "b.c-d"]


@pytest.mark.parametrize("wrong", ["", "a,", "-oProxyCommand=x", "a b", "a:0", "a;b"])
def test_what_is_no_host_is_refused(wrong):
    with pytest.raises(ConfigurationError, match="--hosts"):
        hosts.host_names(wrong)
