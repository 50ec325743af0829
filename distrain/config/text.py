"""Settings of the commands that make data: `distrain synth` and `distrain prepare`.

Decides: which text is written, and how text becomes a data set. Never: opens a file.

    >>> SynthConfig(out="text", rows=1000).classes
    4
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from distrain.config.setting import check_settings, require, setting
from distrain.errors import ConfigurationError

VECTORIZERS = ("auto", "ngram", "sequence")
TOKENS = ("word", "char")
TASKS = ("classification", "multilabel", "regression")
DATASETS = ("ag_news", "dbpedia", "yelp_polarity", "yelp_full", "amazon_polarity", "amazon_full")

MAX_ROWS = 2**31 - 2  # a row number and a count share an int64
MAX_COLUMNS = 2**31 - 2  # shards hold columns as int32

# Limits of the default number of workers.
MAX_DEFAULT_WORKERS = 8  # a worker then spends about a third of its time on rows of the others
MIN_BYTES_PER_WORKER = 16 << 20  # with less text, starting a process takes longer than the process saves


@dataclass(frozen=True)
class SynthConfig:
    """Settings of `distrain synth`; `settings_of(SynthConfig)` lists them with their help texts."""

    out: Path = setting("folder for train.csv and test.csv", metavar="DIR")
    rows: int = setting("number of training rows", metavar="N")
    classes: int = setting("number of classes", default=4, at_least=2, at_most=1_000, metavar="C")
    words_per_row: int = setting("mean number of words in a row", default=40, at_least=2, at_most=100_000, metavar="W")
    seed: int = setting("random seed: the same seed writes the same text", default=0, at_least=0, below=2**63)

    def __post_init__(self) -> None:
        check_settings(self)
        self.check_rows("--rows", self.rows)

    def check_rows(self, name: str, rows: int) -> None:
        """Raise `ConfigurationError` if `rows` rows are too few for one row of each class."""
        if rows < self.classes:
            raise ConfigurationError(
                f"{name} is {rows:,}, but {self.classes:,} classes need at least one row each; "
                f"give at least {self.classes:,} rows or fewer --classes."
            )


@dataclass(frozen=True)
class PrepareConfig:
    """Settings of `distrain prepare`; `settings_of(PrepareConfig)` lists them with their help texts."""

    train: tuple[Path, ...] = setting(
        "training text: a CSV, TSV, JSON Lines or Parquet file, a folder of such files, a quoted pattern such as "
        "'part-*.csv', or a folder that holds one folder per class; or the URL of such text (s3://, gs://, hf://, "
        "https://); all files but Parquet may be compressed as .gz or .zst; several files may follow each other",
        metavar="FILE",
        is_repeatable=True,
        may_be_remote=True,
    )
    out: Path = setting(
        "folder for the prepared data; prepared data in the folder is replaced, other content is refused",
        metavar="DIR",
    )
    test: tuple[Path, ...] | None = setting(
        "test text, in the same forms as --train",
        default=None,
        is_repeatable=True,
        may_be_remote=True,
        default_text="hold out training rows, see --holdout",
        metavar="FILE",
    )
    dataset: str | None = setting(
        f"published data set that the text comes from, which fixes columns and classes: {', '.join(DATASETS)}",
        default=None,
        choices=DATASETS,
        metavar="NAME",
    )
    vectorizer: str = setting(
        "how texts become numbers; auto decides by the number of rows and their median length",
        default="auto",
        choices=VECTORIZERS,
    )
    tokens: str = setting(
        "what rows are made of: words, or characters for text that is written without spaces",
        default="word",
        choices=TOKENS,
    )
    top_k: int = setting(
        "number of n-grams or words to keep", default=20_000, at_least=1, at_most=MAX_COLUMNS, metavar="K"
    )
    label_column: str | None = setting(
        "name or number (from 0) of the label column; a name needs a header in CSV files",
        default=None,
        default_text='"label" where columns have names, else the first column',
        metavar="COLUMN",
    )
    task: str | None = setting(
        "what a label is: a class, a set of labels, or a number to predict",
        default=None,
        default_text="multilabel with --label-separator and for lists of labels, else classification",
        choices=TASKS,
    )
    label_separator: str | None = setting(
        "text between the labels of a row, such as ';', for rows of several labels",
        default=None,
        default_text="labels are lists, in JSON Lines and Parquet",
        metavar="TEXT",
    )
    weight_column: str | None = setting(
        "name or number (from 0) of a column with the weight of each row, a number >= 0",
        default=None,
        default_text="each row weighs 1",
        metavar="COLUMN",
    )
    text_columns: tuple[str, ...] | None = setting(
        "names or numbers of the text columns, separated by commas; a space joins their texts",
        default=None,
        default_text='"text" in JSON Lines and Parquet, else all columns but the label',
        metavar="COLUMNS",
    )
    max_length: int = setting(
        "number of words or characters to keep of each row, for sequences",
        default=500,
        at_least=1,
        at_most=2**20,
        metavar="WORDS",
    )
    holdout: float = setting(
        "fraction of the training rows to hold out when --test is left out",
        default=0.1,
        above=0,
        below=1,
        metavar="FRACTION",
    )
    seed: int = setting("random seed that selects the held-out rows", default=0, at_least=-(2**63), below=2**63)
    memory_mib: int = setting(
        "memory for data in each process, in MiB, beyond what Python itself needs",
        default=1024,
        at_least=256,
        at_most=2**24,
        metavar="MIB",
    )
    max_rows: int = setting(
        "largest number of rows of the training text, and of the test text",
        default=1_000_000_000,
        at_least=1,
        at_most=MAX_ROWS,
        metavar="N",
    )
    max_text_gib: int = setting(
        "largest size of the training text, and of the test text, after decompression, in GiB",
        default=1024,
        at_least=1,
        at_most=2**20,
        metavar="GIB",
    )
    max_expansion: int = setting(
        "bytes of text that a byte on disk may become, beyond the first 64 MiB of text; text becomes 3 to 30",
        default=100,
        at_least=1,
        at_most=2**20,
        metavar="TIMES",
    )
    workers: int | None = setting(
        "number of processes; the prepared data does not depend on it; under mpirun, the processes of mpirun work",
        default=None,
        default_text=f"one per core, at most {MAX_DEFAULT_WORKERS}, "
        f"at least {MIN_BYTES_PER_WORKER >> 20} MiB of text each",
        at_least=1,
        at_most=256,
        metavar="N",
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.label_separator is not None:
            require(self.label_separator != "", "--label-separator", self.label_separator, "at least one character")
            several = self.task in (None, "multilabel")
            require(several, "--task", self.task, "multilabel or left out, because --label-separator is given")
        if self.dataset is not None:
            names = ("--task", "--label-separator")
            for name, value in zip(names, (self.task, self.label_separator), strict=True):
                require(value in (None, "classification"), name, value, "left out, as --dataset fixes the classes")
        if self.text_columns is not None:
            named = len(self.text_columns) > 0 and all(self.text_columns)
            require(named, "--text-columns", self.text_columns, "column names separated by commas")
            rule = "a column that is not among --text-columns"
            require(self.label_column not in self.text_columns, "--label-column", self.label_column, rule)
            require(self.weight_column not in self.text_columns, "--weight-column", self.weight_column, rule)
        if self.weight_column is not None:
            rule = "another column than --label-column"
            require(self.weight_column != self.label_column, "--weight-column", self.weight_column, rule)
