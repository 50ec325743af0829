"""Other hosts: ssh that fails, hangs or works, and clocks that differ. A script takes the place of ssh."""

from __future__ import annotations

import pytest

from distrain.doctor import hosts
from distrain.errors import ConfigurationError


@pytest.mark.parametrize(
    ("script", "status", "words"),
    [
        ('exec sh -c "$2"', "ok", "its clock agrees"),
        ("date -d '+1 hour' +%s.%N", "warning", "differs by 3,6"),
        ("date -d '-1 hour' +%s.%N", "warning", "differs by 3,"),
        ("echo 'Host key verification failed.' >&2; exit 255", "error", "Host key verification failed."),
        ("echo Welcome; exit 0", "error", "Welcome"),
        ("exec sleep 30", "error", "does not answer within 2 s"),
    ],
)
def test_a_host_is_judged(tmp_path, monkeypatch, script, status, words):
    (tmp_path / "ssh").write_text(f"#!/bin/sh\n[ $1 = node2 ] || exit 99\n{script}\n")
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("DISTRAIN_SSH", str(tmp_path / "ssh"))
    monkeypatch.setattr(hosts, "SSH_SECONDS", 2.0)
    found = hosts.check_host("node2")
    assert found.status == status, found
    assert words in found.message
    assert bool(found.cure) == (status != "ok")


def test_a_machine_without_ssh(monkeypatch):
    monkeypatch.setenv("DISTRAIN_SSH", "/nowhere/ssh")
    assert hosts.check_host("node2").status == "error"


def test_hosts_are_named_as_for_multi_node():
    assert hosts.host_names("a,b.c-d:4") == ["a", "b.c-d"]


@pytest.mark.parametrize("wrong", ["", "a,", "-oProxyCommand=x", "a b", "a:0", "a;b"])
def test_what_is_no_host_is_refused(wrong):
    with pytest.raises(ConfigurationError, match="--hosts"):
        hosts.host_names(wrong)
