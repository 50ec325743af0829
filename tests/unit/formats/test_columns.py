"""Features, label and weight are named alike for all formats."""

from __future__ import annotations

import numpy as np
import pytest

from distrain.errors import ConfigurationError, DataError
from distrain.formats.columns import Column, assembled, chosen_parts

NUMBER = Column(rows=2, dtype=np.dtype("float32"), shape=())
IMAGE = Column(rows=2, dtype=np.dtype("uint8"), shape=(2, 2))
TABLE = {"age": NUMBER, "income": NUMBER, "y": NUMBER, "weight": NUMBER}
VALUES = {
    "age": np.array([1, 2]),
    "income": np.array([3, 4]),
    "pair": np.array([[7.0, 8.0], [9.0, 10.0]]),
    "y": np.array([0, 1]),
    "weight": np.array([0.5, 1.0]),
    "image": np.zeros((2, 2, 2), np.uint8),
    "text": np.array(["a", "b"], object),
}


def chosen(columns, features=None, label=None, weight=None):
    return assembled(chosen_parts(columns, features=features, label=label, weight=weight), VALUES)


def test_numbers_of_a_table_are_one_vector_by_default():
    features, labels, weights = chosen(TABLE)
    assert features.tolist() == [[1, 3], [2, 4]]
    assert (labels.tolist(), weights.tolist()) == ([0, 1], [0.5, 1.0])


def test_other_columns_are_inputs_by_name_by_default():
    features, _ = chosen({"age": NUMBER, "image": IMAGE, "y": NUMBER})
    assert features["age"].tolist() == [1, 2]
    assert features["image"].shape == (2, 2, 2)
    (alone,) = chosen({"image": IMAGE})
    assert alone.shape == (2, 2, 2)


def test_a_name_is_a_column_a_list_a_vector_and_a_dict_inputs_by_name():
    columns = {**TABLE, "pair": Column(2, np.dtype("float64"), (2,)), "image": IMAGE}
    assert chosen(columns, features="age")[0].tolist() == [1, 2]
    assert chosen(columns, features=["age"])[0].tolist() == [[1], [2]]
    assert chosen(columns, features=["pair", "age"])[0].tolist() == [[7, 8, 1], [9, 10, 2]]
    features, labels = chosen(columns, features={"a": "image", "b": ["age", "income"]}, label=["y", "age"])[:2]
    assert features["a"].shape == (2, 2, 2)
    assert features["b"].tolist() == [[1, 3], [2, 4]]
    assert labels.tolist() == [[0, 1], [1, 2]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": ["age", "wings"]}, "features= names the column 'wings', but the columns are 'age', 'income'"),
        ({"label": "wings"}, "label= names the column 'wings'"),
        ({"features": ["age", "age"]}, "names a column twice"),
        ({"features": []}, "There are no features"),
    ],
)
def test_names_that_cannot_be_are_refused(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        chosen(TABLE, **arguments)
    with pytest.raises(ConfigurationError, match="'label' and 'y' both look like the label: choose by label="):
        chosen({"label": NUMBER, "y": NUMBER, "age": NUMBER})


def test_a_vector_consists_of_numbers():
    columns = {**TABLE, "image": IMAGE, "text": Column(2)}
    with pytest.raises(DataError, match=r"'image' has rows of shape \(2, 2\), .*features={'image': 'image', ...}"):
        chosen(columns, features=["age", "image"])
    with pytest.raises(DataError, match="'text' has no numbers"):
        chosen(columns, features=["age", "text"])
