"""Random damages to the files of a folder: what a disk, a copy or a person does to bytes.

damage = random_damage(folder, names, random.Random(7))
damage.undo()
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

KINDS = ("flip a bit", "zero 512 bytes", "truncate", "append", "swap", "delete")


@dataclass(frozen=True)
class Damage:
    """A damage that was done.

    Attributes:
        kind: one of `KINDS`.
        names: the damaged files.
        before: content of each damaged file before.
    """

    kind: str
    names: tuple[str, ...]
    before: dict[Path, bytes]

    def undo(self) -> None:
        """Restore the content from before."""
        for path, content in self.before.items():
            path.write_bytes(content)


def random_damage(folder: Path, names: Sequence[str], chance: random.Random) -> Damage:
    """Damage one file of `names`, or swap two, such that some content changes."""
    while True:
        kind, name = chance.choice(KINDS), chance.choice(names)
        path = folder / name
        before = path.read_bytes()
        if kind == "swap":
            other = chance.choice(names)
            content = (folder / other).read_bytes()
            if content == before:
                continue
            path.write_bytes(content)
            (folder / other).write_bytes(before)
            return Damage(kind, (name, other), {path: before, folder / other: content})
        after = _damaged(before, kind, chance)
        if after == before:
            continue
        if after is None:
            path.unlink()
        else:
            path.write_bytes(after)
        return Damage(kind, (name,), {path: before})


def _damaged(content: bytes, kind: str, chance: random.Random) -> bytes | None:
    place = chance.randrange(max(1, len(content)))
    changed = bytearray(content)
    if kind == "flip a bit" and content:
        changed[place] ^= 1 << chance.randrange(8)
    elif kind == "zero 512 bytes":
        changed[place : place + 512] = bytes(len(changed[place : place + 512]))
    elif kind == "truncate":
        del changed[place:]
    elif kind == "append":
        changed += chance.randbytes(chance.randrange(1, 600))
    elif kind == "delete":
        return None
    return bytes(changed)
