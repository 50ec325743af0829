"""`prepare` end to end on small data: results, refusals, and what a stop leaves behind."""

import csv
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from distrain.config import DATASETS, PrepareConfig
from distrain.data.dataset_index import open_dataset
from distrain.errors import ConfigurationError, DataError
from distrain.prepare.inputs import is_held_out
from distrain.prepare.pipeline import prepare
from distrain.text.readers.labels import KNOWN_SETS, LabelLearner, known_classes
from distrain.text.vectorizers.load_vectorizer import load_vectorizer

SHARED = Path(__file__).parents[4] / "shared" / "data"
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


def write_json_lines(path, table):
    path.write_text("".join(json.dumps({"label": label, "text": text}) + "\n" for label, text in table))
    return path


def write_tsv_gz(path, table):
    path.write_bytes(gzip.compress("".join(f"{label}\t{text}\n" for label, text in table).encode()))
    return path


def write_header_csv(path, table):
    return write_csv(path, [("id", "text", "label"), *((n, text, label) for n, (label, text) in enumerate(table))])


def write_folder(path, table):
    for number, (label, text) in enumerate(table):
        (path / label).mkdir(parents=True, exist_ok=True)
        (path / label / f"{number:06}.txt").write_text(text)
    return path


def write_parquet(path, table):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    labels, texts = zip(*table, strict=True)
    parquet.write_table(pyarrow.table({"label": labels, "text": texts}), path)
    return path


@pytest.mark.parametrize(
    ("write", "name", "settings"),
    [
        (write_csv, "a.csv", {}),
        (write_header_csv, "a.csv", {"label_column": "label", "text_columns": ("text",)}),
        (write_tsv_gz, "a.tsv.gz", {}),
        (write_json_lines, "a.jsonl", {}),
        (write_parquet, "a.parquet", {}),
        (write_folder, "folder", {}),
    ],
)
@pytest.mark.parametrize("vectorizer", ["ngram", "sequence"])
def test_every_format_gives_the_same_data(tmp_path, write, name, settings, vectorizer):
    train, test = rows(60), rows(30)[:20]
    if name == "folder":  # its rows come sorted by class
        train, test = sorted(train, key=lambda row: row[0]), sorted(test, key=lambda row: row[0])
    for part, table in (("train", train), ("test", test)):
        (tmp_path / part).mkdir()
        write(tmp_path / part / name, table)
    result = Result(
        train=tmp_path / "train" / name,
        test=tmp_path / "test" / name,
        out=tmp_path / "out",
        vectorizer=vectorizer,
        **settings,
    )
    assert result.dataset.classes == ("art", "sport", "tech")
    assert result.labels("train") == [label for label, _ in train]
    assert result.labels("test") == [label for label, _ in test]
    # The saved vectorizer gives both parts again from the text.
    saved = load_vectorizer(result.dataset.vectorizer)
    assert (saved.kind, saved.num_features) == (vectorizer, result.dataset.num_features)
    for part, table in (("train", train), ("test", test)):
        stored, again = (
            result.dataset.parts[part].read(0, len(table)),
            saved.transform([text for _, text in table]),
        )
        np.testing.assert_array_equal(stored.row_splits, again.row_splits)
        np.testing.assert_array_equal(stored.columns, again.columns)
        if vectorizer == "ngram":
            np.testing.assert_allclose(stored.values, again.values, rtol=1e-6)
    if vectorizer == "sequence":
        assert result.ids("train")[:6] == [2 + by_frequency(train).index(word) for word in plain(train[0][1]).split()]


def plain(text):
    return text.replace("é", "e")


def by_frequency(table):
    words = [word for _, text in table for word in plain(text).split()]
    return sorted(set(words), key=lambda word: (-words.count(word), word))


def test_two_runs_give_the_same_bytes_and_replace(tmp_path):
    train = write_csv(tmp_path / "a.csv", rows(50))
    Result(train=train, out=tmp_path / "one")
    Result(train=train, out=tmp_path / "two")
    first = tree(tmp_path / "one")
    assert tree(tmp_path / "two") == first
    assert not any(str(tmp_path).encode() in content for content in first.values())
    Result(train=train, out=tmp_path / "two", seed=1, vectorizer="sequence")
    assert open_dataset(tmp_path / "two").kind == "sequence"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "one", "two"]


def test_who_may_read_one_file_may_read_all(tmp_path):
    """Another user may train on the data set, such as the user of a container."""
    Result(train=write_csv(tmp_path / "a.csv", rows(30)), out=tmp_path / "out")
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len({path.stat().st_mode for path in [tmp_path / "a.csv", *files]}) == 1


