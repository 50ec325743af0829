"""An error on one rank ends the same call on every rank, with one message.

Decides: how an error travels between ranks, and which of several errors all ranks raise. Never: prints an error, or
chooses its exit code (`errors.py`).

    >>> from distrain.cluster.error_relay import run_on_all_ranks
    >>> from distrain.cluster.process_group import SingleProcess
    >>> run_on_all_ranks(SingleProcess(), lambda: "opened")
    'opened'

Of several errors the lowest rank's counts. `run_on_all_ranks` wraps a single action; an `ErrorRelay` serves a block of
code that exchanges bytes itself:

    with relayed_errors(relay):
        relay.all_gather_bytes(read_rows())      # an error of `read_rows` is raised by this call on the other ranks
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NoReturn, TypeVar

from distrain.cluster.process_group import ProcessGroup
from distrain.errors import ERROR_BY_EXIT_CODE, DistrainError

Result = TypeVar("Result")

_CONTENT, _ERROR = b"+", b"-"  # the first byte of what a rank sends


class ErrorRelay(ProcessGroup):
    """A process group whose exchanges raise the error of a rank that failed.

    Args:
        group: carries the bytes.
        end_peers: ends the other processes at once, when a signal interrupts this process.
        reporting_rank: rank that prints a relayed error; None means the rank where the error occurred.
    """

    def __init__(
        self,
        group: ProcessGroup,
        *,
        end_peers: Callable[[], None] = lambda: None,
        reporting_rank: int | None = None,
    ) -> None:
        self.rank, self.size = group.rank, group.size
        self.end_peers = end_peers
        self._group = group
        self._reporting_rank = reporting_rank

    def all_gather_bytes(self, content: bytes) -> list[bytes]:
        """See `ProcessGroup`."""
        received = self._group.all_gather_bytes(_CONTENT + content)
        if failing := _failing_ranks(received):
            raise self._relayed_error(failing[0], received)
        return [each[1:] for each in received]

    def fail(self, error: Exception, *, where: str = "") -> NoReturn:
        """Take part in the next exchange with an error instead of content.

        Args:
            error: why this rank cannot go on.
            where: prefix of the message, as in "step 17: ".

        Raises:
            DistrainError: the error of the lowest failing rank, with class and message equal on every rank.
            Exception: `error` itself, if this rank is the lowest and `error` is a defect.
        """
        code = error.exit_code if isinstance(error, DistrainError) else DistrainError.exit_code
        message = where + (str(error) or type(error).__name__)
        sent = _ERROR + json.dumps({"exit_code": code, "message": message}).encode()
        received = self._group.all_gather_bytes(sent)
        lowest = _failing_ranks(received)[0]
        if lowest == self.rank and not isinstance(error, DistrainError):
            raise error
        raise self._relayed_error(lowest, received) from error

    def _relayed_error(self, rank: int, received: list[bytes]) -> DistrainError:
        relayed = json.loads(received[rank][1:])
        kind = ERROR_BY_EXIT_CODE.get(relayed["exit_code"], DistrainError)
        reporting_rank = rank if self._reporting_rank is None else self._reporting_rank
        return kind(relayed["message"], reporting_rank=reporting_rank)


def run_on_all_ranks(group: ProcessGroup, action: Callable[[], Result], *, where: str = "") -> Result:
    """Run an action that may fail on some ranks; every rank must call this.

    Args:
        group: all ranks.
        action: runs on this rank.
        where: prefix of an error's message, as in "step 17: ".

    Returns:
        The result of `action` on this rank.

    Raises:
        DistrainError: the error of the lowest failing rank, with class and message equal on every rank.
        Exception: this is the lowest failing rank, and `action` raised a defect.
    """
    relay = ErrorRelay(group)
    try:
        result = action()
    except Exception as error:
        relay.fail(error, where=where)
    relay.barrier()
    return result


@contextmanager
def relayed_errors(group: ProcessGroup) -> Iterator[None]:
    """Relay an error of the block to the other ranks, unless the relay itself raised the error.

    A signal ends the other ranks at once, because they wait in an exchange. A group without a relay changes nothing.
    """
    try:
        yield
    except BaseException as raised:
        # A signal that arrives while a compiled kernel returns its result is wrapped in a SystemError.
        inner: BaseException | None = raised
        while isinstance(inner, SystemError):
            inner = inner.__cause__ or inner.__context__
        error = inner if isinstance(inner, KeyboardInterrupt | SystemExit) else raised
        if isinstance(group, ErrorRelay):
            if not isinstance(error, Exception):
                group.end_peers()
            elif getattr(error, "reporting_rank", None) is None:
                group.fail(error)
        raise error from error.__cause__


def _failing_ranks(received: list[bytes]) -> list[int]:
    return [rank for rank, content in enumerate(received) if content[:1] == _ERROR]
