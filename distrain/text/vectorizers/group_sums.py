"""Sums of n-gram values by group of rows, such as by class, in memory that groups without the n-gram do not take.

Decides: where the sums of an n-gram and a group lie, and how processes add their sums. Never: what a sum means.

    sums = GroupSums.empty(room_of(memberships, num_groups), num_groups)
    add_group_sums(..., sums.num_groups, sums.offsets, sums.groups, sums.sums)
    own = sums.reduce_scatter(group, scratch)                # this process's lines, summed over all processes

A line of slots belongs to an n-gram. The rows with an n-gram belong to few groups in most cases, so the line is a hash
table of twice as many slots. Other lines have a slot for each group. With 60,000 classes a table of all groups would
not fit into memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from distrain.cluster.process_group import ProcessGroup
from distrain.jit import compiled
from distrain.text.array_exchange import all_gather_arrays
from distrain.text.vectorizers.tfidf_kernels import slot_of

SLOT_BYTES = 20  # a group, a sum and a sum of squares
TABLE_GROUPS = 64  # up to this number of groups a table of all groups is small, and fastest


def is_small(num_groups: int) -> bool:
    """Return whether each line has a slot for each group, whatever the rows."""
    return num_groups <= TABLE_GROUPS


def room_of(memberships: np.ndarray, num_groups: int) -> np.ndarray:
    """Return the number of slots of each n-gram's line, int64.

    Args:
        memberships: for each n-gram the groups of all rows with it, counted row by row; not used for few groups.
        num_groups: number of groups.
    """
    if is_small(num_groups):
        return np.full(len(memberships), num_groups)
    return np.minimum(num_groups, 2 * memberships.astype(np.int64))


@dataclass(frozen=True)
class GroupSums:
    """Sums of some n-grams by group.

    Attributes:
        num_groups: number of groups.
        offsets: int64 `[n-grams + 1]`: first slot of each n-gram's line.
        groups: int32 `[slots]`: group of a slot, or -1 for an empty slot.
        sums: int64 `[slots, 2]`: sums of values, and of their squares.
    """

    num_groups: int
    offsets: np.ndarray
    groups: np.ndarray
    sums: np.ndarray

    @staticmethod
    def empty(room: np.ndarray, num_groups: int) -> GroupSums:
        """Return sums of 0 in lines of `room` slots."""
        offsets = np.concatenate([np.zeros(1, np.int64), room.cumsum(dtype=np.int64)])
        slots = int(offsets[-1])
        is_table = slots == len(room) * num_groups
        own = np.arange(num_groups, dtype=np.int32)
        groups = np.tile(own, len(room)) if is_table else np.full(slots, -1, np.int32)
        return GroupSums(num_groups, offsets, groups, np.zeros((slots, 2), np.int64))

    def reduce_scatter(self, group: ProcessGroup, scratch: Path) -> GroupSums:
        """Return this process's share of the lines, summed over all processes; lines are shared in rank order."""
        if group.size == 1:
            return self
        entries = all_gather_arrays(group, scratch, "sums", self._entries())
        num_lines = len(self.offsets) - 1
        first, last = (num_lines * rank // group.size for rank in (group.rank, group.rank + 1))
        slots = slice(self.offsets[first], self.offsets[last])
        offsets = self.offsets[first : last + 1] - self.offsets[first]
        own = GroupSums(self.num_groups, offsets, self.groups[slots], self.sums[slots])
        for rank, other in enumerate(entries):
            if rank != group.rank:
                start, stop = np.searchsorted(other[:, 0], np.array([first, last]) << 32)
                _add_entries(other[start:stop], first, own.num_groups, own.offsets, own.groups, own.sums)
        return own

    def _entries(self) -> np.ndarray:
        """Return the slots in use, int64 `[k, 3]`: (line << 32 | group, sum, sum of squares), ascending by line."""
        used = np.flatnonzero(self.groups >= 0)
        lines = np.searchsorted(self.offsets, used, side="right") - 1
        return np.column_stack([lines << 32 | self.groups[used], self.sums[used]])


@compiled
def _add_entries(
    entries: np.ndarray,
    first: int,
    num_groups: int,
    offsets: np.ndarray,
    groups: np.ndarray,
    sums: np.ndarray,
) -> None:
    for index in range(len(entries)):
        line, group = (entries[index, 0] >> 32) - first, entries[index, 0] & 0xFFFFFFFF
        slot = slot_of(offsets, groups, num_groups, line, group)
        groups[slot] = group
        sums[slot, 0] += entries[index, 1]
        sums[slot, 1] += entries[index, 2]
