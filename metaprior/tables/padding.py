"""Rows of a group padded on the device, so that few programs are compiled."""

import jax
import numpy as np
from jaxtyping import Array

from metaprior.task import Data

MOST_OBSERVED = 2560  # rows of a group that learners condition on


def some_of(n: int, most: int | None = None) -> np.ndarray:
    """Which rows of a large group are conditioned on: `most` of them, in order.

    By default `MOST_OBSERVED`.

    The factor of a covariance costs the third power of the rows. Of 5,000 rows of a smooth function
    of one, three and six columns, half leave the band wider by 0.1, 0.4 and 0.8 %, and the density
    lower by 0.00, 0.00 and 0.016 nats a row.
    """
    most = MOST_OBSERVED if most is None else most
    return np.sort(np.random.default_rng(0).permutation(n)[:most])


def said_of(n: int) -> str:
    """Of a group with more rows."""
    return (
        f"{n} observed rows: {MOST_OBSERVED} of them, drawn at random, are conditioned on. That "
        "many rows tell nearly all of what more would."
    )


def bucket(n: int) -> int:
    """Rows that `n` rows are padded to: 0, 8, 16, 32, … 256, then 320, 384, 448, 512, 640, …

    Large factors cost so much that twice the rows would be eight times the work.
    """
    if n == 0:
        return 0
    power = max(8, 1 << (n - 1).bit_length())
    step = power // 8
    return power if power <= 256 else -(-n // step) * step


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
