"""simplejpeg gives the very pixels of Pillow, and leaves every unusual picture to Pillow."""

from __future__ import annotations

import io
import random

import numpy as np
import pytest
from PIL import Image, features

from distrain.errors import DataError
from distrain.formats import decode_image
from distrain.formats.pictures import jpeg_decoding
from distrain.formats.pictures.decoding import ImageForm

simplejpeg = pytest.importorskip("simplejpeg")
RNG = np.random.default_rng(0)


def encoded(height, width, mode="RGB", kind="JPEG", **options):
    coarse = Image.fromarray(RNG.integers(0, 256, (9, 7, 3), dtype=np.uint8)).resize((width, height))
    noise = RNG.normal(0, 12, (height, width, 3))
    file = io.BytesIO()
    picture = Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8)).convert(mode)
    picture.save(file, kind, **options)
    return file.getvalue()


def by_pillow(monkeypatch, content, **form):
    """What Pillow decodes, or the message of its refusal."""
    with monkeypatch.context() as patched:
        patched.setattr(jpeg_decoding, "_simplejpeg", lambda: None)
        return decoded(content, **form)


def decoded(content, **form):
    try:
        return decode_image(content, **form)
    except DataError as error:
        return str(error)


@pytest.fixture
def uses(monkeypatch):
    """The number of pictures that simplejpeg decoded."""
    used = []
    decode = simplejpeg.decode_jpeg
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *args, **named: (used.append(1), decode(*args, **named))[1])
    return used


KINDS = {
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2},
    "4:1:1": {"subsampling": "4:1:1"},
    "coarse": {"quality": 5},
    "fine": {"quality": 100},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 3},
    "no conversion": {"keep_rgb": True},
    "gray": {"mode": "L"},
    "profile": {"icc_profile": b"no profile" * 9},
    "comment": {"comment": b"taken at sea"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_are_those_of_pillow(kind, monkeypatch, uses):
    assert features.check_feature("libjpeg_turbo")
    for height, width in [(1, 1), (17, 16), (40, 67), (129, 255)]:
        content = encoded(height, width, **KINDS[kind])
        for form in ({}, {"size": (23, 31)}, {"size": (60, 9), "interpolation": "nearest"}):
            found, wanted = decoded(content, **form), by_pillow(monkeypatch, content, **form)
            assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
            assert np.array_equal(found, wanted)
            assert found.flags.c_contiguous
    assert len(uses) == 12


def test_gray_pictures_stay_gray(monkeypatch, uses):
    content = encoded(40, 67, mode="L")
    found = decoded(content, color_mode="grayscale", size=(20, 20))
    assert np.array_equal(found, by_pillow(monkeypatch, content, color_mode="grayscale", size=(20, 20)))
    assert len(uses) == 1


def test_a_photo_with_a_second_picture_is_its_first(monkeypatch, uses):
    second = Image.fromarray(np.zeros((16, 16, 3), np.uint8))
    content = encoded(40, 67, kind="MPO", save_all=True, append_images=[second])
    assert np.array_equal(decoded(content), by_pillow(monkeypatch, content))
    assert len(uses) == 1


@pytest.mark.parametrize(
    ("content", "form"),
    [
        (encoded(40, 67, mode="CMYK"), {}),
        (encoded(40, 67), {"color_mode": "grayscale"}),
        (encoded(40, 67), {"color_mode": "rgba"}),
        (encoded(40, 67), {"size": (9, 9), "crop_to_aspect_ratio": True}),
        (encoded(40, 67), {"size": (99, 9), "pad_to_aspect_ratio": True}),
        (encoded(40, 67), {"size": (9, 9), "antialias": True}),
        (encoded(40, 67), {"size": (9, 9), "interpolation": "area"}),
        (encoded(400, 670), {"size": (9, 9), "shrink_jpeg": True}),
        (encoded(40, 67, kind="PNG"), {}),
        (encoded(40, 67, kind="WEBP"), {}),
    ],
)
def test_other_pictures_and_forms_are_pillows(content, form, monkeypatch, uses):
    assert np.array_equal(decoded(content, **form), by_pillow(monkeypatch, content, **form))
    assert not uses


def test_a_turned_photo_is_pillows(monkeypatch, uses):
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encoded(40, 67, exif=exif.tobytes())
    assert decoded(content).shape == (67, 40, 3)
    assert not uses


def test_damage_has_the_outcome_that_it_has_with_pillow(monkeypatch):
    """Bytes are changed, cut, inserted and appended; pixels and refusals must be Pillow's."""
    draw = random.Random(0)
    refused, photos = 0, [encoded(24, 33, progressive=progressive) for progressive in (False, True)]
    for _ in range(400):
        content = bytearray(photos[draw.random() < 0.3])
        where = draw.randrange(len(content))
        change = draw.choice(["byte", "cut", "insert", "append"])
        if change == "byte":
            content[where] = draw.randrange(256)
        elif change == "cut":
            del content[where:]
        else:
            content[where if change == "insert" else len(content) : where] = draw.randbytes(5)
        found, wanted = decoded(bytes(content), size=(8, 8)), by_pillow(monkeypatch, bytes(content), size=(8, 8))
        assert type(found) is type(wanted)
        assert found == wanted if isinstance(found, str) else np.array_equal(found, wanted)
        refused += isinstance(found, str)
    assert 50 < refused < 350


def test_a_picture_larger_than_its_header_says_is_not_decoded(uses):
    content = encoded(40, 67)
    assert jpeg_decoding.jpeg_pixels(content, size=(40, 66), stored="RGB", wanted="RGB") is None
    assert not uses


def test_which_forms_need_no_pillow():
    assert ImageForm().takes_pixels
    assert ImageForm(antialias=True).takes_pixels  # nothing is resized
    assert not ImageForm(size=(4, 4), antialias=True).takes_pixels
