"""Pictures become the pixels that Keras' own loader gives, upright and without transparency; others are refused."""

from __future__ import annotations

import io
import random
import struct
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from distrain.errors import ConfigurationError, DataError
from distrain.formats import decode_image
from distrain.formats.pictures.decoding import ImageForm

RNG = np.random.default_rng(0)


def encoded(picture, kind="PNG", **options):
    file = io.BytesIO()
    (Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture).save(file, kind, **options)
    return file.getvalue()


def pixels(height=7, width=5, channels=3):
    return RNG.integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("proportions", [{}, {"crop_to_aspect_ratio": True}, {"pad_to_aspect_ratio": True}])
def test_pixels_are_those_of_keras_rounded(interpolation, proportions):
    import keras

    for height, width, new_height, new_width in [(40, 67, 15, 21), (3, 90, 31, 8), (28, 29, 45, 26), (1, 5, 7, 7)]:
        picture = pixels(height, width)
        wanted = keras.ops.image.resize(
            picture.astype("float32"), (new_height, new_width), interpolation=interpolation, **proportions
        )
        found = decode_image(encoded(picture), size=(new_height, new_width), interpolation=interpolation, **proportions)
        assert np.abs(found - np.asarray(wanted)).max() <= 0.5001


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 40),
    st.sampled_from(["L", "RGB", "RGBA"]),
)
@settings(max_examples=30, deadline=None)
def test_any_size_becomes_any_size(height, width, new_height, new_width, mode):
    picture = Image.fromarray(pixels(height, width)).convert(mode)
    for interpolation in ("bilinear", "nearest", "area", "bicubic", "lanczos3"):
        found = decode_image(encoded(picture), size=(new_height, new_width), interpolation=interpolation)
        assert (found.shape, found.dtype) == ((new_height, new_width, 3), np.uint8)
        assert found.flags.c_contiguous


def test_a_smooth_picture_is_the_mean_of_its_pixels_with_antialias():
    picture = np.zeros((64, 64, 3), np.uint8)
    picture[::2] = 255  # the two nearest rows of a quarter's middle are one of each
    picture[:, :32] = pixels(64, 32)
    plain, smooth = (decode_image(encoded(picture), size=(4, 4), antialias=flag) for flag in (False, True))
    whole = picture[:, :32].reshape(4, 16, 2, 16, 3).mean(axis=(1, 3))
    assert np.abs(smooth[:, :2] - whole).mean() < np.abs(plain[:, :2] - whole).mean() / 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_stands_upright(orientation):
    picture = pixels(6, 4)
    upright = Image.fromarray(picture)
    turns = [None, Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_180, Image.Transpose.FLIP_TOP_BOTTOM]
    turns += [Image.Transpose.TRANSPOSE, Image.Transpose.ROTATE_90, Image.Transpose.TRANSVERSE]
    turns += [Image.Transpose.ROTATE_270]
    turn = turns[orientation - 1]
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(upright if turn is None else upright.transpose(turn), exif=exif.tobytes())
    assert np.array_equal(decode_image(content), picture)
    resized = decode_image(content, size=(3, 8), interpolation="nearest")
    assert np.array_equal(resized, decode_image(encoded(picture), size=(3, 8), interpolation="nearest"))


def test_colours_and_transparency():
    gray, color = pixels(channels=1)[..., 0], pixels()
    see_through = np.dstack([color, RNG.integers(0, 256, (7, 5), dtype=np.uint8)])
    assert np.array_equal(decode_image(encoded(gray)), np.repeat(gray[..., None], 3, axis=2))
    assert np.array_equal(decode_image(encoded(gray), color_mode="grayscale"), gray[..., None])
    assert np.array_equal(decode_image(encoded(see_through)), color)
    assert np.array_equal(decode_image(encoded(see_through), color_mode="rgba"), see_through)
    assert np.array_equal(decode_image(encoded(color), color_mode="rgba")[..., 3], np.full((7, 5), 255))
    palette = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    with warnings.catch_warnings(action="error"):
        found = decode_image(encoded(palette, transparency=b"\x00\x80\xff"), color_mode="rgba")
        assert found.tolist() == [[[10, 20, 30, 0], [40, 50, 60, 128]], [[70, 80, 90, 255], [40, 50, 60, 128]]]
        assert np.array_equal(decode_image(encoded(palette, transparency=b"\x00\x80\xff")), found[..., :3])
    assert decode_image(encoded(Image.fromarray(color).convert("CMYK"), "JPEG")).shape == (7, 5, 3)


