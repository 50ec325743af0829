"""One warning for all failed writes of a file that a run does not need.

Decides: that training goes on, and that a full disk does not fill standard error as well. Never: writes.

    >>> warn = WriteWarning("metrics.jsonl")
    >>> warn("No space left on device")     # logs a warning
    >>> warn("No space left on device")     # says nothing
"""

from __future__ import annotations

import logging

_LOG = logging.getLogger(__name__)


class WriteWarning:
    """Logs the first of several failures.

    Args:
        what: what cannot be written.
        action: what fails, as in "metrics.jsonl cannot be written".
    """

    def __init__(self, what: str, *, action: str = "written") -> None:
        self._what, self._action = what, action
        self._has_warned = False

    def __call__(self, reason: str) -> None:
        """Log a warning, unless one was logged before."""
        if not self._has_warned:
            _LOG.warning(
                "%s cannot be %s (%s). Training goes on, and later writes try again.", self._what, self._action, reason
            )
        self._has_warned = True
