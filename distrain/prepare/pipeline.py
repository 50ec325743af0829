"""The steps of `distrain prepare`: from labelled text to vectorized shards on disk.

Decides: which vectorizer is used, and which results are printed. Never: how a file is read, what a word is, or
how a shard is laid out.

    prepare(PrepareConfig(train="train.csv", test="test.csv", out="data"), console=Console())
    open_dataset(Path("data"))

Each process reads the training text once, and tokenizes its own rows once; the vectorizer learns from the integers.
The data set is built in a folder next to `out`. A rename replaces `out`, so that `out` is either complete or
untouched. The same input and settings give the same bytes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from distrain.cluster.error_relay import relayed_errors
from distrain.cluster.process_group import ProcessGroup
from distrain.config import PrepareConfig
from distrain.data.prepared.dataset_writer import DatasetWriter
from distrain.data.prepared.rows import Rows
from distrain.errors import DataError
from distrain.file_names import VECTORIZER_NAME
from distrain.prepare.display import Display
from distrain.prepare.inputs import (
    HeldOut,
    Inputs,
    TextBlock,
    Training,
    bounds_of,
    check_inputs,
    find_inputs,
    read_test,
    read_training,
)
from distrain.prepare.row_exchange import in_order
from distrain.prepare.target_checks import check_targets, target_warnings, with_a_weight
from distrain.prepare.targets import LearntTargets, row_targets
from distrain.prepare.workers import gathered_group, shared_folders
from distrain.text.readers.labels import KNOWN_SETS
from distrain.text.readers.tally import Tally
from distrain.text.vectorizers.feature_tests import RowNumbers
from distrain.text.vectorizers.load_vectorizer import Vectorizer
from distrain.text.vectorizers.ngrams import learn_ngrams
from distrain.text.vectorizers.sequences import learn_sequences
from distrain.text.vectorizers.token_store import TokenStore

_LOG = logging.getLogger(__name__)

# Google's text classification guide: n-grams do better below this ratio of rows to words per row.
SEQUENCE_RATIO = 1500


def prepare(config: PrepareConfig, *, console: Console, group: ProcessGroup | None = None) -> None:
    """Prepare the data set that `config` describes.

    Args:
        config: all settings.
        console: console for progress and results; only the chief prints.
        group: the processes that divide the work. Each process must call this with the same settings. By default
            `workers.gathered_group` finds or starts the processes.

    Raises:
        DataError: the text cannot be used; the message names the file and the row.
        ConfigurationError: a setting does not fit the text, or `config.out` cannot be written.
        RankError: a process of the group was lost.
    """
    if group is None:
        with gathered_group(config) as gathered:
            prepare(config, console=console, group=gathered)
        return
    warnings: list[str] = []
    try:
        _prepare(config, group, console if group.rank == 0 else Console(quiet=True), warnings)
    finally:  # after the display has ended, because its live bar may use the same terminal
        for warning in warnings if group.rank == 0 else ():
            _LOG.warning(warning)


def _prepare(config: PrepareConfig, group: ProcessGroup, console: Console, warnings: list[str]) -> None:
    started = time.monotonic()
    with relayed_errors(group):
        inputs = find_inputs(config, group)
        config, notes = check_inputs(config, inputs)
        warnings += notes
    with shared_folders(group, config.out) as (new, scratch), Display(console) as display:
        # A function of its own, so that its mapped files are closed before the folder with them is removed. Network
        # file systems keep a file that is open, and so its folder.
        contents = _write_parts(config, inputs, group, (new, scratch), display, warnings)
    if contents is None:
        return
    display.table(
        f"{config.out}: {contents.title}",
        ["part", "rows", contents.class_heading, "features", "MB"],
        contents.rows,
    )
    display.say(f"done in {time.monotonic() - started:.1f} s")


class _Contents(NamedTuple):
    """What a prepared data set holds, for the table at the end.

    Attributes:
        title: kind of its rows.
        class_heading: heading of the column of classes.
        rows: name, number of rows, classes, features and MB of each part.
    """

    title: str
    class_heading: str
    rows: list[list[str]]


def _write_parts(
    config: PrepareConfig,
    inputs: Inputs,
    group: ProcessGroup,
    folders: tuple[Path, Path],
    display: Display,
    warnings: list[str],
) -> _Contents | None:
    """Write all parts of the data set, and return what it holds; None on all processes but the chief.

    Args:
        config: all settings.
        inputs: the input files.
        group: the processes that divide the work.
        folders: the folder that becomes the data set, and the folder for temporary files.
        display: shows progress.
        warnings: takes messages for the end.
    """
    new, scratch = folders
    targets, has_weights = row_targets(config), config.weight_column is not None
    store = TokenStore(
        scratch,
        memory_mib=config.memory_mib,
        group=group,
        tokens=config.tokens,
        label_dtype=targets.dtype,
        has_weights=has_weights,
    )
    held_out = HeldOut(scratch, group.rank, targets.dtype)
    training = read_training(config, inputs, targets, store, held_out, display)
    learnt = training.learnt
    _check_training(config, inputs.train.title, training, store, warnings)
    kind, why = _choose_vectorizer(config.vectorizer, store)
    display.say(why)
    vectorizer, rows = _learn(kind, config, store, learnt, display)
    train_rows = _written(rows, learnt, sum(store.block_rows), display)
    test_tally = Tally(bounds=bounds_of(config))
    if config.test is None:
        test_block_rows = held_out.block_rows
        texts = held_out.blocks(learnt)
    else:
        test_block_rows = []
        texts = read_test(config, inputs, learnt, test_tally, display, group, test_block_rows)
    test_rows = _vectorized(texts, vectorizer)
    scale = learnt.features if isinstance(learnt.features, RowNumbers) else None
    like = _no_rows(kind, learnt, targets.dtype, has_weights)
    parts = {
        part: in_order(group, scratch, part, own_rows, block_rows, like)
        for part, own_rows, block_rows in (
            ("train", train_rows, store.block_rows),
            ("test", test_rows, test_block_rows),
        )
    }
    writer = DatasetWriter(
        new,
        kind=kind,
        num_features=vectorizer.num_features,
        classes=learnt.names,
        max_length=getattr(vectorizer, "max_length", None),
        task=learnt.task,
        target_mean=scale.mean if scale else None,
        target_deviation=scale.deviation if scale else None,
        has_weights=has_weights,
        group=group,
    )
    num_rows = {part: writer.write(part, rows) for part, rows in _weighed(parts, inputs).items()}
    if group.rank:
        return None
    vectorizer.save(new / VECTORIZER_NAME)
    if inputs.test is not None:
        _warn_of_input(config, inputs.test.title, test_tally, "test", warnings)
    writer.finish(vectorizer=VECTORIZER_NAME, details=_details(config, why))
    sizes = {part: sum(file.stat().st_size for file in new.glob(f"{part}-*")) for part in parts}
    features = f"{vectorizer.num_features:,}"
    classes = f"{len(learnt.names):,}" if learnt.names else "numbers"
    return _Contents(
        "n-grams" if kind == "ngram" else "sequences",
        "classes" if learnt.task == "classification" else "labels",
        [[part, f"{num_rows[part]:,}", classes, features, f"{sizes[part] / 1e6:,.1f}"] for part in parts],
    )


def _weighed(parts: dict[str, Iterator[Rows]], inputs: Inputs) -> dict[str, Iterator[Rows]]:
    """Check the weights of each part of one input; the files of several inputs were looked at as a whole."""
    if inputs.test is not None:
        return parts
    names = {"train": "training", "test": "held-out"}
    return {part: with_a_weight(rows, inputs.train.title, names[part]) for part, rows in parts.items()}


def _check_training(
    config: PrepareConfig, title: str, training: Training, store: TokenStore, warnings: list[str]
) -> None:
    """Raise DataError if no model can learn from the rows; append a message to `warnings` for each suspicious fact."""
    check_targets(title, training, store)
    if not store.num_words:
        token = "character" if config.tokens == "char" else "word (two or more letters or digits)"
        raise DataError(f"{title}: no text holds a {token}, so there is nothing to learn. Check --text-columns.")
    if config.test is None and training.tally.rows == store.num_rows:
        raise DataError(
            f"{title}: --holdout {config.holdout:g} of its {store.num_rows:,} rows is none. "
            "Give the test rows with --test, or use more rows or a larger --holdout."
        )
    _warn_of_input(config, title, training.tally, "train", warnings)
    if config.tokens == "word" and (warning := training.sample.warning(title, store.median_words_per_row())):
        warnings.append(warning)
    warnings.extend(target_warnings(title, training, store, has_weights=config.weight_column is not None))


def _warn_of_input(config: PrepareConfig, title: str, tally: Tally, part: str, warnings: list[str]) -> None:
    warnings.extend(tally.sentences(title))
    if config.dataset:
        known = KNOWN_SETS[config.dataset]
        published = known.train_rows if part == "train" else known.test_rows
        if tally.rows != published:
            warnings.append(
                f"{title} has {tally.rows:,} rows; {config.dataset} as published has {published:,} to {part}."
            )


def _choose_vectorizer(wanted: str, store: TokenStore) -> tuple[str, str]:
    """Return the vectorizer's kind, and a line with the reason."""
    if wanted != "auto":
        return wanted, f"{wanted}: as asked for by --vectorizer"
    words = max(1.0, store.median_words_per_row())
    ratio = int(store.num_rows / words)
    unit = "characters" if store.tokens == "char" else "words"
    kind, sign, name = ("ngram", "<", "n-grams") if ratio < SEQUENCE_RATIO else ("sequence", ">=", "sequences")
    rule = f"{store.num_rows:,} rows / {words:g} {unit} per row = {ratio:,} {sign} {SEQUENCE_RATIO:,}"
    return kind, f"auto: {rule}: {name}"


