"""Pixels of a JPEG picture from libjpeg-turbo without Pillow's copies, and with the same values.

Decides: which pictures libjpeg-turbo decodes alone. Never: refuses a picture.

    pixels = jpeg_pixels(content, size=(375, 500), stored="RGB", wanted="RGB")  # uint8 [375, 500, 3], or None

Pillow decodes with libjpeg-turbo too, into four bytes per pixel, and copies the pixels twice. The package simplejpeg
has the same library with the same settings, and fills the array itself. Whatever is unusual stays Pillow's: without
simplejpeg, and for damaged pictures, the caller falls back on Pillow.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

_COLORS = {("L", "L"): "GRAY", ("L", "RGB"): "RGB", ("RGB", "RGB"): "RGB"}  # other conversions have Pillow's values


def jpeg_pixels(content: bytes, *, size: tuple[int, int], stored: str, wanted: str) -> np.ndarray | None:
    """Return the pixels of a JPEG picture, uint8 `[height, width, channels]`, or None if Pillow must decode it.

    Args:
        content: the encoded picture, whose header Pillow has read.
        size: (height, width) in that header; larger pictures are not decoded.
        stored: Pillow's mode of the encoded picture, such as "RGB" or "CMYK".
        wanted: Pillow's mode of the pixels.
    """
    simplejpeg, colors = _simplejpeg(), _COLORS.get((stored, wanted))
    if simplejpeg is None or colors is None:
        return None
    try:
        if simplejpeg.decode_jpeg_header(content)[:2] != size:
            return None
        pixels: np.ndarray = simplejpeg.decode_jpeg(content, colorspace=colors)
    except ValueError:  # damaged, or an oddity that libjpeg-turbo warns of
        return None
    return pixels


@cache
def _simplejpeg() -> Any:
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg
