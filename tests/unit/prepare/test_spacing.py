"""Text written without spaces is told, and other text is not."""

from __future__ import annotations

import random

import pytest
from prepared_data import Result, rows, write_csv

from distrain.prepare.spacing import SpacingSample
from distrain.text.readers.texts import Texts

CHINESE = ["今天", "我们", "这个", "老板", "东西", "价格", "服务", "朋友", "昨天", "店里"]


def warning(texts, words_per_row):
    sample = SpacingSample()
    for text in texts:
        sample.add(Texts.of([text]))
    return sample.warning("a.csv", words_per_row)


def test_rows_of_one_long_word(tmp_path, caplog):
    draw = random.Random(2)
    table = [(str(number % 2), "".join(draw.choices(CHINESE, k=10)) + "。") for number in range(200)]
    train = write_csv(tmp_path / "a.csv", table)
    Result(train=train, test=train, out=tmp_path / "out", vectorizer="sequence")
    assert "a.csv: the median row is one word of 21 characters: is this text written without spaces?" in caplog.text


@pytest.mark.parametrize(
    ("text", "words", "expected"),
    [
        ("今天的服务很好、我们很满意。价格也不贵。", 3, "100% of the letters belong to scripts without spaces"),
        ("映画はとても楽しかった。Netflix", 2, "of the letters belong to scripts without spaces"),
        ("วันนี้อากาศดีมาก เราไปเที่ยวกัน", 5, "scripts without spaces"),
        ("यह फिल्म बहुत अच्छी है और कहानी भी", 12, "words are cut at vowel signs"),
        ("ACGTACGTACGTACGT", 1, "one word of 16 characters"),
        ("The cat sat on the mat in Munich", 8, None),
        ("영화가 정말 재미있었어요", 3, None),
        ("Ça c'est un café à Zürich, naïve façade", 7, None),
        ("שָׁלוֹם לְכוּלָם", 2, None),
        ("Мы были в кино и смеялись", 5, None),
        ("Elizabeth", 1, None),
        ("", 0, None),
    ],
)
def test_scripts(text, words, expected):
    said = warning([text] * 50, words)
    assert said is None if expected is None else expected in said


def test_other_text_gives_no_warning(tmp_path, caplog):
    Result(train=write_csv(tmp_path / "a.csv", rows(60)), out=tmp_path / "out")
    assert not caplog.records
