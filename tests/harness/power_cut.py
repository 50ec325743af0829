"""What a power cut leaves of a folder: a model of a file system that keeps what was synced, and no more.

cut_power(folder, journal, keeps_names=False)

`journal` is what tests/faults/failing_disk.c wrote from the first file in `folder` until the process died. A file keeps
the content of its last fsync, and is empty without one. A folder keeps the names of its last fsync. With `keeps_names`
folders keep their newest names, as on file systems that bring names to the disk before contents.
"""

from __future__ import annotations

import shutil
from pathlib import Path

ROOT = 0


def cut_power(folder: Path, journal: Path, *, keeps_names: bool) -> None:
    """Replace the content of `folder`, whose own name survives, by what a power cut leaves."""
    numbers = {str(folder.stat().st_ino): ROOT}  # inodes are used again, and these numbers are not
    kinds = ["d"]
    contents: dict[int, bytes] = {}
    names: dict[int, dict[str, int]] = {}
    log = journal / "log"
    for line in log.read_text().splitlines() if log.exists() else ():
        event, *rest = line.split()
        if event == "N":
            numbers[rest[0]] = len(kinds)
            kinds.append(rest[1])
            continue
        number, synced = numbers[rest[1]], (journal / rest[0]).read_bytes()
        if kinds[number] == "f":
            contents[number] = synced
        else:
            entries = (entry.split(" ", 1) for entry in synced.decode().splitlines())
            names[number] = {name: numbers[inode] for inode, name in entries}
    if keeps_names:
        for path in (folder, *filter(Path.is_dir, folder.rglob("*"))):
            entries_now = {entry.name: numbers[str(entry.lstat().st_ino)] for entry in path.iterdir()}
            names[numbers[str(path.stat().st_ino)]] = entries_now

    def restore(number: int, path: Path) -> None:
        if kinds[number] == "f":
            path.write_bytes(contents.get(number, b""))
            return
        path.mkdir(exist_ok=True)
        for name, entry in names.get(number, {}).items():
            restore(entry, path / name)

    for entry in folder.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    restore(ROOT, folder)
