"""Views of objects: which objects are for what."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metaprior.errors import InputError
from metaprior.images import read_views
from metaprior.protocols.protocol import inside

FILE = "views3d_furniture32.npz"
SIZE, MULTIPLES, ASKED = 32, 4, 6
SPLIT = 20261126  # seed of the split, and key of the sides that are shown
MOST = 5000
# Mean squared difference of all pixels of all views, below which two models are one object.
ALIKE = 0.0015


@dataclasses.dataclass
class Objects:
    """Grey views of objects, split.

    Args:
        views: bytes, `(m, v, 32, 32)`.
        azimuth: degrees.
        names: of the objects.
        train, validation, test: rows of `views`.
        remark: what was changed or left out.
        groups: rows of `views` that are one object or share a name.
    """

    views: np.ndarray
    azimuth: np.ndarray
    names: tuple[str, ...]
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    remark: str
    groups: list[list[int]] = dataclasses.field(default_factory=list)

    def of_seed(self, seed: int) -> "Objects":
        """With another split for each seed: a fifth of few objects says little of others."""
        if seed == 0:
            return self
        order = np.random.default_rng([SPLIT, seed]).permutation(len(self.groups))
        train, validation, test = _parts(self.groups, order)
        return dataclasses.replace(self, train=train, validation=validation, test=test)


def load(path: Path | None, options: dict[str, Any] | None = None) -> Objects:
    """The furniture in a folder of data, or views of one's own."""
    if path is None:
        raise InputError(
            "ambiguous-generation needs views of objects: give --data a folder that holds "
            f"{FILE}, an .npz of views, or a folder of objects, each a folder of its views."
        )
    path = Path(path)
    read = read_views(inside(path, FILE), SIZE)
    return split(read.pixels, read.azimuth, read.names, str(path), read.remarks)


def reads(path: Path) -> list[Path]:
    """What `load` reads."""
    return [inside(path, FILE)]


def split(
    pixels: np.ndarray,
    azimuth: np.ndarray,
    names: tuple[str, ...],
    path: str,
    remarks: Sequence[str] = (),
) -> Objects:
    """70 % of the objects for training, 10 % for validation, 20 % for the test.

    Objects of one name or look stay together.

    Args:
        pixels: bytes, `(m, v, h, w, c)`.
        azimuth: of each view, degrees.
        names: of the objects.
        path: where they come from, for messages.
        remarks: of the reader.
    """
    rng, said = np.random.default_rng(SPLIT), list(remarks)
    if len(pixels) > MOST:
        kept = np.sort(rng.choice(len(pixels), MOST, replace=False))
        said.append(f"{MOST} of {len(pixels)} objects taken at random")
        pixels, names = pixels[kept], tuple(names[i] for i in kept)
    if pixels.shape[-1] > 1:
        said.append("colours were averaged to grey")

    views = np.round(pixels.mean(-1)).astype(np.uint8)
    groups = together(views, names)
    if len(groups) < 10:
        raise InputError(
            f"{path}: holds {len(groups)} different objects; at least 10 are needed to hold some "
            "out."
        )
    said.append(f"{len(views)} models in {len(groups)} groups of one name or look")

    train, validation, test = _parts(groups, rng.permutation(len(groups)))
    angles = np.asarray(azimuth, float)
    return Objects(views, angles, names, train, validation, test, "; ".join(said), groups)


def _parts(groups: list[list[int]], order: np.ndarray) -> list[np.ndarray]:
    """Rows for training, validation and test, of groups in this order."""
    first, second = int(0.7 * len(order)), int(0.8 * len(order))
    parts = np.split(order, [first, second])
    return [np.sort(np.concatenate([groups[i] for i in part])) for part in parts]


def together(views: np.ndarray, names: Sequence[str]) -> list[list[int]]:
    """Groups of objects that share a name, or of which one looks like the other from every side."""
    halved = views.reshape(*views.shape[:2], 16, 2, 16, 2).mean((3, 5))
    small = halved.reshape(len(views), -1) / 255.0
    square = (small**2).sum(1)
    gap = (square[:, None] + square[None] - 2 * small @ small.T) / small.shape[1]

    # each object points to another of its group, or to itself when it leads the group
    leader = list(range(len(views)))

    def find(i: int) -> int:
        while leader[i] != i:
            i = leader[i]
        return i

    first: dict[str, int] = {}
    for i, name in enumerate(names):
        leader[find(i)] = find(first.setdefault(name, i))
    for i, j in zip(*np.nonzero(gap < ALIKE)):
        leader[find(int(i))] = find(int(j))

    groups: dict[int, list[int]] = {}
    for i in range(len(views)):
        groups.setdefault(find(i), []).append(i)
    return list(groups.values())


def coarse(data: Objects, times: int) -> Objects:
    """Squares of `times` x `times` pixels averaged."""
    m, v, h, w = data.views.shape
    views = data.views.reshape(m, v, h // times, times, w // times, times).mean((3, 5))
    return dataclasses.replace(data, views=np.round(views).astype(np.uint8))
