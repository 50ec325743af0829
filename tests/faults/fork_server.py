"""Runs commands in forks of one process, which has imported everything and preloads the failing disk.

$ LD_PRELOAD=failing_disk.so python fork_server.py MODULES WARM_UPS

MODULES is a JSON list of what to import. WARM_UPS is a JSON list of commands, as lists of words, that the process
itself runs beforehand. Kernels, patterns, the parser and the made-up language of `distrain` are ready then.

Each line of standard input is a JSON object with the words of a command, variables and a file for its output. Each line
of standard output is the exit code, negative for a signal. The first word "write_a_run" stands for that program, and
other words stand for `distrain`.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import importlib
import json
import os
import signal
import sys
import traceback

import write_a_run

from distrain.__main__ import main as run_distrain
from distrain.cli import main as cli
from distrain.text.synthetic import corpus

TIMEOUT_SECONDS = 120


def run_words(words: list[str]) -> int:
    """Run a command, and return its exit code."""
    if words[0] == "write_a_run":
        return write_a_run.main(*words[1:])
    sys.argv = ["distrain", *words]
    return run_distrain()


def run(words: list[str], variables: dict[str, str], output: str) -> int:
    """Run one command in this process and return its exit code."""
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.environ.update(variables)
    try:
        return run_words(words)
    except SystemExit as error:
        return int(error.code or 0)
    except BaseException:
        traceback.print_exc()
        return 1


def serve() -> None:
    """Fork for each line until standard input ends."""
    for line in sys.stdin:
        child = os.fork()
        if not child:
            signal.alarm(TIMEOUT_SECONDS)
            code = run(**json.loads(line))
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    modules, warm_ups = map(json.loads, sys.argv[1:])
    for module in modules:
        importlib.import_module(module)
    cli.make_parser = functools.cache(cli.make_parser)
    corpus._make_language = functools.cache(corpus._make_language)
    for words in warm_ups:
        with contextlib.redirect_stdout(sys.stderr):
            assert run_words(words) == 0, words
    gc.collect()
    gc.freeze()  # else a collection in a fork would copy all pages
    serve()
