"""Whether a model can learn from the labels of the training rows, and which labels are suspicious.

Decides: which labels are refused, and which are warned of. Never: reads text.

    check_targets("train.csv", training, store)              # DataError: all rows are of one class
    warnings += target_warnings("train.csv", training, store, has_weights=False)
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal

import numpy as np

from distrain.data.prepared.rows import Rows
from distrain.errors import DataError
from distrain.prepare.inputs import Training
from distrain.text.readers.numbers import parse_number
from distrain.text.vectorizers.feature_tests import RowGroups, RowNumbers
from distrain.text.vectorizers.token_store import TokenStore

# A class is rare with less than 1% of the rows, and with less than a tenth of the rows of a mean class.
RARE_SHARE = 0.01
RARE_FRACTION = 0.1
_BOOLEANS = {"true": "1", "false": "0"}  # of another file, which writes them as numbers


def check_targets(title: str, training: Training, store: TokenStore) -> None:
    """Raise DataError if the labels of all training rows are alike.

    Args:
        title: name of the input.
        training: the training rows.
        store: the same rows.
    """
    learnt = training.learnt
    if isinstance(learnt.features, RowNumbers):
        if not learnt.features.deviation > 0:
            raise DataError(
                f"{title}: all targets are {learnt.features.mean:g}, so there is nothing to predict. "
                f"Check --label-column.{training.hint}"
            )
        return
    sizes = _sizes(training, store)
    if learnt.task == "multilabel":
        if not np.any((sizes > 0) & (sizes < store.num_rows)):
            raise DataError(
                f"{title}: all rows have the same labels, so there is nothing to tell apart. Check --label-column."
            )
    elif np.count_nonzero(sizes) < 2:
        only = learnt.names[int(sizes.argmax())]
        raise DataError(
            f"{title}: all rows are of class {only[:100]!r}, so there is nothing to tell apart. "
            f"Check --label-column.{training.hint}"
        )


def target_warnings(title: str, training: Training, store: TokenStore, *, has_weights: bool) -> list[str]:
    """Return a message for each suspicious fact about classes or labels.

    Args:
        title: name of the input.
        training: the training rows.
        store: the same rows.
        has_weights: whether rows have weights, which exclude weights of classes.
    """
    learnt, warnings = training.learnt, []
    if isinstance(learnt.features, RowNumbers):
        return []
    names, sizes = learnt.names, _sizes(training, store)
    things = "classes" if learnt.task == "classification" else "labels"
    for count, what in ((0, "no training row"), (1, "only one training row")):
        few = np.flatnonzero(sizes == count)
        if len(few):
            shown = ", ".join(repr(names[number][:40]) for number in few[:5]) + (", ..." if len(few) > 5 else "")
            hint = training.hint if count == 1 and _may_be_header(training, sizes) else ""
            warnings.append(f"{title}: {len(few):,} of {len(names):,} {things} have {what}: {shown}.{hint}")
    if not learnt.is_known and (alike := _alike(names)):
        shown = "; ".join(", ".join(repr(name[:40]) for name in group[:5]) for group in alike[:5])
        more = "; ..." if len(alike) > 5 else ""
        warnings.append(
            f"{title}: {things} that differ in spelling alone are learnt as different {things}: {shown}{more}. Give "
            "one name to labels that mean one thing."
        )
    can_weigh = learnt.task == "classification" and not has_weights
    if warning := _rare_classes(sizes, names, store.num_rows, things, can_weigh):
        warnings.append(f"{title}: {warning}")
    if isinstance(learnt.features, RowGroups):
        lengths = np.diff(learnt.features.splits)[: len(store.class_sizes)]
        if empty := int(store.class_sizes[: len(lengths)][lengths == 0].sum()):
            rows = f"{empty:,} of {store.num_rows:,} training {'row has' if empty == 1 else 'rows have'}"
            warnings.append(f"{title}: {rows} no label, which is learnt as such.")
    return warnings


def _alike(names: Sequence[str]) -> list[list[str]]:
    """Return the groups of names that differ in letter case, in Unicode's form, or as written numbers alone."""
    groups: dict[str | Decimal, list[str]] = {}
    for name in names:
        plain = unicodedata.normalize("NFKC", name).casefold()
        plain = _BOOLEANS.get(plain, plain)
        groups.setdefault(plain if parse_number(plain) is None else Decimal(plain), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def with_a_weight(pieces: Iterable[Rows], title: str, rows_of_part: str) -> Iterator[Rows]:
    """Pass on the rows of a part.

    Args:
        pieces: the rows.
        title: name of the input.
        rows_of_part: which rows of the input they are.

    Raises:
        DataError: at their end, if rows have weights, which are all 0.
    """
    have_weights = is_any_above_0 = False
    for rows in pieces:
        if rows.weights is not None:
            have_weights, is_any_above_0 = True, is_any_above_0 or bool(rows.weights.any())
        yield rows
    if have_weights and not is_any_above_0:
        raise DataError(
            f"{title}: the weights of all {rows_of_part} rows are 0. Give --test, or another --seed or --holdout."
        )


def _sizes(training: Training, store: TokenStore) -> np.ndarray:
    """Return the training rows of each class or label, int64."""
    learnt = training.learnt
    if isinstance(learnt.features, RowGroups):
        return learnt.features.sizes(store.class_sizes)
    sizes = np.zeros(len(learnt.names), np.int64)
    sizes[learnt.final(np.arange(len(store.class_sizes)))] = store.class_sizes
    return sizes


def _may_be_header(training: Training, sizes: np.ndarray) -> bool:
    """Whether the label of the first row occurs only there."""
    learnt = training.learnt
    if learnt.task != "classification" or learnt.is_known:
        return False
    return bool(sizes[learnt.final(np.array([training.first_label]))][0] == 1)


def _rare_classes(sizes: np.ndarray, names: Sequence[str], num_rows: int, things: str, can_weigh: bool) -> str:
    """Return a warning of classes or labels that a model may never predict, or an empty string."""
    share, mean = sizes / num_rows, sizes.sum() / num_rows / len(names)
    rare = np.flatnonzero((share < min(RARE_SHARE, RARE_FRACTION * mean)) & (sizes > 1))
    if not len(rare):
        return ""
    rare = rare[np.argsort(sizes[rare], kind="stable")]
    shown = ", ".join(f"{names[number][:40]!r} ({sizes[number]:,}, {share[number]:.2%})" for number in rare[:5])
    shown += ", ..." if len(rare) > 5 else ""
    cure = "train with --class-weight balanced, and see" if can_weigh else "see"
    return (
        f"{len(rare):,} of {len(names):,} {things} have few rows: {shown}. A model may never predict "
        f"them, and accuracy hides it: {cure} `distrain evaluate`."
    )