def test_a_photo_with_a_second_picture_is_its_first():
    first, second = Image.fromarray(pixels(16, 16)), Image.fromarray(pixels(16, 16))
    content = encoded(first, "MPO", save_all=True, append_images=[second])
    assert np.array_equal(decode_image(content), np.asarray(Image.open(io.BytesIO(content))))


def test_a_jpeg_may_be_shrunk_by_its_decoder():
    smooth = np.linspace(0, 255, 400 * 400 * 3).reshape(400, 400, 3).astype(np.uint8)
    content = encoded(smooth, "JPEG", quality=95)
    plain, shrunk = (decode_image(content, size=(50, 50), shrink_jpeg=flag).astype(int) for flag in (False, True))
    assert shrunk.shape == (50, 50, 3)
    assert np.abs(plain - shrunk).max() > 0
    assert np.abs(plain - shrunk).mean() < 3


def png(width, height, depth=8, color=2):
    """A PNG file with a header and next to no pixels."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 16)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def animation(kind):
    return encoded(pixels(), kind, save_all=True, append_images=[Image.fromarray(pixels())])


REFUSED = {
    "empty": (lambda: b"", "is empty"),
    "text": (lambda: b"id,label\n1,cat\n", "is no JPEG, PNG, WebP, BMP or GIF image"),
    "tiff": (lambda: encoded(pixels(), "TIFF"), "is no JPEG, PNG"),
    "cut png": (lambda: encoded(pixels(40, 40))[:-900], "is damaged"),
    "cut jpeg": (lambda: encoded(pixels(90, 90), "JPEG")[:-900], "is damaged"),
    "cut webp": (lambda: encoded(pixels(90, 90), "WEBP")[:-900], "is damaged"),
    "header alone": (lambda: png(64, 64), "is damaged"),
    "100,000 pixels wide": (lambda: png(100_000, 100_000), "is too large"),
    "over the limit": (lambda: png(10_000, 9_000), "10,000 x 9,000 pixels"),
    "animated gif": (lambda: animation("GIF"), "is animated"),
    "animated png": (lambda: animation("PNG"), "is animated"),
    "animated webp": (lambda: animation("WEBP"), "is animated"),
    "16 bits": (lambda: encoded(RNG.integers(0, 2**16, (4, 4), dtype=np.uint16)), "more than 8 bits"),
}


@pytest.mark.filterwarnings("default")  # Pillow warns of large pictures as well
@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case):
    make, message = REFUSED[case]
    with pytest.raises(DataError, match=message) as raised:
        decode_image(make(), size=(8, 8))
    assert str(raised.value).startswith("the picture ")


def test_borders_cannot_exhaust_the_memory():
    with pytest.raises(DataError, match="with its borders"):
        decode_image(encoded(np.zeros((1, 40_000, 3), np.uint8)), size=(8, 8), pad_to_aspect_ratio=True)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=150, deadline=None)
@pytest.mark.filterwarnings("default")
def test_damaged_bytes_give_pixels_or_a_sentence(seed):
    draw = random.Random(seed)
    kind = draw.choice(["PNG", "JPEG", "WEBP", "GIF", "BMP"])
    content = bytearray(encoded(np.arange(300, dtype=np.uint8).reshape(10, 10, 3), kind))
    for _ in range(draw.randint(1, 4)):
        content[draw.randrange(len(content))] = draw.randrange(256)
    try:
        found = decode_image(bytes(content), size=(4, 4))
    except DataError:
        return
    assert found.shape == (4, 4, 3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 224},
        {"size": (224, 0)},
        {"size": (224.0, 224)},
        {"size": (8, 2**20)},
        {"color_mode": "bgr"},
        {"interpolation": "cubic"},
        {"crop_to_aspect_ratio": True, "pad_to_aspect_ratio": True},
    ],
)
def test_wrong_arguments_are_named(wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        ImageForm(**wrong)
