"""Encoded pictures as arrays of pixels: JPEG, PNG, WebP, BMP and GIF.

Decides: which pictures are refused, which way up a picture stands, and how it gets its size and colours. Never: opens a
file.

    pixels = decode_image(content, size=(224, 224))               # uint8 [224, 224, 3]

Pillow decodes, and for plain JPEG pictures `jpeg_decoding.py`, which gives Pillow's values in less time. The pixels
depend on the bytes of the picture and on the release of Pillow alone, on any machine.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from distrain.errors import ConfigurationError, DataError
from distrain.extras import require_extra
from distrain.formats.pictures.jpeg_decoding import jpeg_pixels

CHANNELS = {"grayscale": 1, "rgb": 3, "rgba": 4}
INTERPOLATIONS = ("bilinear", "nearest", "area", "bicubic", "lanczos3")
MAX_SIDE = 65_535  # pixels; the longest side that a JPEG can have
MAX_ENCODED_BYTES = 2**28  # 256 MiB; larger files are no pictures, or are made to exhaust the memory
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF")
_MODES = {"grayscale": "L", "rgb": "RGB", "rgba": "RGBA"}
_ORIENTATION = 0x0112  # of EXIF


@dataclass(frozen=True)
class ImageForm:
    """How a picture becomes an array.

    Attributes:
        size: (height, width) of the result; None keeps the size of each picture.
        color_mode: "grayscale", "rgb" or "rgba": 1, 3 or 4 channels.
        interpolation: "bilinear" and "nearest" take the nearest pixels, as Keras does. "area", "bicubic" and
            "lanczos3" are Pillow's, which weigh all pixels.
        antialias: whether "bilinear" weighs all pixels, too. It is slower, and shrunk pictures look smoother.
        crop_to_aspect_ratio: whether the middle of the picture is cut out in the proportions of `size`.
        pad_to_aspect_ratio: whether black borders bring the picture to the proportions of `size`.
        shrink_jpeg: whether the decoder may shrink a JPEG picture to 1/2, 1/4 or 1/8 that is at least as large as
            `size`. It is faster, and other values result.

    Raises:
        ConfigurationError: a value is none of these.
    """

    size: tuple[int, int] | None = None
    color_mode: str = "rgb"
    interpolation: str = "bilinear"
    antialias: bool = False
    crop_to_aspect_ratio: bool = False
    pad_to_aspect_ratio: bool = False
    shrink_jpeg: bool = False

    def __post_init__(self) -> None:
        for name, allowed in {"color_mode": tuple(CHANNELS), "interpolation": INTERPOLATIONS}.items():
            if getattr(self, name) not in allowed:
                raise ConfigurationError(f"{name} is {getattr(self, name)!r}; give one of {', '.join(allowed)}.")
        if self.size is not None:
            sides = tuple(self.size) if isinstance(self.size, (tuple, list)) else ()
            if len(sides) != 2 or not all(type(side) is int and 1 <= side <= MAX_SIDE for side in sides):
                raise ConfigurationError(
                    f"size is {self.size!r}; give (height, width) in pixels, whole numbers from 1 to {MAX_SIDE:,}."
                )
            object.__setattr__(self, "size", sides)
        if self.crop_to_aspect_ratio and self.pad_to_aspect_ratio:
            raise ConfigurationError("crop_to_aspect_ratio and pad_to_aspect_ratio exclude each other; give one.")

    @property
    def takes_pixels(self) -> bool:
        """Whether the pixels of a whole picture become the result without Pillow."""
        changes = self.crop_to_aspect_ratio or self.pad_to_aspect_ratio or self.shrink_jpeg or self.antialias
        return self.size is None or (not changes and self.interpolation in ("bilinear", "nearest"))


def decode_image(content: bytes, **form: Any) -> np.ndarray:
    """Return the pixels of a picture, uint8 `[height, width, channels]`; made for `map=`.

    Args:
        content: the encoded picture.
        **form: fields of `ImageForm`, such as size.

    Raises:
        DataError: the picture is damaged, too large, animated, or none of the formats.
        ConfigurationError: a field has a wrong value, or Pillow is not installed.
    """
    return decoded(content, ImageForm(**form), "the picture")


def decoded(content: bytes, form: ImageForm, name: str) -> np.ndarray:
    """Return the pixels of a picture, uint8 `[height, width, channels]`.

    A picture stands as its EXIF orientation says. Transparency is dropped unless the colour mode is "rgba".

    Args:
        content: the encoded picture.
        form: size and colours of the result.
        name: the picture's name in messages.

    Raises:
        DataError: the picture is damaged, too large, animated, or none of the formats.
    """
    with _opened(content, name) as image:
        _check(image, name)
        try:
            orientation, mode = _orientation(image), _MODES[form.color_mode]
            if image.format in ("JPEG", "MPO") and orientation == 1 and form.takes_pixels:
                pixels = jpeg_pixels(content, size=image.size[::-1], stored=image.mode, wanted=mode)
                if pixels is not None:
                    return _fitted(pixels, form)
            if form.shrink_jpeg and form.size is not None:
                image.draft(None, form.size if orientation >= 5 else form.size[::-1])
            return _resized(_upright(_colored(image, mode), orientation), form)
        except Exception as error:  # Pillow's decoders raise errors of many types for damaged content
            raise DataError(f"{name} is damaged and cannot be decoded: {error or type(error).__name__}.") from None


@cache
def pillow() -> Any:
    """Return Pillow's module `Image` with the decoders in use.

    Raises:
        ConfigurationError: Pillow is not installed.
    """
    require_extra("PIL", package="Pillow", extra="images", what="Reading pictures")
    from PIL import (  # noqa: F401 - each import registers a decoder, here once, before threads decode
        BmpImagePlugin,
        GifImagePlugin,
        Image,
        JpegImagePlugin,
        PngImagePlugin,
        WebPImagePlugin,
    )

    return Image


def _opened(content: bytes, name: str) -> Any:
    Image = pillow()
    if not content:
        raise DataError(f"{name} is empty.")
    if len(content) > MAX_ENCODED_BYTES:
        raise DataError(f"{name} has {len(content):,} bytes; at most {MAX_ENCODED_BYTES:,} are decoded.")
    try:
        return Image.open(io.BytesIO(content), formats=_FORMATS)
    except Image.UnidentifiedImageError:
        raise DataError(f"{name} is no JPEG, PNG, WebP, BMP or GIF image.") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(name, str(error)) from None
    except Exception as error:
        raise DataError(f"{name} is damaged and cannot be decoded: {error or type(error).__name__}.") from None


def _check(image: Any, name: str) -> None:
    """Refuse pictures by their header, before any pixel is decoded."""
    limit = pillow().MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise _too_large(name, f"{image.width:,} x {image.height:,} pixels")
    if image.format != "MPO" and _is_animated(image):  # MPO: a photo with a second one for depth or a preview
        raise DataError(f"{name} is animated; an example is one picture. Save its frames as pictures, or leave it out.")
    if image.mode.startswith(("I", "F")):
        raise DataError(
            f"{name} has more than 8 bits per pixel (mode {image.mode}), and its scale is unknown. Save it with 8 bits."
        )


def _is_animated(image: Any) -> bool:
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # the second frame of a GIF is damaged
        return True


def _too_large(name: str, found: str) -> DataError:
    limit = pillow().MAX_IMAGE_PIXELS
    return DataError(
        f"{name} is too large: {found}; at most {limit:,} are decoded. Shrink it, or set PIL.Image.MAX_IMAGE_PIXELS."
    )


def _colored(image: Any, mode: str) -> Any:
    """Decode the pixels, in `mode`."""
    image.load()
    if image.mode == mode:
        return image
    if "transparency" in image.info or image.mode in ("PA", "La", "RGBa"):
        image = image.convert("RGBA")  # Pillow would warn of what transparency loses
    return image.convert(mode)


def _resized(image: Any, form: ImageForm) -> np.ndarray:
    """Return the pixels of a decoded picture in their size, uint8 `[height, width, channels]`."""
    Image, size = pillow(), form.size
    if size is not None and (form.crop_to_aspect_ratio or form.pad_to_aspect_ratio):
        image = image.crop(_box(image.height, image.width, size, pads=form.pad_to_aspect_ratio))
    filters = {"area": Image.Resampling.BOX, "bicubic": Image.Resampling.BICUBIC, "lanczos3": Image.Resampling.LANCZOS}
    if form.antialias:
        filters["bilinear"] = Image.Resampling.BILINEAR
    if size is not None and form.interpolation in filters:
        image = image.resize(size[::-1], filters[form.interpolation])
    pixels = np.asarray(image)
    return _fitted(pixels.reshape(*pixels.shape[:2], -1), form)


def _fitted(pixels: np.ndarray, form: ImageForm) -> np.ndarray:
    """Return pixels in their size, between the nearest pixels where they have another size."""
    size = form.size
    if size is None or pixels.shape[:2] == size:
        return pixels
    if form.interpolation == "nearest":
        rows, columns = (_nearest(old, new) for old, new in zip(pixels.shape, size, strict=False))
        return pixels[rows[:, None], columns]
    from distrain.formats.pictures.resize import bilinear

    return bilinear(pixels, *size)


def _nearest(old: int, new: int) -> np.ndarray:
    """The old pixel of each new one along an axis, int64 `[new]`, with the rounding of `tf.image.resize`."""
    places = (np.arange(new, dtype=np.float32) + np.float32(0.5)) * (np.float32(old) / np.float32(new))
    return np.minimum(places.astype(np.int64), old - 1)


def _box(height: int, width: int, size: tuple[int, int], *, pads: bool) -> tuple[int, int, int, int]:
    """The box (left, top, right, bottom) with the proportions of `size` around the middle, as Keras computes it.

    Raises:
        ValueError: the borders would make the picture larger than any picture may be.
    """
    limit = pillow().MAX_IMAGE_PIXELS
    wanted = int(float(width * size[0]) / size[1]), int(float(height * size[1]) / size[0])
    if pads:
        top, left = (max(0, int((new - old) / 2)) for new, old in zip(wanted, (height, width), strict=True))
        if limit is not None and (height + 2 * top) * (width + 2 * left) > limit:
            raise ValueError(f"with its borders it would have more than {limit:,} pixels")
        return -left, -top, width + left, height + top
    new_height, new_width = (max(1, min(new, old)) for new, old in zip(wanted, (height, width), strict=True))
    top, left = int((height - new_height) / 2), int((width - new_width) / 2)
    return left, top, left + new_width, top + new_height


def _orientation(image: Any) -> int:
    """Return the EXIF orientation, 1 to 8; damaged EXIF counts as upright."""
    if not ({"exif", "xmp", "Raw profile type exif"} & image.info.keys()):
        return 1
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:
        return 1
    return found if found in range(1, 9) else 1


def _upright(image: Any, orientation: int) -> Any:
    turn = pillow().Transpose
    turns = {2: turn.FLIP_LEFT_RIGHT, 3: turn.ROTATE_180, 4: turn.FLIP_TOP_BOTTOM, 5: turn.TRANSPOSE}
    turns |= {6: turn.ROTATE_270, 7: turn.TRANSVERSE, 8: turn.ROTATE_90}
    return image.transpose(turns[orientation]) if orientation in turns else image
