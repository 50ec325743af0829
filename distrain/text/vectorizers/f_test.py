"""Which features tell of the target: F-tests from sums by class, by label or with numbers, and the k best scores.

Decides: the score, and which features are kept at the cut. Never: reads rows.

    scores = class_scores(sums, class_sizes)
    kept = best(scores, keys, 20_000)            # ascending
    least_rows(scores[kept].min(), class_sizes)  # features in fewer rows score less

Scores that agree to 40 bits (about 12 digits) count as equal, because smaller differences are rounding. Among equal
scores at the cut, features with larger keys are kept.
"""

from __future__ import annotations

import numpy as np

from distrain.jit import compiled
from distrain.text.vectorizers.group_sums import GroupSums

_SCORE_BITS = 40
_ROUNDING = 1e-6  # relative error allowed for a score; the real error is far smaller


def class_scores(sums: GroupSums, class_sizes: np.ndarray, *, scale: float = 1.0) -> np.ndarray:
    """Return the F value of each feature: the variance between classes over the variance within classes.

    Formula and order of summation follow `sklearn.feature_selection.f_oneway` (Heiman, Research Methods in
    Statistics, 2002, p. 394). Scores that consist of rounding errors alone therefore agree, too.

    Args:
        sums: a line for each feature, and a group for each class; values are times `scale`.
        class_sizes: `[classes]`: rows of each class, all above 0.
        scale: a power of two.

    Returns:
        float64 `[features]`; infinite or NaN where nothing varies within the classes.
    """
    num_classes, num_rows = len(class_sizes), int(class_sizes.sum())
    arrays = sums.offsets, sums.groups, sums.sums
    between, within = _sums_of_squares(*arrays, class_sizes.astype(np.float64), 1 / scale)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (between / np.float64(num_classes - 1)) / (within / np.float64(num_rows - num_classes))


