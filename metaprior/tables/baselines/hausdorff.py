"""A distance between drawings that needs no learning."""

import numpy as np
from scipy.spatial import KDTree

FAR = 1e9  # pixels to a drawing without ink


def _points(images: np.ndarray) -> list[np.ndarray]:
    """Where the ink of each drawing is, seen from its mean."""
    found = [np.argwhere(image).astype(float) for image in images]
    return [p - p.mean(0) if len(p) else p for p in found]


def _directed(first: list[np.ndarray], second: list[np.ndarray]) -> np.ndarray:
    """From each first drawing to each second one, `(m, n)`: the mean way to the nearest point."""
    out = np.full((len(first), len(second)), FAR)
    some = [i for i, p in enumerate(first) if len(p)]
    if not some:
        return out

    # All points of the first drawings in one query: a tree is asked once for each second drawing.
    every = np.concatenate([first[i] for i in some])
    counts = np.array([len(first[i]) for i in some])
    starts = np.concatenate([[0], np.cumsum(counts)[:-1]])

    for j, points in enumerate(second):
        if len(points):
            nearest = KDTree(points).query(every)[0]
            out[some, j] = np.add.reduceat(nearest, starts) / counts
    return out


def distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Modified Hausdorff distance between every drawing of two sets, `(m, n)`, in pixels.

    Dubuisson & Jain, "A Modified Hausdorff Distance for Object Matching", ICPR 1994. Each point of
    one drawing has a distance to the nearest point of the other; these have a mean, for either
    drawing, and the larger mean counts. Points are ink pixels, measured from their mean, as in
    Lake, Salakhutdinov & Tenenbaum, "Human-Level Concept Learning through Probabilistic Program
    Induction", Science 2015.

    Args:
        first, second: bool, `(m, h, w)` and `(n, h, w)`, true where there is ink.

    Returns:
        distances in pixels; `FAR` where only one of the drawings, or neither, has ink.

    Example:
        >>> import numpy as np
        >>> from metaprior.tables.baselines.hausdorff import distances
        >>> dot, bar = np.zeros((2, 1, 5, 5), bool)
        >>> dot[0, 2, 2], bar[0, 2, 1:4] = True, True
        >>> distances(dot, bar).round(3).tolist()
        [[0.667]]
    """
    a, b = _points(np.asarray(first, bool)), _points(np.asarray(second, bool))
    return np.maximum(_directed(a, b), _directed(b, a).T)
