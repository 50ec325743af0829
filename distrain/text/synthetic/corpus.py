"""Made-up labelled text of any size: a Zipf vocabulary of made-up words, with classes that a model can learn.

Decides: the language that text is drawn from, and the files. Never: reads anything, or holds more than some
megabytes.

    >>> import tempfile
    >>> written = write_synthetic(Path(tempfile.mkdtemp()), rows=100)
    >>> written.train.name, written.rows, written.test_rows
    ('train.csv', 100, 10)

A row is `"3","Title words","Text. Words of text"`: no header, every field quoted, the class counted from 1.
Three properties depend on the class, so that better models score better:

* topic words of the class, mixed with topic words of other classes (`TOPIC_SHARE`, `TOPIC_PURITY` of the kernel);
* pairs of words that all classes use equally often, but pair differently (`PAIR_SHARE`): only bigrams show them;
* the label itself, which is wrong in some rows (`LABEL_NOISE`), so that no model can predict all labels.

Each row is drawn from a stream of random numbers of its own, keyed by (seed, file, row). A file therefore depends on
its settings alone, and not on the size of the blocks that are written.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import NamedTuple

import numpy as np

from distrain.config import SynthConfig
from distrain.errors import ConfigurationError
from distrain.files import atomic_write, describe, make_folder, naming
from distrain.text.synthetic.corpus_kernel import fill_block

VOCABULARY = 50_000
TOPIC_WORDS = 400  # number of words of a class
PAIR_WORDS = 64  # first words, and as many second words, of all pairs
COMMON_WORDS = 200  # the most frequent words belong to no class, as "the" and "of" do not
LENGTH_SPREAD = 0.5  # standard deviation of the logarithm of a row's length: as in news and reviews

BLOCK_BYTES = 4 << 20

_ONSETS = (*"bcdfghjklmnprstvwz", "ch", "sh", "th")
_VOWELS = "aeiou"
_ZIPF_TABLE = 1 << 20  # entries; enough for the rarest word to have an entry
_SMALL_TABLE = 1 << 10


@dataclass(frozen=True)
class Written:
    """What `write_synthetic` wrote.

    Attributes:
        train: the file of the training rows.
        test: the file of the test rows.
        rows: number of training rows.
        test_rows: number of test rows.
        num_bytes: size of both files together.
    """

    train: Path
    test: Path
    rows: int
    test_rows: int
    num_bytes: int


class _Language(NamedTuple):
    """The words and tables that rows are drawn from, as arrays for the kernel.

    Attributes:
        letters: uint8 `[VOCABULARY, longest]`: the letters of each word, most frequent word first.
        num_letters: uint8 `[VOCABULARY]`: number of letters of each word.
        zipf: uint16 `[_ZIPF_TABLE]`: a word for each equally likely number.
        topics: uint16 `[classes, TOPIC_WORDS]`: the words of each class.
        topic_zipf: uint16 `[_SMALL_TABLE]`: index of a word within its class.
        pairs: uint16 `[2, PAIR_WORDS]`: first and second words of pairs.
        pair_zipf: uint16 `[_SMALL_TABLE]`: index of a first word.
        lengths: int64 `[_SMALL_TABLE]`: words in a row.
    """

    letters: np.ndarray
    num_letters: np.ndarray
    zipf: np.ndarray
    topics: np.ndarray
    topic_zipf: np.ndarray
    pairs: np.ndarray
    pair_zipf: np.ndarray
    lengths: np.ndarray


def write_synthetic(
    out: Path,
    *,
    rows: int,
    classes: int = SynthConfig.classes,
    words_per_row: int = SynthConfig.words_per_row,
    seed: int = SynthConfig.seed,
    test_rows: int | None = None,
) -> Written:
    """Write `train.csv` and `test.csv` of made-up labelled text, in constant memory.

    The same settings give the same bytes. Each file appears under its name only when complete.

    Args:
        out: the folder, created if missing; existing files of these names are replaced.
        rows: number of training rows, at least `classes`, so that each class occurs.
        classes: number of classes, 2 to 1,000.
        words_per_row: mean number of words in a row, title and text together, 2 to 100,000.
        seed: another seed gives another language and other rows; 0 to 2**63 - 1.
        test_rows: number of test rows; default: a tenth of `rows`, and at least `classes`.

    Raises:
        ConfigurationError: a setting is out of its range, or `out` is no folder and cannot be made one.
    """
    config = SynthConfig(out=out, rows=rows, classes=classes, words_per_row=words_per_row, seed=seed)
    out = config.out
    test_rows = max(rows // 10, classes) if test_rows is None else test_rows
    config.check_rows("--test-rows", test_rows)
    try:
        make_folder(out)
        language = _make_language(classes, words_per_row, seed)
        train, test = out / "train.csv", out / "test.csv"
        num_bytes = _write_rows(train, rows, language, stream=2 * seed)
        num_bytes += _write_rows(test, test_rows, language, stream=2 * seed + 1)
    except OSError as error:
        raise ConfigurationError(
            f"--out {out} cannot be written ({describe(error)}). Give a folder with enough free space."
        ) from None
    return Written(train, test, rows, test_rows, num_bytes)


def _write_rows(path: Path, rows: int, language: _Language, stream: int) -> int:
    """Write one file; returns its size in bytes."""
    longest_row = 32 + int(language.lengths.max() + 1) * (language.letters.shape[1] + 2)
    block = np.empty(max(BLOCK_BYTES, 2 * longest_row), np.uint8)
    size = row = 0
    with atomic_write(path) as tmp_path, naming(path), tmp_path.open("wb") as file:
        while row < rows:
            row, used = fill_block(block, longest_row, row, rows, np.uint64(stream), *language)
            file.write(block[:used].data)
            size += used
    return size


def _make_language(classes: int, words_per_row: int, seed: int) -> _Language:
    random = np.random.default_rng([seed, 0])
    letters, num_letters = _make_words(random)
    pairs = random.choice(np.arange(COMMON_WORDS, VOCABULARY, dtype=np.uint16), (2, PAIR_WORDS), replace=False)
    return _Language(
        letters=letters,
        num_letters=num_letters,
        zipf=_zipf_table(VOCABULARY, _ZIPF_TABLE),
        topics=random.integers(COMMON_WORDS, VOCABULARY, (classes, TOPIC_WORDS), np.uint16),
        topic_zipf=_zipf_table(TOPIC_WORDS, _SMALL_TABLE),
        pairs=pairs,
        pair_zipf=_zipf_table(PAIR_WORDS, _SMALL_TABLE),
        lengths=_length_table(words_per_row),
    )


def _make_words(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Different words of one, two and three syllables, the shorter ones first, as frequent words are short.

    Each syllable is consonants and one vowel, so no two sequences of syllables read the same.
    """
    syllables = [onset + vowel for onset in _ONSETS for vowel in _VOWELS]
    random.shuffle(syllables)
    count = len(syllables)
    words = list(syllables)
    words += [syllables[i // count] + syllables[i % count] for i in random.permutation(count**2).tolist()]
    threes = random.choice(count**3, VOCABULARY - len(words), replace=False).tolist()
    words += [syllables[i // count**2] + syllables[i // count % count] + syllables[i % count] for i in threes]
    padded = np.array(words, dtype=np.bytes_)
    letters = padded.view(np.uint8).reshape(VOCABULARY, padded.itemsize)
    return letters, np.char.str_len(padded).astype(np.uint8)


def _zipf_table(num_words: int, size: int) -> np.ndarray:
    """uint16 `[size]`: rank r fills a share of the table proportional to 1 / (r + 1) (Zipf's law)."""
    share = np.cumsum(1.0 / np.arange(1, num_words + 1))
    return np.searchsorted(share, (np.arange(size) + 0.5) / size * share[-1]).astype(np.uint16)


def _length_table(mean: int) -> np.ndarray:
    """int64 `[_SMALL_TABLE]`: log-normal row lengths by quantile, with the given mean, at least 2."""
    quantiles = (np.arange(_SMALL_TABLE) + 0.5) / _SMALL_TABLE
    normal = np.array([NormalDist().inv_cdf(quantile) for quantile in quantiles.tolist()])
    lengths = np.exp(LENGTH_SPREAD * normal)
    return np.maximum(np.rint(lengths * (mean / lengths.mean())), 2).astype(np.int64)
