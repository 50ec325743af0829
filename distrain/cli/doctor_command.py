"""The command `distrain doctor`: what this machine can run, and the cure of each fault.

Decides: its options, its output and its exit code. Never: checks anything itself.

    $ distrain doctor --hosts node2,node3
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distrain.errors import ConfigurationError


def add_doctor(commands: Any) -> None:
    """Add `distrain doctor`."""
    command = commands.add_parser("doctor", help="check what this machine can run, with the cure of each fault")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    command.add_argument("--hosts", metavar="HOST,...", help="other hosts, to check ssh and clocks")
    command.add_argument(
        "--dir", type=Path, default=Path(), metavar="DIR", help="folder of your runs, whose disk is tried (default: .)"
    )
    command.set_defaults(command=_doctor, may_be_cut=True, prints_result=True)


def _doctor(options: argparse.Namespace) -> None:
    from distrain.doctor.examine import examine
    from distrain.doctor.hosts import host_names

    findings = examine(options.dir, host_names(options.hosts) if options.hosts is not None else ())
    errors = [finding.name for finding in findings if finding.status == "error"]
    if options.json:
        print(json.dumps({"ok": not errors, "checks": [asdict(finding) for finding in findings]}))
    else:
        for finding in findings:
            cure = f". Cure: {finding.cure}" if finding.cure else ""
            print(f"{finding.status:<9}{finding.name}: {finding.message}{cure}")
    if errors:
        where = "above" if not options.json else 'under "cure"'
        raise ConfigurationError(f"training cannot work here: {', '.join(errors)}. The cures stand {where}.")