@compiled
def _sums_of_squares(
    offsets: np.ndarray, groups: np.ndarray, sums: np.ndarray, class_sizes: np.ndarray, unit: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums of squares between classes and within classes, float64 `[features]` each."""
    num_rows, num_features = class_sizes.sum(), len(offsets) - 1
    between, within = np.empty(num_features), np.empty(num_features)
    every = np.arange(len(class_sizes))
    for feature in range(num_features):
        total, squares, class_squares = 0.0, 0.0, 0.0
        start = offsets[feature]
        taken = groups[start : offsets[feature + 1]]
        places = every if len(taken) == len(class_sizes) else np.argsort(taken)
        for place in places:
            if taken[place] < 0:
                continue
            class_sum = sums[start + place, 0] * unit
            total += class_sum
            squares += sums[start + place, 1] * unit
            class_squares += class_sum * class_sum / class_sizes[taken[place]]
        total_squared = total * total / num_rows
        between[feature] = class_squares - total_squared
        within[feature] = (squares - total_squared) - between[feature]
    return between, within


def label_scores(sums: GroupSums, label_sizes: np.ndarray, num_rows: int, *, scale: float = 1.0) -> np.ndarray:
    """Return the largest F value of each feature over labels: rows with a label against rows without.

    Args:
        sums: a line for each feature, a group for each label, and a last group for all rows; values are times `scale`.
        label_sizes: `[labels]`: rows with each label. A label that no row or each row has counts for nothing.
        num_rows: number of rows.
        scale: a power of two.

    Returns:
        float64 `[features]`; infinite or NaN where nothing varies within the groups, and 0 without a label.
    """
    by_size = np.argsort(-label_sizes, kind="stable")
    sizes = label_sizes.astype(np.float64)
    return _largest_score(sums.offsets, sums.groups, sums.sums, sizes, by_size, float(num_rows), 1 / scale)


@compiled
def _largest_score(
    offsets: np.ndarray,
    groups: np.ndarray,
    sums: np.ndarray,
    sizes: np.ndarray,
    by_size: np.ndarray,
    num_rows: float,
    unit: float,
) -> np.ndarray:
    num_labels, num_features = len(sizes), len(offsets) - 1
    label_sums = np.zeros(num_labels)
    scores = np.zeros(num_features)
    for feature in range(num_features):
        total, squares = 0.0, 0.0
        for slot in range(offsets[feature], offsets[feature + 1]):
            if groups[slot] == num_labels:
                total, squares = sums[slot, 0] * unit, sums[slot, 1] * unit
            elif groups[slot] >= 0:
                label_sums[groups[slot]] = sums[slot, 0] * unit
        for label in by_size:  # of labels without the feature the largest scores highest
            if 0 < sizes[label] < num_rows and label_sums[label] == 0.0:
                scores[feature] = _two_group_score(0.0, total, squares, sizes[label], num_rows)
                break
        for slot in range(offsets[feature], offsets[feature + 1]):
            label = groups[slot]
            if 0 <= label < num_labels:
                if 0 < sizes[label] < num_rows:
                    score = _two_group_score(label_sums[label], total, squares, sizes[label], num_rows)
                    if not score <= scores[feature]:
                        scores[feature] = score
                label_sums[label] = 0.0
    return scores


@compiled
def _two_group_score(own: float, total: float, squares: float, size: float, num_rows: float) -> float:
    rest = total - own
    between = own * own / size + rest * rest / (num_rows - size) - total * total / num_rows
    within = squares - total * total / num_rows - between
    if within == 0.0 or num_rows == 2:  # two rows, one in each group, do not vary within the groups
        return np.inf if between > 0.0 else np.nan
    return between / (within / (num_rows - 2))


def number_scores(sums: np.ndarray, num_rows: int, *, scale: float = 1.0) -> np.ndarray:
    """Return the F value of each feature's correlation with the target, as scikit-learn's `f_regression`.

    Args:
        sums: `[features, 3]`: sums of values, squares, and products with targets of mean 0 and deviation 1; all times
            `scale`.
        num_rows: number of rows.
        scale: a power of two.
    """
    total, squares, products = (sums / scale).T
    with np.errstate(divide="ignore", invalid="ignore"):
        squared = products * products / (num_rows * (squares - total * total / num_rows))
        return squared / (1 - squared) * np.float64(num_rows - 2)


def best(scores: np.ndarray, keys: np.ndarray, k: int) -> np.ndarray:
    """Return the indices of the `k` features of highest score, ascending, int64; NaN counts as the lowest score.

    Args:
        scores: float64 `[features]`.
        keys: integers `[features]`: among equal scores the features with the largest keys are taken.
        k: number of features to take.
    """
    fraction, exponent = np.frexp(scores)
    rounded = np.ldexp(np.round(np.ldexp(fraction, _SCORE_BITS)), exponent - _SCORE_BITS)
    rounded[np.isnan(rounded)] = np.finfo(np.float64).min
    if k >= len(rounded):
        return np.arange(len(rounded))
    cut = np.partition(rounded, len(rounded) - k)[len(rounded) - k]
    above, at_cut = np.flatnonzero(rounded > cut), np.flatnonzero(rounded == cut)
    at_cut = at_cut[np.argsort(keys[at_cut])]
    return np.sort(np.concatenate([above, at_cut[len(above) - k :]]))


def least_rows(score: float, class_sizes: np.ndarray) -> int:
    """Return the smallest number of rows that a feature with this score can occur in; 0 if there is no bound.

    Let a feature be other than 0 in n rows, n_c of them in class c, which has N_c rows. The squares between the classes
    are at most the sum over c of (class sum)^2 / N_c. By Cauchy and Schwarz each term is at most
    (sum of squares of c) x n_c / N_c. All terms together are at most the fraction r = n / (smallest N_c) of all
    squares. The score is therefore at most r / (1 - r) times (rows - classes) / (classes - 1).
    """
    if not 0 < score < np.inf:
        return 0
    num_classes, num_rows = len(class_sizes), int(class_sizes.sum())
    fraction = score / (score + (num_rows - num_classes) / (num_classes - 1))
    return int(fraction * class_sizes.min() * (1 - _ROUNDING))
