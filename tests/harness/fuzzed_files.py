"""Valid files of every kind that distrain reads, and mutations of them.

for subject in fuzz_subjects(folder):
    subject.try_mutation(random.Random(7))           # an error that is no sentence is raised

A mutation keeps all checksums right where a forger could.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import zstandard
from small_datasets import forge_index, ragged, write_dataset

from distrain.config import train_config
from distrain.data.prepared.dataset_index import open_dataset
from distrain.errors import DistrainError
from distrain.files import json_bytes, read_json_object
from distrain.fingerprints import digest_of, fingerprint_of
from distrain.runs.checkpoint import load_checkpoint, save_checkpoint
from distrain.runs.progress import Progress, progress_arrays, progress_state, read_progress
from distrain.text.readers.columns import ColumnLayout
from distrain.text.readers.sources import read_blocks, read_rows
from distrain.text.readers.tally import Bounds, Tally
from distrain.text.vectorizers.load_vectorizer import load_vectorizer

ROWS = [("sport", 'a match, and a "goal"'), ("art", "opera\nand café"), ("7", ""), ("", "\ttab"), ("tech", "chip " * 9)]
BOUNDS = Bounds(max_rows=10**6, max_text_gib=1, max_expansion=100)
NUMBERS = [b"-1", b"0", b"1e999", b"NaN", b"null", b"true", b"[]", b"{}", b'"x"', b"9" * 30, b"1" * 5000, b"2147483648"]
PIECES = [
    b"\0",
    b"\xff",
    b'"',
    b"\n",
    b"\r\n",
    b",",
    b"\t",
    b"[",
    b"{",
    b"\\u0000",
    b"\\ud800",
    b"\xef\xbb\xbf",
    b"\x7f" * 8,
]


@dataclass(frozen=True)
class FuzzSubject:
    """A kind of file.

    Attributes:
        name: what the file is.
        path: the file, which holds valid content.
        content: the valid content.
        read: reads the file, wherever it stands, through distrain.
    """

    name: str
    path: Path
    content: bytes
    read: Callable[[], None]

    def try_mutation(self, chance: random.Random) -> bool:
        """Read a mutated file; return whether distrain refused it. Any error but a sentence is raised."""
        self.path.write_bytes(mutated(self.content, chance))
        try:
            self.read()
        except DistrainError as error:
            assert len(str(error).splitlines()) == 1  # noqa: PT017 - most mutations are an error, but not all
            return True
        finally:
            self.path.write_bytes(self.content)
        return False


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Return the content with one to three changes."""
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(content) + 1)
        span = min(chance.choice([1, 1, 2, 4, 8, 64, 1000]), len(content) - at)
        kind = chance.randrange(7)
        if kind == 0 and span:
            changed = bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 : at + span]
        elif kind == 1:
            changed = b""
        elif kind == 2:
            changed = content[at : at + span] * chance.choice([2, 3, 200])
        elif kind == 3:
            changed = chance.choice(PIECES) * chance.choice([1, 2, 3000])
        elif kind == 4:
            changed = chance.randbytes(span)
        elif kind == 5 and (numbers := list(re.finditer(rb"-?\d+(\.\d+)?", content))):
            number = chance.choice(numbers)
            at, span = number.start(), number.end() - number.start()
            changed = chance.choice(NUMBERS)
        else:
            changed, span = b"", len(content) - at if chance.random() < 0.3 else span
        content = content[:at] + changed + content[at + span :]
    return content


def fuzz_subjects(folder: Path) -> list[FuzzSubject]:
    """Write a valid file of each kind into a folder."""
    return [*_texts(folder), *_data(folder / "data"), *_checkpoint(folder / "checkpoints"), _settings(folder)]


def _texts(folder: Path) -> list[FuzzSubject]:
    table = io.StringIO()
    csv.writer(table, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(ROWS)
    lines = "".join(json.dumps({"label": label, "text": text}) + "\n" for label, text in ROWS).encode()
    contents = {
        "a.csv": table.getvalue().encode(),
        "a.tsv": "".join(f"{label}\t{' '.join(text.split())}\n" for label, text in ROWS).encode(),
        "a.jsonl": lines,
        "a.jsonl.gz": gzip.compress(lines) + gzip.compress(lines),
        "a.csv.zst": zstandard.compress(table.getvalue().encode()),
    }
    contents["a.parquet"] = _parquet()
    (folder / "classes" / "art").mkdir(parents=True)
    contents["classes/art/1.txt"] = "opera and café".encode()
    subjects = []
    for name, content in contents.items():
        path = folder / name
        path.write_bytes(content)
        source = folder / "classes" if "/" in name else path
        subjects.append(FuzzSubject(name, path, content, lambda source=source: _read_text(source)))
    return subjects


def _read_text(path: Path) -> None:
    layout = ColumnLayout()
    for _ in read_blocks(path, layout, Tally(bounds=BOUNDS), max_row_bytes=2**20):
        pass
    for row in read_rows(path, layout, Tally(bounds=BOUNDS), max_row_bytes=2**20):
        assert "\0" not in row.text + row.label


def _parquet() -> bytes:
    import pyarrow
    import pyarrow.parquet

    labels, texts = zip(*ROWS * 20, strict=True)
    columns = {"label": pyarrow.array(labels).dictionary_encode(), "text": pyarrow.array(texts)}
    output = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns), output, row_group_size=30, compression="zstd")
    return output.getvalue()


