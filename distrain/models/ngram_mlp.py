"""The n-gram model: a multi-layer perceptron over sparse TF-IDF rows.

Decides: the model's layers and sizes. Never: how training works.

    model = NgramMLP(num_features=20_000, num_classes=4, seed=7)
    probabilities = model(rows)        # SparseRows, tf.SparseTensor or dense [b, num_features]

Layers and sizes follow Google's text classification guide: dropout, dense(64, relu), dropout, softmax; one sigmoid
unit for two classes. The guide drops 0.2. A rate of 0.4 gave a lower validation loss on both real data sets of
`benchmarks/RESULTS.md`.
"""

from __future__ import annotations

from typing import Any

import keras

from distrain.config import DROPOUT_RATES, TrainConfig
from distrain.models.heads import head_of
from distrain.models.layers import PositionalDropout, SparseDense


@keras.saving.register_keras_serializable("distrain")
class NgramMLP(keras.Model):
    """Dropout, dense(units, relu), dropout, softmax (two classes: one sigmoid unit).

    Args:
        num_features: columns of the input.
        num_classes: classes, at least 2; or labels.
        units: width of the hidden layer.
        dropout: dropout rate before each dense layer.
        seed: seed of the dropout masks.
        task: "classification", "multilabel" or "regression"; see `heads`.
        target_mean: mean of the training targets of a regression.
        target_deviation: standard deviation of the training targets of a regression.
    """

    accepts_sparse_rows = True

    def __init__(
        self,
        num_features: int,
        num_classes: int,
        *,
        units: int = TrainConfig.units,
        dropout: float = DROPOUT_RATES["ngram"],
        seed: int = 0,
        task: str = "classification",
        target_mean: float | None = None,
        target_deviation: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.head = head_of(task, target_mean, target_deviation)
        self._settings = {
            "num_features": num_features,
            "num_classes": num_classes,
            "units": units,
            "dropout": dropout,
            "seed": seed,
            **self.head.config(),
        }
        self.input_dropout = PositionalDropout(dropout, seed=seed, stream=0)
        self.hidden = SparseDense(units, num_features, activation="relu")
        self.hidden_dropout = PositionalDropout(dropout, seed=seed, stream=1)
        full = self.dtype_policy.variable_dtype  # probabilities keep full precision in a mixed policy
        self.classifier = self.head.layer(num_classes, full)
        self.classifier.build((None, units))
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Return class probabilities `[b, num_classes]`, or `[b, 1]` for two classes or a number."""
        hidden = self.hidden(self.input_dropout(inputs, training=training))
        return self.head.outputs(self.classifier(self.hidden_dropout(hidden, training=training)))

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of `__init__`."""
        return dict(self._settings)
