"""Weights by class: names and numbers of classes, and refusals."""

from __future__ import annotations

import numpy as np
import pytest

from distrain.data.sources import array_examples
from distrain.errors import ConfigurationError
from distrain.training.jobs.class_weight import given_weights, weigh_classes

CLASSES = ("ham", "spam", "1")
LABELS = np.array([0, 0, 0, 1, 0, 1], "i8")


def weights_of(examples):
    count = examples.num_examples
    return np.asarray(examples.load(np.array([[0, count]]), np.arange(count))(0, count)[2]).tolist()


@pytest.mark.parametrize(
    ("setting", "classes", "expected"),
    [
        ("spam=20,ham=1", CLASSES, {1: 20.0, 0: 1.0}),
        ("spam = 2.5 , 0=.5", CLASSES, {1: 2.5, 0: 0.5}),
        ("1=3", CLASSES, {2: 3.0}),  # the class of this name
        ("1=3,0=1e-3", (), {1: 3.0, 0: 0.001}),
    ],
)
def test_a_label_is_the_name_of_a_class_or_else_its_number(setting, classes, expected):
    assert given_weights(setting, classes) == expected


@pytest.mark.parametrize(
    ("setting", "classes", "words"),
    [
        ("eggs=2", CLASSES, "'eggs', which is no class: the classes are ham, spam, 1"),
        ("3=2", CLASSES, "'3', which is no class"),
        ("-1=2", (), "'-1', which is no class: give the number of a class, from 0"),
        ("ham=2,0=3", CLASSES, "class '0' twice"),
        ("ham=two", CLASSES, "'ham=two', whose weight is not a number"),
        ("ham=-1", CLASSES, "-1"),
        ("ham=inf", CLASSES, "inf"),
    ],
)
def test_what_has_no_effect_or_no_meaning_is_refused(setting, classes, words):
    with pytest.raises(ConfigurationError, match=words):
        weigh_classes(array_examples(np.zeros((6, 1), "f4"), LABELS), setting, classes)


def test_balanced_weights_give_each_class_the_same_total():
    weighed, recorded = weigh_classes(array_examples(np.zeros((6, 1), "f4"), LABELS), "balanced")
    assert recorded == {"class_weights": {"0": 6 / (2 * 4), "1": 6 / (2 * 2)}}
    weights = np.array(weights_of(weighed))
    assert weights[LABELS == 0].sum() == pytest.approx(weights[LABELS == 1].sum()) == 3.0


def test_without_the_setting_the_examples_stay():
    examples = array_examples(np.zeros((6, 1), "f4"), LABELS)
    assert weigh_classes(examples, None) == (examples, {})