def test_held_out_rows_are_a_share_by_seed(tmp_path):
    table = [(label, f"{text} row{number:05}") for number, (label, text) in enumerate(rows(3000))]
    train = write_csv(tmp_path / "a.csv", table)
    result = Result(train=train, out=tmp_path / "out", vectorizer="sequence", holdout=0.2, top_k=10_000)
    names = [word.decode() for word in load_vectorizer(result.dataset.vectorizer).words.to_list()]
    trained_on = {name for name in names if name.startswith("row")}
    num_test = result.dataset.parts["test"].num_rows
    assert len(trained_on) == result.dataset.parts["train"].num_rows == 3000 - num_test
    assert abs(num_test - 600) < 5 * np.sqrt(3000 * 0.2 * 0.8)
    held_out = [label for number, (label, _) in enumerate(table) if f"row{number:05}" not in trained_on]
    assert result.labels("test") == held_out
    # Test words that training never saw are unknown: nothing was learnt from held-out rows.
    assert result.ids("test").count(1) == num_test
    chosen = {seed: [is_held_out(index, 0.2, seed) for index in range(3000)] for seed in (0, 1)}
    assert 0 < np.sum(np.logical_and(*chosen.values())) < 300


def test_the_first_row_of_a_class_is_trained_on(tmp_path, caplog):
    table = [*rows(40), ("rare", "one of a kind")]
    result = Result(train=write_csv(tmp_path / "a.csv", table), out=tmp_path / "out", holdout=0.9)
    assert result.labels("train").count("rare") == 1
    assert "'rare'" in caplog.text
    assert set(result.labels("train")) == {"art", "rare", "sport", "tech"}


def test_integer_labels_sort_by_value(tmp_path):
    table = [(str(number % 12), f"word{number % 12} the") for number in range(48)]
    assert Result(train=write_csv(tmp_path / "a.csv", table), out=tmp_path / "out").dataset.classes == tuple(
        str(number) for number in range(12)
    )
    learner = LabelLearner()
    assert [learner.number(label) for label in ("10", "9", "b", "9")] == [0, 1, 2, 1]
    classes, order = learner.finish()
    assert classes.names == ("10", "9", "b")
    assert order.tolist() == [0, 1, 2]


def test_auto_says_what_it_chose_and_why(tmp_path):
    train = write_csv(tmp_path / "a.csv", rows(90))
    result = Result(train=train, test=train, out=tmp_path / "out")
    assert "auto: 90 rows / 6 words per row = 15 < 1,500: n-grams" in result.output
    many = write_csv(tmp_path / "b.csv", [(str(number % 2), f"word{number % 5}") for number in range(1500)])
    result = Result(train=many, test=many, out=tmp_path / "out")
    assert result.dataset.kind == "sequence"
    assert "auto: 1,500 rows / 1 words per row = 1,500 >= 1,500: sequences" in result.output
    assert max(map(len, result.output.splitlines())) <= 80


def test_what_is_mended_is_counted(tmp_path, caplog):
    table = "".join(f"{label},{text}\n" for label, text in rows(30)).encode()
    (tmp_path / "a.csv").write_bytes(table + b"art,\xff\nart,\nart,\0\n")
    Result(train=tmp_path / "a.csv", test=tmp_path / "a.csv", out=tmp_path / "out")
    assert "1 line with bytes that are not UTF-8" in caplog.text
    assert "1 line with NUL bytes" in caplog.text
    assert "2 rows with an empty text" in caplog.text


def test_known_sets_are_those_of_the_configuration():
    assert tuple(KNOWN_SETS) == DATASETS
    assert [len(known.classes) for known in KNOWN_SETS.values()] == [4, 14, 2, 5, 2, 5]
    classes = known_classes(KNOWN_SETS["ag_news"])
    assert [classes.number(label) for label in ("1", "04", "world", "Sci/Tech")] == [0, 3, 0, 3]