def _data(folder: Path) -> list[FuzzSubject]:
    """The index and the shards of a data set, and both files of its vectorizer."""
    write_dataset(folder, [ragged([3, 2, 0, 4])], test=[ragged([2])], rows_per_shard=3)
    index = folder / "dataset.json"
    genuine = index.read_bytes()

    def read() -> None:
        for part in open_dataset(folder).parts.values():
            if part.num_rows:
                part.read(0, part.num_rows)
                part.gather(np.array([[0, part.num_rows]]), np.arange(part.num_rows))

    def read_forged_index() -> None:
        with suppress(ValueError, KeyError, RecursionError):  # a mutation that is no index has no digest to forge
            forge_index(folder, lambda content: None)
        read()

    def forged_shard(name: str) -> Callable[[], None]:
        def read_shard() -> None:
            record = fingerprint_of(folder / name, with_crc32=True)

            def change(content: dict) -> None:
                for part in content["parts"].values():
                    for shard in part["shards"]:
                        for file in shard["files"].values():
                            if file["name"] == name:
                                file |= {"bytes": record.bytes, "crc32": record.crc32, "sha256": record.sha256}

            forge_index(folder, change)
            try:
                read()
            finally:
                index.write_bytes(genuine)

        return read_shard

    vectorizer = folder.parent / "vectorizer"
    _write_vectorizer(vectorizer)
    subjects = [FuzzSubject("dataset.json", index, genuine, read_forged_index)]
    for name in ("train-00000.row_splits.npy", "train-00000.columns.npy", "train-00000.labels.npy"):
        subjects.append(FuzzSubject(name, folder / name, (folder / name).read_bytes(), forged_shard(name)))
    for path in sorted(vectorizer.iterdir()):
        subjects.append(FuzzSubject(path.name, path, path.read_bytes(), lambda: _use_vectorizer(vectorizer)))
    return subjects


def _write_vectorizer(folder: Path) -> None:
    from prepared_data import Result, rows, write_csv

    text = write_csv(folder.parent / "words.csv", rows(60))
    data = folder.parent / "worded"
    Result(train=text, out=data, vectorizer="ngram", top_k=30)
    (data / "vectorizer").rename(folder)


def _use_vectorizer(folder: Path) -> None:
    load_vectorizer(folder).transform(["paint music opera", "goal match", ""])


def _checkpoint(folder: Path) -> list[FuzzSubject]:
    progress = Progress(2, 64, 1, 5, 320, 1.25, (np.array(2.5), np.array([1.0, 2.0])))
    state = progress_state(progress) | {
        "early_stopping": {"best_figures": {"loss": 0.5}, "best_step": 5, "epochs_since": 0}
    }
    path = save_checkpoint(folder, 5, {"model/0000": np.zeros((3, 2)), **progress_arrays(progress)}, state)
    manifest = path / "manifest.json"
    genuine = manifest.read_bytes()

    def read() -> None:
        content = read_json_object(manifest)
        for name in content["files"]:
            record = fingerprint_of(path / name)
            content["files"][name] = {"bytes": record.bytes, "sha256": record.sha256}
        content["digest"] = digest_of(content)
        manifest.write_bytes(json_bytes(content))
        try:
            read_progress(load_checkpoint(path))
        finally:
            manifest.write_bytes(genuine)

    names = ("state.json", "arrays.safetensors")
    subjects = [FuzzSubject(name, path / name, (path / name).read_bytes(), read) for name in names]
    return [*subjects, FuzzSubject("manifest.json", manifest, genuine, lambda: _load(path))]


def _load(path: Path) -> None:
    load_checkpoint(path)


def _settings(folder: Path) -> FuzzSubject:
    path = folder / "settings.toml"
    content = b'data = "data"\nrun = "r"\nepochs = 3\nlearning_rate = 0.001\ndevices = "cpu:2"\nmax_time = "1h30m"\n'
    path.write_bytes(content)
    return FuzzSubject("settings.toml", path, content, lambda: _config(path))


def _config(path: Path) -> None:
    train_config({}, path)
