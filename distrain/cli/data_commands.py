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
from typing import TYPE_CHECKING, Any

from distrain.cli.data_plan import is_own_data, print_data_plan
from distrain.cli.options import add_settings, given_settings
from distrain.config import PlanConfig, PrepareConfig, SynthConfig, TrainConfig, settings_of, train_config
from distrain.config.setting import require
from distrain.config.source import PrepareSourceConfig
from distrain.errors import ConfigurationError
from distrain.file_names import METRICS_NAME

if TYPE_CHECKING:
    from distrain.planning.scale_out import MeasuredStep

_LOG = logging.getLogger(__name__)

# The settings of a run that decide what the run takes.
_PLANNED = {
    "data",
    "model",
    "batch_size",
    "global_batch_size",
    "seed",
    "units",
    "embedding",
    "blocks",
    "filters",
    "dropout",
}


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
    command = commands.add_parser("prepare", help="turn labelled text, or data of your own, into a data set on disk")
    add_settings(command, PrepareConfig, may_be_missing=True)
    add_settings(command, PrepareSourceConfig, only={"source"}, may_be_missing=True)
    command.set_defaults(command=_prepare)


def _prepare(options: argparse.Namespace) -> None:
    from distrain.prepare.workers import gathered_group
    from distrain.reporting.console import open_console

    given = given_settings(options, PrepareConfig)
    require("out" in given, "--out", None, "given")
    if options.source is not None:
        of_text = [one.option for one in settings_of(PrepareConfig) if one.name in given.keys() - {"out", "max_rows"}]
        if of_text:
            raise ConfigurationError(
                f"{of_text[0]} is about text, which --source does not read: leave out one of them."
            )
        from distrain.prepare.source import prepare_source

        prepare_source(PrepareSourceConfig(source=options.source, **given), console=open_console())
        return
    require("train" in given, "--train", None, "given, or --source for data of your own")
    config = PrepareConfig(**given)
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
    from distrain.data.prepared.dataset_index import open_dataset
    from distrain.planning.audit import audit
    from distrain.planning.epoch_time import plan_time
    from distrain.planning.outlook import outlook
    from distrain.planning.run_plan import plan_run
    from distrain.planning.scale_out import verdict
    from distrain.planning.table import outlook_table, plan_table
    from distrain.reporting.console import open_console

    asked = PlanConfig(**given_settings(options, PlanConfig))
    config = train_config({**given_settings(options, TrainConfig), "run": "."})
    if is_own_data(config.data):
        print_data_plan(asked, config)
        return
    if config.model is not None:
        raise ConfigurationError("--model is planned for arrays or a function; prepared text has the shipped model.")
    dataset = open_dataset(config.data, verify=asked.audit)
    plan = plan_run(dataset, config, num_replicas=asked.replicas)
    epoch_plan = plan.batches.epoch
    measured = _measured_step(asked, epoch_plan.batch_size)
    time, steps = None, []
    if measured is not None:
        waiting = None
        if asked.link is not None or asked.bandwidth_gbs is not None:
            steps = outlook(plan, config, asked, measured)
            waiting = steps[-1].exposed_seconds
        compute_seconds = measured.compute_seconds(epoch_plan.batch_size)
        time = plan_time(epoch_plan, step_seconds=compute_seconds, all_reduce_seconds=waiting)
    for warning in plan.batches.warnings:
        _LOG.warning(warning)
    console = open_console()
    console.print(plan_table(plan, dataset, time))
    if len(steps) > 1:
        console.print(outlook_table(steps))
        console.print(verdict(steps), highlight=False)
    if asked.audit:
        for epoch in (0, 1):
            audit(epoch_plan, seed=config.seed, epoch=epoch, console=console)
        console.print(
            f"Audit: in epochs 1 and 2 each of {epoch_plan.num_examples:,} examples is read exactly once.",
            highlight=False,
        )


def _measured_step(asked: PlanConfig, batch_size: int) -> MeasuredStep | None:
    """Return the step that was measured or given; None without one.

    Args:
        asked: what the command asks for.
        batch_size: examples per replica of the plan.
    """
    from distrain.planning.epoch_time import measured_step_seconds
    from distrain.planning.scale_out import FLOOR_SECONDS, MeasuredStep
    from distrain.runs.manifest import check_files

    floor = FLOOR_SECONDS if asked.floor_ms is None else asked.floor_ms / 1000
    if asked.step_ms is not None:
        return MeasuredStep(asked.step_ms / 1000, batch_size, floor)
    if asked.measured_run is None:
        return None
    check_files(asked.measured_run, METRICS_NAME)
    predicts = asked.link is not None or asked.bandwidth_gbs is not None
    seconds, measured = measured_step_seconds(
        asked.measured_run, batch_size=None if predicts else batch_size, without_communication=predicts
    )
    return MeasuredStep(seconds, measured, floor)