def test_a_known_set(tmp_path, caplog):
    table = [(number % 2 + 1, f"{text}\\nnext \\tab") for number, (_, text) in enumerate(rows(40))]
    train = write_csv(tmp_path / "a.csv", [*table, ("Negative", "the")])
    result = Result(train=train, test=train, out=tmp_path / "out", dataset="yelp_polarity", vectorizer="sequence")
    assert result.dataset.classes == ("negative", "positive")
    assert result.labels("train")[:3] + result.labels("train")[-1:] == [
        "negative",
        "positive",
        "negative",
        "negative",
    ]
    words = load_vectorizer(result.dataset.vectorizer).words.to_list()
    assert b"next" in words
    assert b"nnext" not in words
    assert "41 rows; yelp_polarity as published has 560,000 to train" in caplog.text
    assert "38,000 to test" in caplog.text


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("9,text", ["row 31", "'9'", "outside 1..4"]),
        ("0,text", ["row 31", "'0'", "count from 1"]),
        ("cat,text", ["row 31", "'cat'", "neither"]),
        (",text", ["row 31", "missing"]),
    ],
)
def test_labels_that_a_known_set_does_not_have(tmp_path, row, words):
    lines = [f"{number % 4 + 1},{text}" for number, (_, text) in enumerate(rows(30))]
    (tmp_path / "a.csv").write_text("\n".join([*lines, row]))
    fails(DataError, *words, train=tmp_path / "a.csv", out=tmp_path / "out", dataset="ag_news")


def test_a_header_that_nobody_announced(tmp_path, caplog):
    train = write_csv(tmp_path / "a.csv", [("label", "text"), *rows(30)])
    fails(
        DataError,
        "row 1",
        "'label'",
        "If this row is a header",
        train=train,
        out=tmp_path / "o",
        dataset="ag_news",
    )
    Result(train=train, test=train, out=tmp_path / "out")
    assert "1 of 4 classes have only one training row: 'label'. If this row is a header" in caplog.text
    alone = write_csv(tmp_path / "b.csv", [("label", "text")])
    fails(DataError, "class 'label'", "If this row is a header", train=alone, out=tmp_path / "out2")


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ([("a", "x y z"), ("", "text")], ["row 2", "missing"]),
        ([("a", "some text"), ("a", "more text")], ["class 'a'", "nothing to tell apart"]),
        ([("a", ""), ("b", "? !"), ("b", "")], ["no text holds a word"]),
        ([("a" * 1001, "text")], ["row 1", "1,001 characters"]),
        ([("a", "the text"), ("b", "the text")], ["--holdout 0.1 of its 2 rows is none"]),
    ],
)
def test_rows_that_nothing_can_be_learnt_from(tmp_path, table, words):
    train = write_csv(tmp_path / "a.csv", table)
    fails(DataError, train, *words, train=train, out=tmp_path / "out")


def test_too_many_labels_are_no_classes():
    learner = LabelLearner()
    with pytest.raises(DataError, match=r"65,536 labels differ.*--label-column"):
        [learner.number(f"id {number}") for number in range(70_000)]


def test_a_test_label_unseen_in_training(tmp_path):
    train = write_csv(tmp_path / "a.csv", rows(30, ("art", "sport")))
    test = write_csv(tmp_path / "b.csv", rows(30))
    fails(DataError, f"{test}, row 3", "'tech'", "training rows", train=train, test=test, out=tmp_path / "out")


def test_wrong_inputs_show_before_anything_is_made(tmp_path):
    train = write_csv(tmp_path / "a.csv", rows(30))
    fails(
        DataError,
        "missing.csv does not exist",
        train=train,
        test=tmp_path / "missing.csv",
        out=tmp_path / "out",
    )
    empty = write_csv(tmp_path / "b.csv", [])
    fails(DataError, "no rows", train=train, test=empty, out=tmp_path / "out")
    fails(ConfigurationError, "'nix'", train=train, label_column="nix", out=tmp_path / "out")
    folder = write_folder(tmp_path / "folder", rows(6))
    fails(ConfigurationError, "inside the input", train=folder, out=folder / "out")


def test_an_error_late_in_the_test_rows_leaves_nothing(tmp_path):
    train = write_csv(tmp_path / "a.csv", rows(30))
    test = write_csv(tmp_path / "b.csv", [*rows(30), ("art", "too", "many")])
    fails(DataError, "row 31", "3 columns", train=train, test=test, out=tmp_path / "out")


def test_what_out_holds_is_not_lost(tmp_path):
    train = write_csv(tmp_path / "a.csv", rows(40))
    out = tmp_path / "out"
    out.mkdir()
    Result(train=train, out=out)
    (out / "thesis.tex").write_text("precious")
    before = tree(out)
    fails(ConfigurationError, "'thesis.tex'", train=train, out=out)
    assert tree(out) == before
    (out / "thesis.tex").unlink()
    (out / "dataset.json").unlink()
    fails(ConfigurationError, "parts of a data set", train=train, out=out)
    fails(ConfigurationError, "is a file", train=train, out=train)


def test_a_failed_prepare_keeps_the_older_data(tmp_path):
    out = tmp_path / "out"
    Result(train=write_csv(tmp_path / "a.csv", rows(40)), out=out)
    before = tree(out)
    fails(DataError, "row 41", train=write_csv(tmp_path / "b.csv", [*rows(40), ("", "no label")]), out=out)
    assert tree(out) == before


