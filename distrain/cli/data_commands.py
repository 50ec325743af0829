"""The commands about data: `synth` writes text, `prepare` makes a data set, `plan` predicts a run on one.

Decides: options and output of these commands. Never: reads or writes data itself.

    $ distrain synth --out text --rows 100000
    $ distrain prepare --train text/train.csv --test text/test.csv --out data
    $ distrain plan --data data --replicas 8
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import asdict
from typing import Any

from distrain.cli.options import add_settings, given_settings
from distrain.config import PlanConfig, PrepareConfig, SynthConfig, TrainConfig, train_config
from distrain.file_names import METRICS_NAME

_LOG = logging.getLogger(__name__)

# The settings of a run that decide what the run takes.
_PLANNED = {"data", "batch_size", "global_batch_size", "seed", "units", "embedding", "blocks", "filters", "dropout"}


def add_synth(commands: Any) -> None:
    """Add `distrain synth`."""
    command = commands.add_parser("synth", help="write labelled artificial text of any size")
    add_settings(command, SynthConfig)
    command.set_defaults(command=_synth, may_be_cut=True)


def _synth(options: argparse.Namespace) -> None:
    from distrain.text.synthetic.corpus import write_synthetic

    config = SynthConfig(**given_settings(options, SynthConfig))
    write_synthetic(**asdict(config))
    print(f"{config.rows:,} training rows of {config.classes} classes in {config.out}")


def add_prepare(commands: Any) -> None:
    """Add `distrain prepare`."""
    command = commands.add_parser("prepare", help="turn labelled text into a data set on disk")
    add_settings(command, PrepareConfig)
    command.set_defaults(command=_prepare)


def _prepare(options: argparse.Namespace) -> None:
    from distrain.prepare.workers import gathered_group
    from distrain.reporting.console import open_console

    config = PrepareConfig(**given_settings(options, PrepareConfig))
    with gathered_group(config) as group:
        from distrain.prepare.pipeline import prepare  # imported here, while other processes start

        prepare(config, console=open_console(), group=group)


def add_plan(commands: Any) -> None:
    """Add `distrain plan`."""
    command = commands.add_parser("plan", help="predict what a run on N replicas takes, before it is started")
    add_settings(command, PlanConfig)
    add_settings(command, TrainConfig, only=_PLANNED)
    command.set_defaults(command=_plan, may_be_cut=True, prints_result=True)


def _plan(options: argparse.Namespace) -> None:
    from distrain.data.dataset_index import open_dataset
    from distrain.planning.audit import audit
    from distrain.planning.run_plan import plan_run
    from distrain.planning.step_time import measured_step_seconds, plan_time
    from distrain.planning.table import plan_table
    from distrain.reporting.console import open_console
    from distrain.runs.manifest import check_files

    asked = PlanConfig(**given_settings(options, PlanConfig))
    config = train_config({**given_settings(options, TrainConfig), "run": "."})
    dataset = open_dataset(config.data, verify=asked.audit)
    plan = plan_run(dataset, config, num_replicas=asked.replicas)
    bandwidth = None if asked.bandwidth_gbs is None else asked.bandwidth_gbs * 1e9
    time = None
    if asked.measured_run is not None:
        check_files(asked.measured_run, METRICS_NAME)
        step_seconds = measured_step_seconds(
            asked.measured_run, batch_size=plan.batch_size, without_communication=bandwidth is not None
        )
        time = plan_time(plan, step_seconds=step_seconds, bytes_per_second=bandwidth)
    elif asked.step_ms is not None:
        time = plan_time(plan, step_seconds=asked.step_ms / 1000, bytes_per_second=bandwidth)
    for warning in plan.warnings:
        _LOG.warning(warning)
    console = open_console()
    console.print(plan_table(plan, dataset, time))
    if asked.audit:
        for epoch in (0, 1):
            audit(plan, seed=config.seed, epoch=epoch, console=console)
        console.print(
            f"Audit: in epochs 1 and 2 each of {plan.num_examples:,} examples is read exactly once.", highlight=False
        )
