"""Rows of a group padded on the device, so that few programs are compiled."""

import jax
import numpy as np
from jaxtyping import Array

from metaprior.task import Data


def bucket(n: int) -> int:
    """Rows that `n` rows are padded to: 0, 8, 16, 32, 64, …"""
    return 0 if n == 0 else max(8, 1 << (n - 1).bit_length())


def longer(a: np.ndarray, n: int) -> np.ndarray:
    """With rows of zeros up to `n` rows."""
    return np.pad(a, [(0, 0)] * (a.ndim - 2) + [(0, n - a.shape[-2]), (0, 0)])


def padded(x: np.ndarray) -> Array:
    """Encoded rows `(…, n, d)` on the device, with rows of zeros up to a bucket's size."""
    return jax.device_put(longer(x, bucket(max(x.shape[-2], 1))))


def data_of(x: np.ndarray, y: np.ndarray, size: int | None = None) -> Data:
    """Observed rows, padded, on the device.

    Args:
        x: encoded, `(n, d)`, or `(m, n, d)` for several draws of their features.
        y: `(n, 1)`.
        size: rows to pad to; that of their bucket by default.
    """
    n = bucket(len(y)) if size is None else size
    x, y, mask = longer(x, n), longer(y, n), np.arange(n) < len(y)
    if x.ndim == 3:
        y, mask = (np.broadcast_to(a, (len(x), *a.shape)) for a in (y, mask))
    return Data(*jax.device_put((x, y, mask)))