@pytest.fixture
def nobody(tmp_path):
    """Go on as a user who may not write everywhere, where the tests run as root."""
    if os.geteuid() != 0:
        yield
        return
    for folder in (tmp_path, *tmp_path.parents):
        if folder.is_relative_to(tempfile.gettempdir()) and folder != Path(tempfile.gettempdir()):
            folder.chmod(0o755)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def locked(tmp_path):
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o555)
    write_csv(tmp_path / "a.csv", rows(40))
    return folder


def test_a_folder_that_cannot_be_written(locked, nobody):
    fails(ConfigurationError, "Permission denied", train=locked.parent / "a.csv", out=locked / "out")


@pytest.mark.parametrize(
    "settings",
    [
        {"dataset": "mnist"},
        {"text_columns": ()},
        {"text_columns": ("a", "")},
        {"text_columns": ("a", "b"), "label_column": "a"},
    ],
)
def test_settings_that_are_wrong(settings):
    with pytest.raises(ConfigurationError):
        PrepareConfig(train="a", out="b", **settings)


STOPPED = """
import sys
from rich.console import Console
from distrain.config import PrepareConfig
from distrain.prepare.pipeline import prepare
class Told(Console):
    def print(self, *objects, **options):
        if {when!r} in str(objects[0]):
            print("now", flush=True)
            sys.stdin.read()  # until the signal
prepare(PrepareConfig(train={train!r}, test={train!r}, out={out!r}, memory_mib=256), console=Told())
"""


@pytest.mark.parametrize(
    ("number", "older"),
    [(signal.SIGTERM, True), (signal.SIGINT, False), (signal.SIGKILL, False), (signal.SIGKILL, True)],
)
def test_a_stopped_prepare_leaves_no_data_set(tmp_path, number, older):
    train, out = write_csv(tmp_path / "a.csv", rows(60)), tmp_path / "out"
    if older:
        Result(train=train, out=out)
    before = tree(out)
    # At this line the training rows are written, and the test rows read.
    script = STOPPED.format(train=str(train), out=str(out), when="writing training rows")
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with process:
        assert process.stdout.readline() == b"now\n"
        work = tmp_path / ".out.preparing"
        assert any(work.rglob("train-00000.columns.npy"))
        fails(ConfigurationError, "Another process is preparing", train=train, out=out)
        process.send_signal(number)
        process.wait(timeout=30)
    assert process.returncode not in (0, None)
    assert tree(out) == before
    assert out.exists() == older
    assert work.exists() == (number == signal.SIGKILL)
    for folder in (path for path in tmp_path.rglob("*") if path.is_dir() and path != out):
        with pytest.raises(DataError):
            open_dataset(folder)
    Result(train=train, test=train, out=out)
    assert not work.exists()


def test_a_stop_between_the_renames_is_undone(tmp_path):
    train, out = write_csv(tmp_path / "a.csv", rows(40)), tmp_path / "out"
    Result(train=train, out=out)
    before = tree(out)
    (tmp_path / ".out.preparing").mkdir()
    shutil.move(out, tmp_path / ".out.preparing" / "old")
    bad = write_csv(tmp_path / "b.csv", [*rows(40), ("", "no label")])
    with pytest.raises(DataError):
        Result(train=bad, out=out)
    assert tree(out) == before


@pytest.mark.parametrize(("name", "num_train", "num_test"), [("ag_news", 6600, 1000), ("dbpedia", 12600, 1400)])
def test_real_text(tmp_path, name, num_train, num_test):
    folder = SHARED / name
    if not folder.exists():
        pytest.skip(f"{folder} is absent")
    result = Result(train=folder / "train.csv", test=folder / "test.csv", out=tmp_path / "out", dataset=name)
    parts = result.dataset.parts
    assert (parts["train"].num_rows, parts["test"].num_rows) == (num_train, num_test)
    for part in ("train", "test"):
        with (folder / f"{part}.csv").open(newline="", encoding="utf-8") as file:
            assert [int(row[0]) - 1 for row in csv.reader(file)] == labels_of(parts[part]).tolist()
    assert result.dataset.num_features == 20_000
    assert re.search(rf"auto: {num_train:,} rows .*: n-grams", result.output)


def test_digest_covers_the_vectorizer(tmp_path):
    result = Result(train=write_csv(tmp_path / "a.csv", rows(40)), out=tmp_path / "out")
    for name, checksum in result.dataset.details["vectorizer_sha256"].items():
        assert hashlib.sha256((result.dataset.vectorizer / name).read_bytes()).hexdigest() == checksum
