"""The commands that train: `train` and `replay`.

Decides: their options, their output, and how a process among many ends. Never: trains.

    $ distrain train --data data --run runs/1 --epochs 10
    $ distrain replay --run runs/1 --step 1200
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distrain.cli.machine_faults import in_a_sentence
from distrain.cli.options import add_settings, given_settings, input_path, local_path
from distrain.config import TrainConfig, train_config
from distrain.errors import ConfigurationError
from distrain.file_names import REPORT_NAME
from distrain.files import describe
from distrain.reporting.error_line import world_or_alone

_LOG = logging.getLogger(__name__)


def add_train(commands: Any) -> None:
    """Add `distrain train`."""
    command = commands.add_parser("train", help="train a model")
    add_settings(command, TrainConfig, may_be_missing=True)
    command.add_argument(
        "--config",
        type=local_path,
        metavar="FILE.toml",
        help="file of these settings, named as here with _ for -; options of the command line go over the file",
    )
    command.set_defaults(command=_train)


def config_of(options: argparse.Namespace) -> TrainConfig:
    """Make the configuration that parsed options ask for."""
    return train_config(given_settings(options, TrainConfig), options.config)


def _train(options: argparse.Namespace) -> None:
    from distrain.cluster.signals import listen_for_stop
    from distrain.reporting.boot_clock import process_began
    from distrain.training.run import train

    stop = options.stop or listen_for_stop()  # before the slow imports, so that no request to stop is lost
    config = config_of(options)
    with _as_rank(options):
        summary = train(config, stop=stop, started_at=process_began())
    if world_or_alone().rank == 0:
        _print_result(config, summary)
    _end_rank()


def add_replay(commands: Any) -> None:
    """Add `distrain replay`."""
    command = commands.add_parser(
        "replay", help="train one step of a run again, print its figures and digests as JSON; writes nothing"
    )
    command.add_argument("--run", type=local_path, required=True, metavar="RUN", help="run directory")
    command.add_argument("--step", type=int, required=True, metavar="S", help="step over all epochs, from 1")
    command.add_argument(
        "--data",
        type=input_path,
        metavar="DATA",
        help="data that the run was trained on (default: the data that it names)",
    )
    command.add_argument(
        "--devices", metavar="DEVICES", help="devices of this process, as of train (default: those of the run)"
    )
    command.add_argument(
        "--trust", action="store_true", help="import and call the functions that the run names as --model and --data"
    )
    command.set_defaults(command=_replay, prints_result=True)


def _replay(options: argparse.Namespace) -> None:
    from distrain.cluster.signals import listen_for_stop
    from distrain.training.replay import replay_step

    if options.step < 1:
        raise ConfigurationError(f"--step is {options.step}, but it must be at least 1.")
    stop = options.stop or listen_for_stop()
    with _as_rank(options):
        given = {"data": options.data, "devices": options.devices, "trust": options.trust}
        figures = replay_step(options.run, options.step, **given, stop=stop)
    if world_or_alone().rank == 0:
        print(json.dumps(figures), flush=True)
    _end_rank()


@contextmanager
def _as_rank(options: argparse.Namespace) -> Iterator[None]:
    """End a process among many at once if the block raises."""
    from distrain.cluster.signals import ignore_stop
    from distrain.training.process_end import end_at_once

    try:
        yield
    except Exception as error:
        if world_or_alone().size > 1:
            end_at_once(in_a_sentence(error, options.run))
        raise
    finally:
        if options.is_whole_process:
            ignore_stop()  # a launcher may repeat its signal, but everything is saved


def _end_rank() -> None:
    from distrain.training.process_end import end_rank

    if world_or_alone().size > 1:
        end_rank(0)


def _print_result(config: TrainConfig, summary: Mapping[str, Any]) -> None:
    """Print the result, and write the report."""
    are_labels = "micro_f1" in summary
    _print_missed_classes(summary.get("classes", {}), "label" if are_labels else "class")
    accuracy, loss = summary["validation_accuracy"], summary["validation_loss"]
    scores = [] if accuracy is None else [f"accuracy {accuracy:.4f}"]
    if are_labels:
        scores = [f"micro F1 {summary['micro_f1']:.4f}", f"macro F1 {summary['macro_f1']:.4f}"]
    if loss is not None:
        print(f"validation {', '.join([*scores, f'loss {loss:.4f}'])}, in {config.run}")
    _write_report(config.run)
    sys.stdout.flush()  # while BrokenPipeError is still caught


def _write_report(run: Path) -> None:
    """Write the report of a run that has succeeded, whatever becomes of the report."""
    from distrain.reporting.html import page

    try:
        page.write_report([run], run / REPORT_NAME)
    except OSError as error:
        _LOG.warning("%s cannot be written (%s): 'distrain report' writes it later.", REPORT_NAME, describe(error))
    else:
        print(f"report: {run / REPORT_NAME}")


def _print_missed_classes(classes: Mapping[str, Mapping[str, float]], kind: str) -> None:
    """Print the classes or labels of which no validation example is recognized, as accuracy hides them."""
    missed = [name for name, figures in classes.items() if figures["support"] and not figures["recall"]]
    if missed:
        shown = ", ".join(repr(name[:40]) for name in missed[:5]) + (", ..." if len(missed) > 5 else "")
        ways = "--class-weight, or weights of rows" if kind == "class" else "weights of rows"
        print(f"no validation example of {kind} {shown} is recognized: a larger weight may help ({ways})")
