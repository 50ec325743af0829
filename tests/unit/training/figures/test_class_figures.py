"""Figures by class against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

from distrain.training.figures.class_figures import MAX_CONFUSION_CLASSES, class_figures


@pytest.mark.parametrize("num_classes", [2, 5, MAX_CONFUSION_CLASSES, MAX_CONFUSION_CLASSES + 1, 300])
@pytest.mark.parametrize("seed", range(3))
def test_figures_of_counts(num_classes, seed):
    rng = np.random.default_rng(seed)
    shares = rng.dirichlet(np.full(num_classes, 0.3))  # some classes without examples, some never predicted
    labels = rng.choice(num_classes, 200, p=shares)
    predicted = np.where(rng.random(200) < 0.6, labels, rng.choice(num_classes, 200, p=shares))
    matrix = confusion_matrix(labels, predicted, labels=range(num_classes)).astype(np.float64)
    is_small = num_classes <= MAX_CONFUSION_CLASSES
    counts = matrix if is_small else np.stack([np.diagonal(matrix), matrix.sum(0), matrix.sum(1)])
    names = [f"class {number}" for number in range(num_classes)]
    figures = class_figures(counts, names)

    columns = precision_recall_fscore_support(labels, predicted, labels=range(num_classes), zero_division=0)
    expected = np.stack(columns, axis=1)
    found = [[row[key] for key in ("precision", "recall", "f1", "support")] for row in figures["classes"].values()]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert list(figures["classes"]) == names
    macro = f1_score(labels, predicted, labels=range(num_classes), average="macro", zero_division=0)
    assert figures["macro_f1"] == pytest.approx(macro, rel=1e-12)
    assert figures.get("confusion") == (matrix.astype(int).tolist() if is_small else None)
