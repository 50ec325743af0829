"""Checks of other hosts: ssh without a question, and equal clocks.

Decides: which clocks differ too much. Never: changes anything on another host.

    check_host("node2")
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import time

from distrain.cluster.other_program import answer_of
from distrain.doctor.finding import Finding
from distrain.errors import ConfigurationError

SSH = "ssh -o BatchMode=yes -o ConnectTimeout=10"  # as launch/multi_node.sh
SSH_SECONDS = 30.0
MAX_SKEW_SECONDS = 5.0  # events of two hosts are still in order, and certificates and shared file systems work


def host_names(text: str) -> list[str]:
    """Return the hosts of a list such as "a,b:2", as multi_node.sh takes it.

    Raises:
        ConfigurationError: a name is no host.
    """
    hosts = text.split(",")
    for host in hosts:
        # ssh would take a host with a leading dash for an option.
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*(:[1-9][0-9]{0,2})?", host):
            raise ConfigurationError(f"--hosts holds {host!r}, but it must be host names with commas between: a,b")
    return [host.partition(":")[0] for host in hosts]


def check_host(host: str) -> Finding:
    """Log in to a host, and compare its clock with the clock here."""
    ssh = os.environ.get("DISTRAIN_SSH", SSH)
    cure = f"run once by hand: {ssh.split()[0]} {host}; accept the host key, and copy your key by ssh-copy-id"
    began = time.time()
    try:
        done = answer_of([*shlex.split(ssh), host, "date +%s.%N"], seconds=SSH_SECONDS)
    except subprocess.TimeoutExpired:
        return Finding.error(f"ssh does not answer within {SSH_SECONDS:g} s", cure)
    except OSError as error:
        return Finding.error(f"ssh cannot be started ({error.strerror})", "install an ssh client")
    ended = time.time()
    told = re.search(r"^(\d{9,11}\.\d+)$", done.stdout, re.MULTILINE)
    if done.returncode != 0 or told is None:
        words = (done.stderr or done.stdout).strip().rpartition("\n")[2] or f"exit code {done.returncode}"
        return Finding.error(f"ssh fails: {words[:120]}", cure)
    theirs = float(told[1])
    skew = max(began - theirs, theirs - ended, 0.0)  # the clock was read between the two
    if skew > MAX_SKEW_SECONDS:
        return Finding.warning(
            f"ssh works, but its clock differs by {skew:,.0f} s", "run a time service such as chrony"
        )
    return Finding.ok("ssh works, and its clock agrees")
