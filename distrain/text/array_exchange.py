"""Arrays that the processes of a group exchange as files.

Decides: how arrays travel between processes. Never: how processes start, or what an array means.

    arrays = all_gather_arrays(group, scratch, "counts", np.arange(3))     # arrays[rank]

All processes see one folder. Each process writes its array there and maps the files of the others into memory.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from distrain.array_files import write_values
from distrain.cluster.process_group import ProcessGroup
from distrain.text.ragged import map_array


def all_gather_arrays(group: ProcessGroup, folder: Path, name: str, array: np.ndarray) -> list[np.ndarray]:
    """Return the arrays of all processes, in rank order, mapped from files `<name>-<rank>`.

    Args:
        group: every process must call this.
        folder: a folder that all processes share.
        name: prefix of the files, which must not exist.
        array: equal in dtype on all processes; shapes may differ along the first axis.
    """
    if group.size == 1:
        return [array]
    write_values(folder / f"{name}-{group.rank}", array)
    group.barrier()
    return [_mapped(folder / f"{name}-{rank}", array) for rank in range(group.size)]


def all_to_all_arrays(group: ProcessGroup, folder: Path, name: str, array: np.ndarray) -> list[np.ndarray]:
    """Cut every process's array into `group.size` equal parts; return part `group.rank` of each, in rank order.

    Args:
        group: every process must call this.
        folder: a folder that all processes share.
        name: prefix of the files. Another exchange must come between two calls with one name.
        array: equal in dtype and length on all processes.
    """
    parts = np.array_split(array, group.size)
    for rank, part in enumerate(parts):
        if rank != group.rank:
            write_values(folder / f"{name}-{group.rank}-{rank}", part)
    group.barrier()
    return [
        parts[rank] if rank == group.rank else _mapped(folder / f"{name}-{rank}-{group.rank}", array)
        for rank in range(group.size)
    ]


def _mapped(path: Path, like: np.ndarray) -> np.ndarray:
    return map_array(path, like.dtype).reshape(-1, *like.shape[1:])
