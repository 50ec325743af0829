"""A vectorizer on disk: a folder with a JSON header and arrays in safetensors, neither of which can run code.

Decides: file names, and when a file is damaged. Never: what the arrays mean.

    save_arrays(folder, {"kind": "ngram"}, {"keys": keys})
    header, arrays = load_arrays(folder)
    keys = take_array(arrays, "keys", np.int64, folder)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from distrain.array_files import save_safetensors
from distrain.config import TOKENS
from distrain.errors import DataError
from distrain.files import naming, read_json_object
from distrain.text.vectorizers.tokenizer import Words

HEADER_NAME = "vectorizer.json"
ARRAYS_NAME = "vectorizer.safetensors"
_FORMAT = "distrain-vectorizer"
_VERSION = 1
_CURE = "prepare the data again, or copy the folder again"


def save_arrays(directory: Path, header: Mapping[str, object], arrays: Mapping[str, np.ndarray]) -> None:
    """Write both files into `directory`, which is made if need be; the header last."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    save_safetensors(directory / ARRAYS_NAME, arrays)
    text = json.dumps({"format": _FORMAT, "version": _VERSION, **header}, indent=2)
    with naming(directory / HEADER_NAME):
        (directory / HEADER_NAME).write_text(text + "\n", encoding="utf-8")


def load_arrays(directory: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the header and the arrays that `save_arrays` wrote.

    Raises:
        DataError: a file is missing, unreadable or of another format.
    """
    header_path, arrays_path = Path(directory) / HEADER_NAME, Path(directory) / ARRAYS_NAME
    try:
        header = read_json_object(header_path)
        arrays = load_file(arrays_path)
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError(f"{directory}: the vectorizer cannot be read ({error}); {_CURE}.") from error
    if header.get("format") != _FORMAT:
        raise DataError(f"{header_path}: this is not a vectorizer's header; {_CURE}.")
    if header.get("version") != _VERSION:
        raise DataError(
            f"{header_path}: version is {header.get('version')!r}, and this distrain reads {_VERSION}; "
            "prepare the data again."
        )
    return header, arrays


def damaged(directory: Path, what: str) -> DataError:
    """Return the error for contents that break a rule; `what` is a clause that names the rule."""
    return DataError(f"{Path(directory) / ARRAYS_NAME}: {what}; the file is damaged: {_CURE}.")


def take_array(arrays: Mapping[str, np.ndarray], name: str, dtype: type, directory: Path) -> np.ndarray:
    """Return a writable copy of the array `name`, which must have one axis and this dtype.

    Raises:
        DataError: the array is missing, or has another shape or dtype.
    """
    array = arrays.get(name)
    if array is None or array.ndim != 1 or array.dtype != dtype:
        raise damaged(directory, f"array {name!r} is missing or is not {np.dtype(dtype).name} with one axis")
    return np.array(array)


def take_count(header: Mapping[str, Any], name: str, directory: Path) -> int:
    """Return the whole number `name` of the header, from 1 to 2**31 - 1.

    Raises:
        DataError: the header holds no such number.
    """
    count = header.get(name)
    if type(count) is not int or not 1 <= count < 2**31:
        raise DataError(f"{Path(directory) / HEADER_NAME}: {name} is {count!r}, not a number from 1; {_CURE}.")
    return count


def tokens_header(tokens: str) -> dict[str, object]:
    """Return what a header says about tokens: nothing about words, so that earlier vectorizers are words."""
    return {} if tokens == "word" else {"tokens": tokens}


def take_tokens(header: Mapping[str, Any], directory: Path) -> str:
    """Return the kind of tokens that `tokens_header` wrote.

    Raises:
        DataError: the header names no kind of tokens.
    """
    tokens = header.get("tokens", "word")
    if tokens not in TOKENS:
        names = " or ".join(map(repr, TOKENS))
        raise DataError(f"{Path(directory) / HEADER_NAME}: tokens is {tokens!r}, not {names}; {_CURE}.")
    return str(tokens)


def take_words(arrays: dict[str, np.ndarray], directory: Path) -> Words:
    """Return the words that both kinds of vectorizer save in `arrays`.

    Raises:
        DataError: the arrays of the words are missing, do not fit together or are not UTF-8.
    """
    pool = take_array(arrays, "word_pool", np.uint8, directory)
    ends = take_array(arrays, "word_ends", np.int64, directory)
    if len(ends) and not (ends[0] > 0 and ends[-1] == len(pool) and np.all(np.diff(ends) > 0)):
        raise damaged(directory, "'word_ends' do not ascend to the end of 'word_pool'")
    words = Words(pool, ends)
    try:
        for word in words.to_list():
            word.decode()
    except UnicodeDecodeError as error:
        raise damaged(directory, "'word_pool' is not UTF-8") from error
    return words
