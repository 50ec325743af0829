"""A folder of pictures gives the examples of Keras' own loader; folders with another meaning are refused."""

from __future__ import annotations

import logging
import os
import pickle

import numpy as np
import pytest
from PIL import Image

from distrain.data.positional import positional_examples
from distrain.errors import ConfigurationError, DataError
from distrain.formats import images

RNG = np.random.default_rng(0)


def picture(path, height=9, width=12):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def folder(tmp_path):
    for name in ("cat/2.png", "cat/10.PNG", "cat/a-b/1.png", "cat/a/1.png", "dog/1.jpg", "dog/z.png", "ant/3.png"):
        picture(tmp_path / name)
    picture(tmp_path / ".hidden/1.png")
    return tmp_path


def test_order_classes_and_pixels_are_those_of_keras(folder):
    import keras

    wanted = keras.utils.image_dataset_from_directory(
        str(folder), image_size=(6, 5), shuffle=False, batch_size=None, verbose=False
    )
    source = images(folder, size=(6, 5))
    found_pixels, found_labels = source.take(np.arange(len(source)))
    assert source.class_names == tuple(wanted.class_names) == ("ant", "cat", "dog")
    assert [os.path.relpath(path, folder) for path in wanted.file_paths] == [
        os.path.relpath(path, folder) for path in source._listing.files
    ]
    for pixels, label, (wanted_pixels, wanted_label) in zip(found_pixels, found_labels, wanted, strict=True):
        assert label == int(wanted_label)
        assert np.abs(pixels - wanted_pixels.numpy()).max() <= 6  # TensorFlow decodes a JPEG with other rounding


def test_examples_are_equal_one_by_one_and_in_another_process(folder):
    source = images(folder, size=(6, 5))
    whole = source.take(np.arange(7))
    again = pickle.loads(pickle.dumps(source))
    for number in range(7):
        pixels, label = again[number]
        assert np.array_equal(pixels, whole[0][number])
        assert label == whole[1][number]
    assert source.read_labels(1, 6).tolist() == whole[1][1:6].tolist()


def test_files_with_labels(folder):
    files = sorted(folder.glob("cat/*.png"))
    for given in (files, str(folder / "cat/*.png")):
        source = images(given, size=(4, 4), labels=[[0.5]])
        assert source[0][1].tolist() == [0.5]
    flat = images(folder / "cat", size=(4, 4), labels=[3, 2, 1, 0])
    assert flat.take(np.array([3, 0]))[1].tolist() == [0, 3]
    with pytest.raises(ConfigurationError, match="2 labels for 4 pictures"):
        images(folder / "cat", labels=[1, 2])
    with pytest.raises(ConfigurationError, match="give a number"):
        images(folder / "cat", labels=list("abcd"))
    with pytest.raises(ConfigurationError, match="needs labels="):
        images(files)


def test_hidden_files_are_no_pictures(folder):
    picture(folder / "cat/._2.png")  # macOS leaves such files, which hold no pixels
    assert len(images(folder, size=(4, 4))) == 7


def test_class_names_give_the_order(folder, caplog):
    with caplog.at_level(logging.WARNING):
        source = images(folder, size=(4, 4), class_names=["dog", "ant"])
    assert source.take(np.arange(3))[1].tolist() == [0, 0, 1]
    assert "has 'cat', which class_names does not name; their pictures are left out" in caplog.text
    with pytest.raises(DataError, match="no folder 'bee'"):
        images(folder, class_names=["dog", "bee"])
    with pytest.raises(ConfigurationError, match="name twice"):
        images(folder, class_names=["dog", "dog"])


def test_an_empty_class_keeps_its_number_and_other_files_are_counted(folder, caplog):
    (folder / "bee").mkdir()
    (folder / "cat/notes.txt").write_text("good cats")
    with caplog.at_level(logging.WARNING):
        source = images(folder, size=(4, 4))
    assert source.class_names == ("ant", "bee", "cat", "dog")
    assert source.take(np.arange(7))[1].tolist() == [0, 2, 2, 2, 2, 3, 3]
    assert "no pictures of 'bee'" in caplog.text
    assert "1 files that are no pictures and are left out" in caplog.text


def test_pictures_of_several_sizes_need_one(folder):
    picture(folder / "dog/large.png", 20, 20)
    with pytest.raises(DataError, match="example 6 has uint8 of shape"):
        positional_examples(images(folder))


def test_a_damaged_picture_is_named(folder):
    (folder / "dog/1.jpg").write_bytes(b"no picture")
    source = images(folder, size=(4, 4))
    with pytest.raises(DataError, match=r"dog/1\.jpg is no JPEG"):
        source.take(np.arange(7))
    (folder / "dog/1.jpg").unlink()
    with pytest.raises(DataError, match=r"dog/1\.jpg cannot be read: No such file"):
        source[5]


def test_links_are_followed_but_not_in_circles(folder):
    (folder / "dog/link.png").symlink_to(folder / "ant/3.png")
    (folder / "eel").symlink_to(folder / "cat/a")
    assert len(images(folder, class_names=["ant", "dog", "eel"])) == 5
    with pytest.raises(DataError, match="would count twice"):
        images(folder)
    (folder / "eel").unlink()
    (folder / "cat/a/loop").symlink_to(folder / "cat")
    with pytest.raises(DataError, match="loop is a link"):
        images(folder)


def _move_out(folder):
    picture(folder / "1.png")
    return folder


def _parts(folder):
    for part in ("train", "val"):
        (folder / "x" / part).mkdir(parents=True)
    return folder / "x"


def _parts_and_more(folder):
    (folder / "x" / "raw").mkdir(parents=True)
    return _parts(folder)


def _no_pictures(folder):
    (folder / "x/cat").mkdir(parents=True)
    (folder / "x/cat/1.wav").write_bytes(b"RIFF")
    return folder / "x"


def _other_format(folder):
    (folder / "cat/scan.tiff").write_bytes(b"II*\0")
    return folder


def _broken_link(folder):
    (folder / "cat/gone.png").symlink_to("nothing.png")
    return folder


def _pipe(folder):
    os.mkfifo(folder / "cat/pipe.png")
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_move_out, r"1\.png lies beside folders of classes"),
        (_parts, "parts of the data, not classes"),
        (_parts_and_more, "has the folders 'train', 'val', which are parts of the data, not classes"),
        (_no_pictures, r"no pictures in its folders, but files such as .*1\.wav"),
        (_other_format, r"scan\.tiff has a format that is not read"),
        (_broken_link, r"gone\.png is a link to nothing"),
        (_pipe, r"pipe\.png is no file"),
        (lambda folder: folder / "none", "does not exist"),
        (lambda folder: folder / "ant/3.png", "is a file"),
        (lambda folder: folder / "ant", "has no folders in it but pictures"),
    ],
)
def test_folders_that_are_refused(folder, change, message):
    with pytest.raises(DataError, match=message):
        images(change(folder), size=(4, 4))
