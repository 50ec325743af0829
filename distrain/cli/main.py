"""Commands -> one function call each.

Decides: what a user types and reads. Never: does any of the work.

    $ distrain prepare --train train.csv --test test.csv --out data
    $ distrain train --data data --run runs/1

Errors that a user can mend end with one line on standard error and the exit code of `errors.py`.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distrain import __version__
from distrain.cluster.world import World, find_world
from distrain.errors import ConfigurationError, DataError, DistrainError, StopRequested
from distrain.reporting.logs import LEVELS, log_to_stderr

if TYPE_CHECKING:
    from distrain.config import TrainConfig


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    options = _parser().parse_args(arguments)
    try:
        with log_to_stderr(options.log_level, rank=_world().rank):
            code = options.command(options) or 0
        sys.stdout.flush()  # here, where a reader that has left is no error
        return code
    except DistrainError as error:
        _tell(error)
        return error.exit_code
    except BrokenPipeError:  # the reader of our output has left, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if options.may_be_cut:
            return 0
        print("distrain: error: standard output was closed; send it to a file and start again", file=sys.stderr)
        return ConfigurationError.exit_code
    except KeyboardInterrupt:
        print("distrain: interrupted; nothing half-written is left", file=sys.stderr)
        return 130


def _world() -> World:
    try:
        return find_world(os.environ)
    except ConfigurationError:  # which is an error of its own, elsewhere
        return World()


def _tell(error: DistrainError) -> None:
    """Print an error, unless it is another rank that tells of it."""
    world = _world()
    if error.reporting_rank is None or error.reporting_rank == world.rank:
        rank = f"rank {world.rank}: " if world.size > 1 else ""
        kind = "stopped" if isinstance(error, StopRequested) else "error"
        notes = getattr(error, "__notes__", [])  # where it happened, if it reached the other ranks
        print(f"distrain: {kind}: {rank}{' '.join([str(error), *notes])}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="distrain",
        description="Exact distributed training for Keras on data larger than memory.",
        epilog="Exit codes: 0 done, 2 wrong command or setting, 3 wrong or damaged data, 4 unusable checkpoint or run, "
        "5 ranks disagree, 6 training diverged, 42 stopped on request with everything saved.",
    )
    parser.add_argument("--version", action="version", version=f"distrain {__version__}")
    parser.set_defaults(may_be_cut=False)  # True where nothing is lost when the reader of the output leaves
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_synth(commands)
    _add_prepare(commands)
    _add_train(commands)
    _add_evaluate(commands)
    _add_predict(commands)
    _add_plan(commands)
    _add_report(commands)
    _add_alive(commands)
    for command in commands.choices.values():
        command.add_argument(
            "--log-level",
            choices=LEVELS,
            default="warning",
            help="least severe messages on standard error (default: warning)",
        )
    return parser


def _add_synth(commands: Any) -> None:
    command = commands.add_parser("synth", help="write labelled made-up text of any size")
    command.add_argument("--out", type=Path, required=True, help="folder for train.csv and test.csv")
    command.add_argument("--rows", type=int, required=True, help="training rows")
    command.add_argument("--classes", type=int, default=4, help="classes (default: %(default)s)")
    command.add_argument("--words-per-row", type=int, default=40, help="mean words a row (default: %(default)s)")
    command.add_argument("--seed", type=int, default=0, help="the same seed writes the same text (default: 0)")
    command.set_defaults(command=_synth, may_be_cut=True)


def _synth(options: argparse.Namespace) -> None:
    from distrain.text.synthetic.corpus import write_synthetic

    write_synthetic(
        options.out,
        rows=options.rows,
        classes=options.classes,
        words_per_row=options.words_per_row,
        seed=options.seed,
    )
    print(f"{options.rows:,} training rows of {options.classes} classes in {options.out}")


def _add_prepare(commands: Any) -> None:
    command = commands.add_parser("prepare", help="text to vectorized shards on disk")
    command.add_argument(
        "--train", type=Path, required=True, help="CSV, TSV, JSON Lines, Parquet, or a folder per class"
    )
    command.add_argument("--test", type=Path, help="the same for the test rows; else a share of the training rows")
    command.add_argument("--out", type=Path, required=True, help="folder for the prepared data")
    command.add_argument("--dataset", help="ag_news, dbpedia, yelp_polarity, yelp_full, amazon_polarity or amazon_full")
    command.add_argument("--vectorizer", choices=("auto", "ngram", "sequence"), default="auto", help="(default: auto)")
    command.add_argument("--top-k", type=int, default=20_000, help="n-grams or words kept (default: 20000)")
    command.add_argument("--label-column", help="name or number (from 0) of the label column")
    command.add_argument("--text-columns", help="names or numbers of the text columns, with commas between")
    command.add_argument(
        "--max-length", type=int, default=500, help="words kept of a row, for sequences (default: 500)"
    )
    command.add_argument("--holdout", type=float, default=0.1, help="share held out without --test (default: 0.1)")
    command.add_argument("--seed", type=int, default=0, help="chooses the held-out rows (default: 0)")
    command.add_argument("--memory-mib", type=int, default=1024, help="bound on memory used, in MiB (default: 1024)")
    command.add_argument("--workers", type=int, help="processes (default: one a core, at most 8; with little text one)")
    command.set_defaults(command=_prepare)


def _prepare(options: argparse.Namespace) -> None:
    from distrain.config import PrepareConfig
    from distrain.prepare.workers import gathered_group
    from distrain.reporting.terminal import open_console

    settings = {
        name: value for name, value in vars(options).items() if name not in ("command", "may_be_cut", "log_level")
    }
    if options.text_columns is not None:
        settings["text_columns"] = tuple(options.text_columns.split(","))
    config = PrepareConfig(**settings)
    with gathered_group(config) as team:
        from distrain.prepare.pipeline import prepare  # while other processes start

        prepare(config, console=open_console(), group=team)


def _add_train(commands: Any) -> None:
    command = commands.add_parser("train", help="train a model", argument_default=None)
    command.add_argument("--data", help="prepared data, or a folder of arrays")
    command.add_argument("--run", help="the run directory")
    command.add_argument("--config", type=Path, help="a TOML file of these settings; the command line goes over it")
    command.add_argument("--strategy", help="auto, single, mirrored, horovod or mpi (default: auto)")
    command.add_argument(
        "--devices", help="cpu:N for N logical CPU devices, or gpu:0,1 (default: all GPUs, else the CPU)"
    )
    command.add_argument("--model", help="package.module:build_model, for a model of your own")
    _add_batch_sizes(command)
    command.add_argument(
        "--accumulation-steps", type=int, metavar="K", help="batches a replica takes for one update (default: 1)"
    )
    command.add_argument(
        "--steps-per-execution", type=int, metavar="K", help="steps taken in one call into TensorFlow (default: 1)"
    )
    command.add_argument("--compression", help="none, or fp16: gradients travel in half precision (default: none)")
    command.add_argument("--epochs", type=int, help="the most epochs (default: 100)")
    command.add_argument(
        "--patience", type=int, help="epochs without a lower validation loss to stop after (default: 2)"
    )
    command.add_argument("--learning-rate", type=float, help="of Adam (default: 0.001)")
    command.add_argument("--seed", type=int, help="of weights, order and dropout (default: 0)")
    command.add_argument("--resume", metavar="auto|never|PATH", help="where to go on from (default: auto)")
    command.add_argument("--checkpoint-every", type=int, metavar="STEPS", help="also save each so many steps")
    command.add_argument("--keep", type=int, help="newest checkpoints kept besides the best (default: 2)")
    _add_model_sizes(command)
    command.add_argument(
        "--prometheus", metavar="FILE.prom", help="keep the run's status there too, for a textfile collector"
    )
    command.add_argument("--no-jit", dest="jit_compile", action="store_const", const=False, help="do not use XLA")
    command.set_defaults(command=_train)


def _add_batch_sizes(command: Any) -> None:
    command.add_argument("--batch-size", type=int, metavar="B", help="examples per replica and step")
    command.add_argument("--global-batch-size", type=int, metavar="G", help="examples per step in all (default: 128)")


def _add_model_sizes(command: Any) -> None:
    command.add_argument("--units", type=int, help="hidden width of the n-gram model (default: 64)")
    command.add_argument("--embedding", type=int, help="word vector width of the sequence model (default: 200)")
    command.add_argument("--blocks", type=int, help="its convolution blocks (default: 2)")
    command.add_argument("--filters", type=int, help="its filters (default: 64)")
    command.add_argument("--dropout", type=float, help="share dropped (default: 0.4 for n-grams, 0.2 for sequences)")


def _train_config(options: argparse.Namespace, **defaults: Any) -> TrainConfig:
    from distrain.config import train_config

    others = {
        "command",
        "may_be_cut",
        "log_level",
        "config",
        "replicas",
        "audit",
        "measured_run",
        "step_ms",
        "bandwidth_gbs",
    }
    settings = {name: value for name, value in vars(options).items() if name not in others}
    return train_config({**defaults, **settings}, getattr(options, "config", None))


def train_arguments(arguments: Sequence[str]) -> TrainConfig:
    """What `distrain train` with these arguments would do.

    Raises:
        ConfigurationError: a setting is wrong.
        SystemExit: an argument is wrong, with 2 and after a word on standard error; or asks for help, with 0.
    """
    return _train_config(_parser().parse_args(["train", *arguments]))


def _train(options: argparse.Namespace) -> None:
    from distrain.cluster.signals import ignore_stop, listen_for_stop
    from distrain.reporting.process_time import process_began
    from distrain.training.run import train

    stop = listen_for_stop()  # before the slow imports, and to the end: a request is never lost
    config = _train_config(options)
    try:
        summary = train(config, stop=stop, started_at=process_began())
    except Exception as error:
        if _world().size > 1:
            _end_at_once(error)
        raise
    if _world().size > 1:
        ignore_stop()  # Python gives the handlers back before the process ends
    if find_world(os.environ).rank > 0:
        return
    accuracy = summary["validation_accuracy"]
    if accuracy is not None:
        print(f"validation accuracy {accuracy:.4f}, loss {summary['validation_loss']:.4f}, in {config.run}")
    _write_report([config.run], config.run / "report.html")


def _end_at_once(error: Exception) -> None:
    """End one of many processes without what Python does at a normal exit.

    That takes seconds with TensorFlow, and launchers that pass on a request to stop wait for five at most; and it would
    wait for the other processes, which are gone where they did not agree to leave.
    """
    from distrain.cluster.signals import ignore_stop
    from distrain.distribution.choose import leave

    code = DistrainError.exit_code
    if isinstance(error, DistrainError):
        _tell(error)
        code = error.exit_code
        if error.reporting_rank is not None:
            ignore_stop()
            leave()
    else:
        traceback.print_exception(error)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _add_evaluate(commands: Any) -> None:
    command = commands.add_parser("evaluate", help="metrics of the best checkpoint on the test part, as JSON")
    command.add_argument("--run", type=Path, required=True, help="the run directory")
    command.add_argument("--data", type=Path, required=True, help="the prepared data it was trained on")
    command.set_defaults(command=_evaluate, may_be_cut=True)


def _evaluate(options: argparse.Namespace) -> None:
    from distrain.inference.evaluate import evaluate_run

    print(json.dumps(evaluate_run(options.run, options.data)))


def _add_predict(commands: Any) -> None:
    command = commands.add_parser("predict", help="one text a line in, one JSON object a line out")
    command.add_argument("--run", type=Path, required=True, help="the run directory; nothing else is needed")
    command.add_argument("file", nargs="?", type=Path, help="texts, one a line (default: standard input)")
    command.set_defaults(command=_predict, may_be_cut=True)


def _predict(options: argparse.Namespace) -> None:
    from distrain.inference.predict import predict_lines

    for line in predict_lines(options.run, _text_lines(options.file)):
        print(line)


def _text_lines(path: Path | None) -> Iterator[str]:
    try:
        with path.open("rb") if path else open(0, "rb", closefd=False) as file:
            for line in file:
                yield line.decode("utf-8", "replace").rstrip("\r\n")
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from None


def _add_plan(commands: Any) -> None:
    command = commands.add_parser("plan", help="what a run takes on N replicas, before it is started")
    command.add_argument("--data", required=True, help="prepared data")
    command.add_argument("--replicas", type=int, required=True, metavar="N", help="copies of the model")
    command.add_argument("--audit", action="store_true", help="walk an epoch and prove that every example is read once")
    command.add_argument("--seed", type=int, help="of the order (default: 0)")
    step = command.add_mutually_exclusive_group()
    step.add_argument("--step-ms", type=float, metavar="MS", help="measured time of a step: predict an epoch's")
    step.add_argument("--run", dest="measured_run", type=Path, metavar="RUN", help="take it from this run")
    command.add_argument(
        "--bandwidth-gbs", type=float, metavar="GBS", help="bandwidth of a replica in each direction, 10^9 bytes/s"
    )
    _add_batch_sizes(command)
    _add_model_sizes(command)
    command.set_defaults(command=_plan, may_be_cut=True)


def _plan(options: argparse.Namespace) -> None:
    from distrain.data.dataset_index import open_dataset
    from distrain.planning.audit import audit
    from distrain.planning.run_plan import plan_run
    from distrain.planning.step_time import measured_step_seconds, plan_time
    from distrain.planning.table import plan_table
    from distrain.reporting.terminal import open_console

    if options.replicas < 1:
        raise ConfigurationError(f"--replicas is {options.replicas}, but it must be at least 1.")
    config = _train_config(options, run=".")
    dataset = open_dataset(config.data, verify=False)
    plan = plan_run(dataset, config, num_replicas=options.replicas)
    time = None
    if options.step_ms is not None or options.measured_run is not None:
        bandwidth = options.bandwidth_gbs and options.bandwidth_gbs * 1e9
        if options.measured_run is None:
            step_seconds = options.step_ms / 1000
        else:
            step_seconds = measured_step_seconds(
                options.measured_run, batch_size=plan.batch_size, without_communication=bandwidth is not None
            )
        time = plan_time(plan, step_seconds=step_seconds, bytes_per_second=bandwidth)
    elif options.bandwidth_gbs is not None:
        raise ConfigurationError("--bandwidth-gbs needs the time of a step: give --step-ms, or --run of a run.")
    for warning in plan.warnings:
        logging.getLogger(__name__).warning(warning)
    console = open_console()
    console.print(plan_table(plan, dataset, time))
    if options.audit:
        for epoch in (0, 1):
            audit(plan, seed=config.seed, epoch=epoch, console=console)
        console.print(
            f"Audit: in epochs 1 and 2 each of {plan.num_examples:,} examples is read exactly once.", highlight=False
        )


def _add_report(commands: Any) -> None:
    command = commands.add_parser("report", help="report.html of one run, or of several side by side")
    command.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories")
    command.add_argument("--out", type=Path, help="the file to write (default: report.html in the first run)")
    command.set_defaults(command=_report, may_be_cut=True)


def _report(options: argparse.Namespace) -> None:
    _write_report(options.runs, options.out or options.runs[0] / "report.html")


def _add_alive(commands: Any) -> None:
    command = commands.add_parser("alive", help="whether a run shows signs of life: for a liveness probe")
    command.add_argument("--run", type=Path, required=True, help="the run directory")
    command.add_argument(
        "--within", type=float, default=300, metavar="SECONDS", help="since the last sign (default: %(default)s)"
    )
    command.set_defaults(command=_alive, may_be_cut=True)


def _alive(options: argparse.Namespace) -> None:
    from distrain.reporting.liveness import sign_of_life

    if not options.within > 0:
        raise ConfigurationError(f"--within is {options.within:g}, but it must be above 0 seconds.")
    print(sign_of_life(options.run, within=options.within))


def _write_report(runs: Sequence[Path], out: Path) -> None:
    from distrain.reporting.html.page import write_report

    write_report(runs, out)
    print(f"report: {out}")
