"""Faces with attributes: which images and which triples of attributes are for what."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metaprior.errors import InputError
from metaprior.images import read_attributes
from metaprior.protocols.protocol import inside
from metaprior.sources.attributes import SharedAttributes, Triples, split_triples, triples

FILE = "avatars_open_peeps32.npz"
SHOTS, QUERY, SIZE = 5, 10, 32
HELD_OUT = 20261125  # key of the judged episodes, and seed of both splits
MOST_IMAGES, MOST_TRIPLES = 20_000, 400


@dataclasses.dataclass
class Faces:
    """Distinct images, split, and signed triples of their attributes, split.

    Args:
        pixels: `(n, 32, 32, c)`, bytes.
        values: `(n, a)`.
        names: of the attributes.
        train, validation, test: rows of `pixels`.
        triples: for training, validation and test.
        remark: what was left out.
        features: of all images, by seed and steps; filled when first asked for.
    """

    pixels: np.ndarray
    values: np.ndarray
    names: tuple[str, ...]
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray
    triples: tuple[Triples, Triples, Triples]
    remark: str
    features: dict[tuple[int, int], np.ndarray] = dataclasses.field(default_factory=dict)

    @property
    def parts(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows of `pixels` for training, validation and test."""
        return self.train, self.validation, self.test


def load(path: Path | None, options: dict[str, Any] | None = None) -> Faces:
    """The avatars in a folder of data, or images with attributes of one's own."""
    if path is None:
        raise InputError(
            f"attributes needs images: give --data a folder that holds {FILE}, or CelebA's folder."
        )
    path = Path(path)
    read = read_attributes(inside(path, FILE), SIZE)
    return split(
        read.pixels, read.values, tuple(read.names), str(path), read.remarks, part=read.part
    )


def reads(path: Path) -> list[Path]:
    """What `load` reads."""
    return [inside(path, FILE)]


def split(
    pixels: np.ndarray,
    values: np.ndarray,
    names: tuple[str, ...],
    path: str,
    remarks: Sequence[str] = (),
    part: np.ndarray | None = None,
) -> Faces:
    """60 % of the distinct images for training, 15 % for validation, 25 % for the test, unless the
    data say which.

    Triples of attributes are split likewise.

    Args:
        pixels, values, names: as in `Faces`, copies included.
        path: where they come from, for messages.
        remarks: of the reader.
        part: 0, 1 or 2 for each image: for training, for validation, for the test.
    """
    if values.shape[1] < 3:
        raise InputError(
            f"{path}: has {values.shape[1]} attributes; a concept is a pair of three, so give 3 or "
            "more."
        )
    rng = np.random.default_rng(HELD_OUT)
    kept, said = distinct(pixels, rng)
    pixels, values = pixels[kept], values[kept]

    if part is None:
        order = rng.permutation(len(kept))
        parts = np.split(order, [int(0.6 * len(order)), int(0.75 * len(order))])
        train, validation, test = parts
    else:
        train, validation, test = (np.flatnonzero(part[kept] == i) for i in range(3))
        said.append(
            f"the partition of the data: {len(train)} images train, {len(validation)} choose the "
            f"step, {len(test)} are judged on"
        )
    chosen = _triples(values, (train, validation, test))
    if chosen is None:
        raise InputError(
            f"{path}: too few images for their {values.shape[1]} attributes: fewer than 3 triples "
            f"of attributes have, in each of training, validation and test images, {SHOTS} "
            f"positives and {SHOTS} negatives to show and {QUERY} of each to ask."
        )
    remark = "; ".join([*remarks, *said])
    return Faces(pixels, values, names, train, validation, test, chosen, remark)


def distinct(pixels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, list[str]]:
    """Rows of different images, at most `MOST_IMAGES`, and what is said of the others."""
    flat = pixels.reshape(len(pixels), -1)
    first = np.sort(np.unique(flat, axis=0, return_index=True)[1])
    said = []
    copies = len(pixels) - len(first)
    if copies:
        said.append(f"{copies} of {len(pixels)} images left out as copies of others")
    if len(first) > MOST_IMAGES:
        said.append(f"{MOST_IMAGES} of {len(first)} distinct images taken at random")
        first = np.sort(rng.choice(first, MOST_IMAGES, replace=False))
    return first, said


def _triples(
    values: np.ndarray, parts: Sequence[np.ndarray]
) -> tuple[Triples, Triples, Triples] | None:
    """Triples that have enough images in every part, split; `None` where they are too few."""
    train, validation, test = (triples(values[part], SHOTS, QUERY) for part in parts)

    def named(found: Triples) -> list[tuple]:
        return [(*columns, *signs) for columns, signs in found]

    everywhere = set(named(validation)) & set(named(test))
    able = train.take([name in everywhere for name in named(train)])
    return split_triples(able, MOST_TRIPLES, HELD_OUT)


def source(data: Faces, x: np.ndarray, which: int) -> SharedAttributes:
    """Tasks on the images and triples for training (0), validation (1) or test (2)."""
    rows = data.parts[which]
    return SharedAttributes.of(x[rows], data.values[rows], data.triples[which], SHOTS, QUERY)
