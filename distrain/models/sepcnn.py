"""The sequence model: separable convolutions over the words of each text, at its own length.

Decides: the model's layers and sizes. Never: how training works.

    model = SepCNN(vocabulary_size=20_002, num_classes=4, seed=7)
    probabilities = model(rows)        # WordRows packed by model.pad_multiple, or int32 [b, length] padded with 0

Layers and sizes follow Google's text classification guide. An embedding(200) comes first, then `blocks - 1` blocks of
dropout, two separable convolutions (filters, kernel 3) and max pooling. Two separable convolutions of twice the filters
follow, then global average, dropout and softmax; one sigmoid unit for two classes. Two details differ from the guide:

- The guide pads all texts to one length and convolves the padding. This model computes each text alone: zeros beyond
  both ends, fewer words in the last pooling window, a mean over the text's own windows.
- With the guide's initial depthwise kernels (uniform within 0.05) the signal vanishes over four convolutions. Training
  then starts with a long plateau that triggers early stopping. `SepCNN` starts with kernels that keep the variance.
"""

from __future__ import annotations

from typing import Any

import keras

from distrain.batch import WordRows
from distrain.config import DROPOUT_RATES, TrainConfig
from distrain.models.heads import head_of
from distrain.models.layers import PositionalDropout
from distrain.models.packed import (
    POOL_SIZE,
    PackedSeparableConv1D,
    WordEmbedding,
    max_pool,
    mean_of_rows,
    pack_padded,
    word_mask,
)


def pad_multiple_for(blocks: int) -> int:
    """Return the `pad_multiple` of packed rows for this number of blocks: the tokens pooled into one."""
    return POOL_SIZE ** (blocks - 1)


@keras.saving.register_keras_serializable("distrain")
class SepCNN(keras.Model):
    """Embedding, blocks of separable convolutions, mean, softmax (two classes: one sigmoid unit).

    Args:
        vocabulary_size: word ids are below it; 0 is padding.
        num_classes: classes, at least 2; or labels.
        embedding: width of a word's vector.
        blocks: number of blocks of two convolutions; the last block has no pooling.
        filters: filters of each convolution, doubled in the last block.
        dropout: dropout rate before each block but the last, and before the classifier.
        seed: seed of the dropout masks.
        task: "classification", "multilabel" or "regression"; see `heads`.
        target_mean: mean of the training targets of a regression.
        target_deviation: standard deviation of the training targets of a regression.
    """

    def __init__(
        self,
        vocabulary_size: int,
        num_classes: int,
        *,
        embedding: int = TrainConfig.embedding,
        blocks: int = TrainConfig.blocks,
        filters: int = TrainConfig.filters,
        dropout: float = DROPOUT_RATES["sequence"],
        seed: int = 0,
        task: str = "classification",
        target_mean: float | None = None,
        target_deviation: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.head = head_of(task, target_mean, target_deviation)
        self._settings = {
            "vocabulary_size": vocabulary_size,
            "num_classes": num_classes,
            "embedding": embedding,
            "blocks": blocks,
            "filters": filters,
            "dropout": dropout,
            "seed": seed,
            **self.head.config(),
        }
        self.pad_multiple = pad_multiple_for(blocks)
        self.embedding = WordEmbedding(vocabulary_size, embedding)
        self.block_dropouts = [PositionalDropout(dropout, seed=seed, stream=block) for block in range(blocks - 1)]
        widths = [filters] * (blocks - 1) + [2 * filters]
        channels = [embedding, *widths]
        self.first_convolutions = [PackedSeparableConv1D(*sizes) for sizes in zip(widths, channels, strict=False)]
        self.second_convolutions = [PackedSeparableConv1D(width, width) for width in widths]
        self.dropout = PositionalDropout(dropout, seed=seed, stream=blocks)
        full = self.dtype_policy.variable_dtype  # probabilities keep full precision in a mixed policy
        self.classifier = self.head.layer(num_classes, full)
        self.classifier.build((None, widths[-1]))
        self.built = True

    def call(self, inputs: Any, training: bool = False) -> Any:
        """Return class probabilities `[b, num_classes]`, or `[b, 1]` for two classes or a number."""
        rows = inputs if isinstance(inputs, WordRows) else pack_padded(inputs, self.pad_multiple)
        x = self.embedding(rows)
        is_word = word_mask(rows.words, x.dtype)
        first_token = rows.first_token
        for block, dropout in enumerate(self.block_dropouts):
            x = dropout(x, first_row=first_token, training=training)
            x, is_word = max_pool(self._convolved(block, x, is_word), is_word)
            first_token //= POOL_SIZE
        x = self._convolved(-1, x, is_word)
        means = mean_of_rows(x, is_word, rows.row_ids)
        return self.head.outputs(self.classifier(self.dropout(means, training=training)))

    def _convolved(self, block: int, x: Any, is_word: Any) -> Any:
        return self.second_convolutions[block](self.first_convolutions[block](x, is_word), is_word)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of `__init__`."""
        return dict(self._settings)
