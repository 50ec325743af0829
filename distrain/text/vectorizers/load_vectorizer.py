"""Opens a saved vectorizer of either kind.

Decides: which class reads the folder. Never: learns a vectorizer.

    vectorizer = load_vectorizer(Path("data/vectorizer"))
    rows = vectorizer.transform(["new text"])
"""

from __future__ import annotations

from pathlib import Path

from distrain.errors import DataError
from distrain.text.vectorizers.ngrams import NgramVectorizer
from distrain.text.vectorizers.sequences import SequenceVectorizer
from distrain.text.vectorizers.vectorizer_files import HEADER_NAME, load_arrays

Vectorizer = NgramVectorizer | SequenceVectorizer


def load_vectorizer(directory: Path) -> Vectorizer:
    """Return the vectorizer that is saved in `directory`.

    Raises:
        DataError: a file is missing or damaged.
    """
    header, arrays = load_arrays(directory)
    if header.get("kind") == NgramVectorizer.kind:
        return NgramVectorizer.from_arrays(header, arrays, directory)
    if header.get("kind") == SequenceVectorizer.kind:
        return SequenceVectorizer.from_arrays(header, arrays, directory)
    raise DataError(
        f"{Path(directory) / HEADER_NAME}: kind is {header.get('kind')!r}, not 'ngram' or 'sequence'; "
        "prepare the data again."
    )