def _learn(
    kind: str, config: PrepareConfig, store: TokenStore, learnt: LearntTargets, display: Display
) -> tuple[Vectorizer, Iterator[Rows]]:
    if kind == "ngram":
        return learn_ngrams(store, top_k=config.top_k, progress=display.show, targets=learnt.features)
    return learn_sequences(store, top_k=config.top_k, max_length=config.max_length)


def _no_rows(kind: str, learnt: LearntTargets, dtype: Any, has_weights: bool) -> Rows:
    """Return no rows, with the arrays that rows of the data set have."""
    values = np.empty(0, np.float32)
    labels = learnt.final(np.empty(0, dtype))
    return Rows(
        np.zeros(1, np.int64),
        np.empty(0, np.int32),
        values if kind == "ngram" else None,
        labels,
        values if has_weights else None,
    )


def _written(rows: Iterable[Rows], learnt: LearntTargets, num_rows: int, display: Display) -> Iterator[Rows]:
    done = 0
    for block in rows:
        yield block._replace(labels=learnt.final(block.labels))
        done += block.num_rows
        display.show("writing training rows", done / num_rows, f"{done:,} rows")


def _vectorized(blocks: Iterable[TextBlock], vectorizer: Vectorizer) -> Iterator[Rows]:
    for texts, labels, weights in blocks:
        yield vectorizer.transform(texts)._replace(labels=labels, weights=weights)


def _details(config: PrepareConfig, why: str) -> dict[str, object]:
    """Return the choices of `prepare` for the index."""
    return {
        "dataset": config.dataset,
        "vectorizer": why,
        "top_k": config.top_k,
        "holdout": None if config.test else config.holdout,
        "seed": None if config.test else config.seed,
    }
