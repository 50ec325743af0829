"""The processes of one job as one of them sees the job: its rank, the size, and exchanges of bytes.

Decides: what distrain asks of connected processes. Never: connects processes, or knows what the bytes mean.

    >>> from distrain.cluster.process_group import SingleProcess
    >>> group = SingleProcess()
    >>> group.all_gather_bytes(b"mine"), group.is_chief
    ([b'mine'], True)

All processes of a group make the same calls in the same order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


class ProcessGroup(Protocol):
    """Processes that exchange bytes; implementations inherit everything but `all_gather_bytes`.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
    """

    rank: int
    size: int

    def all_gather_bytes(self, content: bytes) -> list[bytes]:
        """Return the content of every process, in rank order, once all processes have called this.

        Raises:
            DistrainError: another process failed or was lost, and this group can detect such an end.
        """

    def broadcast(self, content: bytes) -> bytes:
        """Return rank 0's content on every process; the content of other processes is ignored."""
        return self.all_gather_bytes(content if self.is_chief else b"")[0]

    def barrier(self) -> None:
        """Return once all processes have called this."""
        self.all_gather_bytes(b"")

    @property
    def is_chief(self) -> bool:
        """Whether this process is rank 0, which writes the files and prints the results."""
        return self.rank == 0


@dataclass(frozen=True)
class SingleProcess(ProcessGroup):
    """The group of a process that works alone."""

    rank: int = 0
    size: int = 1

    def all_gather_bytes(self, content: bytes) -> list[bytes]:
        """Return the content of this process."""
        return [content]
