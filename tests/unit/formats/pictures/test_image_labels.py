"""Pictures with a table of labels beside them: each row is an example, and a wrong row is named."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from distrain.data.labels.labels import labels_between
from distrain.data.positional import positional_examples
from distrain.errors import ConfigurationError, DataError
from distrain.formats import images

NAMES = ("b.png", "a.png", "in/c.png")
CSV = "file_name,label,weight\nb.png,dog,1\na.png,cat,2.5\nin/c.png,dog,0\n"


@pytest.fixture
def folder(tmp_path):
    for shade, name in enumerate(NAMES):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 5, 3), shade, np.uint8)).save(tmp_path / name)
    return tmp_path


def source_of(folder, content, name="labels.csv", **settings):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return images(folder, labels=folder / name, size=(4, 5), **settings)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.csv", CSV),
        ("labels.csv", "\ufeff" + CSV.replace("\n", "\r\n")),
        ("labels.csv", "b.png,dog,1\na.png,cat,2.5\n\nin/c.png,dog,0"),
        ("labels.tsv", CSV.replace(",", "\t")),
        ("labels.csv", "Weight,id,Class,Path\n1,7,dog,b.png\n2.5,8,cat,a.png\n0,9,dog,./in/c.png\n"),
        (
            "labels.jsonl",
            '{"file_name": "b.png", "label": "dog", "weight": 1}\n'
            '{"weight": 2.5, "file_name": "a.png", "label": "cat"}\n'
            '\n{"file_name": "in\\\\c.png", "label": "dog", "weight": 0, "id": 3}',
        ),
    ],
)
def test_rows_are_examples_in_their_order(folder, name, content):
    source = source_of(folder, content, name)
    pixels, labels, weights = source.take(np.arange(3))
    assert pixels[:, 0, 0, 0].tolist() == [0, 1, 2]
    assert (labels.tolist(), weights.tolist()) == ([1, 0, 1], [1, 2.5, 0])
    assert source.class_names == ("cat", "dog")
    assert [source[1][1], source[1][2]] == [0, 2.5]
    examples = positional_examples(source)
    features, labels, weights = examples.load(np.array([[0, 3]]), np.array([2, 0]))(0, 2)
    assert (features[:, 0, 0, 0].tolist(), labels.tolist(), weights.tolist()) == ([2, 0], [1, 1], [0, 1])
    assert labels_between(examples, 0, 3).tolist() == [1, 0, 1]


def test_numbers_lists_of_numbers_and_names_in_an_order_are_labels(folder):
    def labels(content, name="labels.csv", **settings):
        source = source_of(folder, content, name, **settings)
        return source.take(np.arange(len(source)))[1]

    assert labels("a.png,3\nb.png,-1").tolist() == [3, -1]
    numbers = labels("file,y\na.png,3\nb.png,0.5\n")
    assert (numbers.dtype, numbers.tolist()) == (np.float32, [3, 0.5])
    lines = '{"image": "a.png", "y": [1, 0]}\n{"image": "b.png", "y": [0, 1]}\n'
    assert labels(lines, "l.jsonl").tolist() == [[1, 0], [0, 1]]
    assert labels("a.png,cat\nb.png,dog", class_names=["dog", "owl", "cat"]).tolist() == [2, 0]
    assert labels("a.png,7\nb.png,3", class_names=["7", "3"]).tolist() == [0, 1]


def test_pictures_without_a_row_are_told(folder, caplog):
    assert len(source_of(folder, "a.png,cat\n")) == 1
    (message,) = caplog.messages
    assert "names no label for 2 pictures" in message


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("l.csv", "", r"l.csv has no rows"),
        ("l.csv", "file_name,label\n", r"l.csv has no rows"),
        ("l.csv", "name,label\na.png,1\n", r"l.csv has no column for the file name: it has 'name', 'label'"),
        ("l.csv", "file,path,label\na.png,a.png,1\n", r"columns 'file', 'path', which are all the file name"),
        ("l.csv", "file,label\na.png,1\nb.png\n", r"l.csv, row 2 has 1 columns, and the first line 2"),
        ("l.csv", "file,label\na.png,1\nx.png,1\n", r"l.csv, row 2: .*x.png does not exist"),
        ("l.csv", "a.png,1\nb.png,2\n./a.png,1\n", r"l.csv, row 3: './a.png' stands in row 1 already"),
        ("l.csv", "a.png,1\n../b.png,1\n", r"l.csv, row 2: '../b.png' leads out of"),
        ("l.csv", "a.png,1\n/b.png,1\n", r"l.csv, row 2: '/b.png' leads out of"),
        ("l.csv", "a.png,1\nb.tif,1\n", r"l.csv, row 2: 'b.tif' is no picture that is read"),
        ("l.csv", "a.png,1\n,1\n", r"l.csv, row 2 has no file name"),
        ("l.csv", "a.png,1\nb.png,\n", r"l.csv, row 2: 'b.png' has no label"),
        ("l.csv", "a.png,1,1\nb.png,2,heavy\n", r"l.csv, row 2: the weight 'heavy' is no finite number"),
        ("l.csv", "a.png,1,1\nb.png,2,-1\n", r"l.csv, row 2: the weight '-1' is no finite number"),
        ("l.csv", "a.png,1,1\nb.png,2,1e99\n", r"l.csv, row 2: the weight '1e99' is no finite number"),
        ("l.csv", "a.png,0.5\nb.png,1e99\n", r"l.csv, row 2: the label '1e99' is no finite number"),
        ("l.csv", "a.png,1\n" + "b" * 5000 + ".png,2\n", r"l.csv, row 2: .*/b{100}\.\.\. does not exist"),
        ("l.csv", "a.png,0.5\nb.png,nan\n", r"l.csv, row 2: the label 'nan' is no finite number"),
        ("l.csv", 'a.png,1\n"b.png,2\n', r"l.csv, line \d is no CSV"),
        ("l.csv", b"a.png,caf\xe9\n", r"l.csv is not UTF-8"),
        ("l.csv", "a.png," + "x" * 200_000, r"l.csv, line 1 has over 131,072 characters"),
        ("l.jsonl", '{"file": "a.png", "label": 1}\n[1]\n', r"l.jsonl, row 2 is no object"),
        ("l.jsonl", '{"file": "a.png", "label": 1}\n{"file"\n', r"l.jsonl, row 2 is no JSON"),
        ("l.jsonl", "[" * 100_000, r"l.jsonl, row 1 is no JSON"),
        ("l.jsonl", '{"file": "a.png", "label": 1}\n{"file": "b.png"}\n', r"row 2 has no column for the label"),
        ("l.jsonl", '{"file": "a.png", "label": "x"}\n{"file": "b.png", "label": null}\n', "row 2: 'b.png' has no la"),
        ("l.jsonl", '{"file": "a.png", "label": [1]}\n{"file": "b.png", "label": [1, 2]}\n', "row 2: .*no list of 1"),
        (
            "l.jsonl",
            '{"file": "a.png", "label": "x"}\n{"file": "b.png", "label": {}}\n',
            r"row 2: the label \{\} is no",
        ),
        ("l.jsonl", '{"file": 7, "label": "x"}\n', r"l.jsonl, row 1 has no file name"),
    ],
)
def test_a_wrong_row_is_named(folder, name, content, words):
    with pytest.raises(DataError, match=words) as caught:
        source_of(folder, content, name)
    assert "\n" not in str(caught.value)


def test_other_arguments_are_refused(folder, tmp_path):
    with pytest.raises(DataError, match=r"l.csv, row 2: the label 'owl' is none of class_names, 'cat'"):
        source_of(folder, "a.png,cat\nb.png,owl\n", "l.csv", class_names=["cat"])
    with pytest.raises(ConfigurationError, match=r"labels= names labels.txt; a table of labels ends in .csv"):
        images(folder, labels="labels.txt")
    with pytest.raises(ConfigurationError, match="counts file names from a folder"):
        images([folder / "a.png"], labels="labels.csv")
    with pytest.raises(DataError, match=r"none.csv cannot be read: No such file"):
        images(folder, labels=tmp_path / "none.csv")
