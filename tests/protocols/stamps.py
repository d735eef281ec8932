"""Images that say what they are, and a small network for them."""

import functools

import numpy as np

from metaprior.nets.conv import Conv4

NET = functools.partial(Conv4.init, size=16, filters=8)


def stamped(classes: int = 12, images: int = 6, size: int = 8):
    """Images whose first pixel is their class and whose second is their number."""
    pixels = np.zeros((classes * images, size, size, 1), np.uint8)
    label = np.repeat(np.arange(classes), images)
    pixels[:, 0, 0, 0], pixels[:, 0, 1, 0] = label, np.tile(np.arange(images), classes)
    return pixels, label
