"""Several processes that prepare one data set together: what they need of each other.

Decides: how the share of a process is told, and what travels. Never: starts or finds processes.

    arrays = all_gather_arrays(group, scratch, "counts", np.arange(3))     # one for each process, by rank

All of a team read the same input and make the same calls in the same order; of numbered blocks each works on those
that are its own. Small things travel as bytes, arrays as files in a folder that all of them see.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from distrain.cluster.process_group import ProcessGroup
from distrain.text.ragged import map_array


def all_gather_arrays(group: ProcessGroup, folder: Path, name: str, array: np.ndarray) -> list[np.ndarray]:
    """The array that each process gave, by rank, mapped from files `<name>-<rank>`, which are made new.

    All are of one dtype, and differ in shape along the first axis only.
    """
    if group.size == 1:
        return [array]
    array.tofile(folder / f"{name}-{group.rank}")
    group.barrier()
    return [_mapped(folder / f"{name}-{rank}", array) for rank in range(group.size)]


def all_to_all_arrays(group: ProcessGroup, folder: Path, name: str, array: np.ndarray) -> list[np.ndarray]:
    """This process's share of the array that each gave: of as many equal stretches that of its rank.

    Args:
        group: all of them must call this.
        folder: as for `all_gather_arrays`.
        name: of the files; of the same name again, the next exchange of any kind must lie between.
        array: as long in all processes.
    """
    stretches = np.array_split(array, group.size)
    for rank, stretch in enumerate(stretches):
        if rank != group.rank:
            stretch.tofile(folder / f"{name}-{group.rank}-{rank}")
    group.barrier()
    return [
        stretches[rank] if rank == group.rank else _mapped(folder / f"{name}-{rank}-{group.rank}", array)
        for rank in range(group.size)
    ]


def _mapped(path: Path, like: np.ndarray) -> np.ndarray:
    return map_array(path, like.dtype).reshape(-1, *like.shape[1:])
