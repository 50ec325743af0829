"""How a call is refused, for programs that write what happened.

refusal(lambda: model.fit(batches))          # ["ConfigurationError", 2, "..."], or None
"""

from __future__ import annotations

from collections.abc import Callable


def refusal(function: Callable[[], object]) -> list[object] | None:
    """Return type, exit code and message of the error that a call raises; None if it raises none."""
    try:
        function()
    except Exception as error:
        return [type(error).__name__, getattr(error, "exit_code", None), str(error)]
    return None
