"""A compiled kernel that resizes a picture between its four nearest pixels, as Keras does.

Decides: the value of each pixel of the resized picture. Never: decodes a picture.

    >>> pixels = np.array([[[0], [100]]], np.uint8)
    >>> bilinear(pixels, 1, 4)[0, :, 0].tolist()
    [0, 25, 75, 100]

The values are the rounded results of `tf.image.resize`, up to the order of the sums. The kernel reads two old rows for
each new row, and no others.
"""

from __future__ import annotations

import numpy as np

from distrain.jit import compiled


@compiled
def bilinear(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return a picture, uint8 `[h, w, c]`, in another size.

    All sums are of float32 in a fixed order, so every machine has the same values.
    """
    channels = pixels.shape[2]
    left, right, along = _neighbours(pixels.shape[1], width, channels)
    top, bottom, down = _neighbours(pixels.shape[0], height, 1)
    rows = pixels.reshape(pixels.shape[0], -1)
    size = width * channels
    resized = np.empty((height, size), np.uint8)
    blend = np.empty(rows.shape[1], np.float32)
    for y in range(height):
        above, below, row, weight = rows[top[y]], rows[bottom[y]], resized[y], down[y]
        for x in range(len(blend)):  # whole rows, which become vector instructions
            blend[x] = np.float32(above[x]) + (np.float32(below[x]) - np.float32(above[x])) * weight
        for x in range(size):
            value = blend[left[x]] + (blend[right[x]] - blend[left[x]]) * along[x]
            row[x] = np.uint8(np.int32(value + np.float32(0.5)))
    return resized.reshape(height, width, channels)


@compiled
def _neighbours(old: int, new: int, channels: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two old values beside each new value along one axis, and the weight of the second of them."""
    first, second = np.empty(new * channels, np.uint32), np.empty(new * channels, np.uint32)
    weight = np.empty(new * channels, np.float32)
    scale = np.float32(old) / np.float32(new)
    for index in range(new):
        place = (np.float32(index) + np.float32(0.5)) * scale - np.float32(0.5)
        floor = np.floor(place)
        before = max(0, min(old - 1, int(floor)))
        after = max(0, min(old - 1, int(np.ceil(place))))
        for channel in range(channels):
            value = index * channels + channel
            first[value], second[value] = before * channels + channel, after * channels + channel
            weight[value] = place - floor
    return first, second, weight
