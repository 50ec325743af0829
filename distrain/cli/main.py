"""Entry of the command `distrain`: parse the command line, run one command, return its exit code.

Decides: which errors end a command, and with which exit code. Never: does any of the work.

    $ distrain prepare --train train.csv --test test.csv --out data
    $ distrain train --data data --run runs/1

An error that a user can mend ends with one line on standard error and the exit code of `errors.py`.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence

from distrain.cli import data_commands, doctor_command, install_command, run_commands, train_command, verify_command
from distrain.cli.machine_faults import in_a_sentence
from distrain.cli.options import Formatter, Parser, exit_code_table
from distrain.cli.streams import StandardOutput, drop_output
from distrain.cluster.signals import StopRequest
from distrain.config import TrainConfig
from distrain.errors import ConfigurationError, DistrainError
from distrain.reporting.error_line import print_error, world_or_alone
from distrain.reporting.logs import LEVELS, log_to_stderr
from distrain.version import __version__

_LOG = logging.getLogger(__name__)


def main(
    arguments: Sequence[str] | None = None, *, stop: StopRequest | None = None, output: StandardOutput | None = None
) -> int:
    """Run one command and return its exit code.

    Args:
        arguments: words after `distrain`; default: the words that this process got.
        stop: request to stop, if this process listens already.
        output: standard output, if this process guards it.
    """
    options = argparse.Namespace(stop=stop, is_whole_process=arguments is None)
    try:
        make_parser().parse_args(arguments, options)
        if output is not None:
            output.is_needed = options.prints_result
        world = world_or_alone()
        with log_to_stderr(options.log_level, rank=world.rank):
            _LOG.debug("distrain %s, %s", __version__, world)
            options.command(options)
        sys.stdout.flush()  # while BrokenPipeError is still caught
        return 0
    except DistrainError as error:
        print_error(error)
        return error.exit_code
    except BrokenPipeError:  # the reader of standard output is gone, as `head` is after its last line
        drop_output(sys.stdout.fileno())
        if options.may_be_cut or not hasattr(options, "command"):  # the help ends the parsing
            return 0
        print("distrain: error: standard output was closed; send it to a file and start again", file=sys.stderr)
        return ConfigurationError.exit_code
    except OSError as error:
        fault = in_a_sentence(error, getattr(options, "run", None))
        if not isinstance(fault, DistrainError):
            raise
        print_error(fault)
        return fault.exit_code
    except KeyboardInterrupt:
        print("distrain: interrupted; nothing half-written is left", file=sys.stderr)
        return 130


def train_arguments(arguments: Sequence[str]) -> TrainConfig:
    """Return the configuration that `distrain train` with these arguments has.

    Raises:
        ConfigurationError: a setting is wrong.
        SystemExit: an argument is unknown (2, after a line on standard error), or asks for help (0).
    """
    return train_command.config_of(make_parser().parse_args(["train", *arguments]))


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of all commands."""
    parser = Parser(
        prog="distrain",
        description="Exact distributed training for Keras on data larger than memory.",
        epilog=exit_code_table(),
        formatter_class=Formatter,
    )
    parser.add_argument("--version", action="version", version=f"distrain {__version__}")
    parser.set_defaults(
        may_be_cut=False,  # whether a command loses nothing when the reader of its output leaves
        prints_result=False,  # whether the output of a command is its result
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    data_commands.add_synth(commands)
    data_commands.add_prepare(commands)
    train_command.add_train(commands)
    train_command.add_replay(commands)
    run_commands.add_evaluate(commands)
    run_commands.add_predict(commands)
    data_commands.add_plan(commands)
    run_commands.add_report(commands)
    run_commands.add_alive(commands)
    verify_command.add_verify(commands)
    doctor_command.add_doctor(commands)
    install_command.add_install_horovod(commands)
    for command in commands.choices.values():
        command.add_argument(
            "--log-level",
            choices=LEVELS,
            default="warning",
            metavar="|".join(LEVELS),
            help="least severe message to write to standard error (default: %(default)s)",
        )
    return parser
