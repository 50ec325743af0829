"""Small labelled texts, the data set that `prepare` makes of them, and its refusals."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest
from rich.console import Console

from distrain.config import PrepareConfig
from distrain.data.prepared.dataset_index import open_dataset
from distrain.prepare.pipeline import prepare

WORDS = {"art": "paint music opera brush", "sport": "goal match player score", "tech": "chip code disk cable"}


def rows(count, classes=("sport", "art", "tech")):
    """Labelled texts whose words tell the class; every word in many rows."""
    order = np.random.default_rng(0)
    return [
        (name, " ".join(order.choice([*WORDS[name].split(), "the", "of", "café"], 6)))
        for name in (classes[number % len(classes)] for number in range(count))
    ]


def write_csv(path, table):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(table)
    return path


def labels_of(part):
    return part.read(0, part.num_rows).labels


class Result:
    """The data set made, with what was printed."""

    def __init__(self, **settings):
        output = io.StringIO()
        prepare(PrepareConfig(memory_mib=256, **settings), console=Console(file=output, width=80))
        self.dataset = open_dataset(settings["out"])
        self.output = output.getvalue()

    def labels(self, part):
        return [self.dataset.classes[number] for number in labels_of(self.dataset.parts[part])]

    def ids(self, part):
        return self.dataset.parts[part].read(0, self.dataset.parts[part].num_rows).columns.tolist()


def fails(error, *words, **settings):
    out = settings["out"]
    before = sorted(out.parent.iterdir())
    with pytest.raises(error) as caught:
        Result(**settings)
    message = str(caught.value)
    assert all(str(word) in message for word in words), message
    assert sorted(out.parent.iterdir()) == before
    return message


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def write_folder(path, table):
    for number, (label, text) in enumerate(table):
        (path / label).mkdir(parents=True, exist_ok=True)
        (path / label / f"{number:06}.txt").write_text(text)
    return path
