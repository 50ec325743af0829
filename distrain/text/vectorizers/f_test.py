"""Which features separate the classes: a one-way ANOVA F-test from sums by class, and the k best scores.

Decides: the score, and which features are kept at the cut. Never: reads rows.

    scores = f_scores(sums, class_sizes)
    kept = best(scores, keys, 20_000)            # ascending
    least_rows(scores[kept].min(), class_sizes)  # features in fewer rows score less

Scores that agree to 40 bits (about 12 digits) count as equal, because smaller differences are rounding. Among equal
scores at the cut, features with larger keys are kept.
"""

from __future__ import annotations

import numpy as np

from distrain.jit import compiled

_SCORE_BITS = 40
_ROUNDING = 1e-6  # relative error allowed for a score; the real error is far smaller


def f_scores(sums: np.ndarray, class_sizes: np.ndarray, *, scale: float = 1.0) -> np.ndarray:
    """Return the F value of each feature: the variance between classes over the variance within classes.

    Formula and order of summation follow `sklearn.feature_selection.f_oneway` (Heiman, Research Methods in
    Statistics, 2002, p. 394). Scores that consist of rounding errors alone therefore agree, too.

    Args:
        sums: `[features, classes, 2]`: sum of a class's values, and sum of their squares, both times `scale`.
        class_sizes: `[classes]`: rows of each class, all above 0.
        scale: a power of two.

    Returns:
        float64 `[features]`; infinite or NaN where nothing varies within the classes.
    """
    num_classes, num_rows = len(class_sizes), int(class_sizes.sum())
    between, within = _sums_of_squares(sums, class_sizes.astype(np.float64), 1 / scale)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (between / np.float64(num_classes - 1)) / (within / np.float64(num_rows - num_classes))


@compiled
def _sums_of_squares(sums: np.ndarray, class_sizes: np.ndarray, unit: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the sums of squares between classes and within classes, float64 `[features]` each."""
    num_rows = class_sizes.sum()
    between, within = np.empty(len(sums)), np.empty(len(sums))
    for feature in range(len(sums)):
        total, squares, class_squares = 0.0, 0.0, 0.0
        for label in range(len(class_sizes)):
            class_sum = sums[feature, label, 0] * unit
            total += class_sum
            squares += sums[feature, label, 1] * unit
            class_squares += class_sum * class_sum / class_sizes[label]
        total_squared = total * total / num_rows
        between[feature] = class_squares - total_squared
        within[feature] = (squares - total_squared) - between[feature]
    return between, within


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
