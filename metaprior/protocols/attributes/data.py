"""data of attributes."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from metaprior.errors import InputError
from metaprior.images import read_attributes
from metaprior.protocols.protocol import (
    inside,
)
from metaprior.sources.attributes import (
    SharedAttributes,
    Triples,
    split_triples,
    triples,
)

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
    features: dict = dataclasses.field(default_factory=dict)


def load(path: Path | None) -> Faces:
    """The avatars in a folder of data, or images with attributes of one's own."""
    if path is None:
        raise InputError(
            f"attributes: needs images; give --data a folder that holds {FILE}, or CelebA's folder."
        )
    path = Path(path)
    read = read_attributes(inside(path, FILE), SIZE)
    return split(read.pixels, read.values, tuple(read.names), str(path), read.remarks)


def split(
    pixels: np.ndarray,
    values: np.ndarray,
    names: tuple[str, ...],
    path: str,
    remarks: Sequence[str] = (),
) -> Faces:
    """60 % of the distinct images for training, 15 % for validation, 25 % for test; triples of
    attributes likewise.
    """
    if values.shape[1] < 3:
        raise InputError(
            f"{path}: has {values.shape[1]} attributes; a concept is a pair of three, so give 3 or more."
        )
    rng = np.random.default_rng(HELD_OUT)
    first = np.sort(np.unique(pixels.reshape(len(pixels), -1), axis=0, return_index=True)[1])
    said = list(remarks)
    if len(first) < len(pixels):
        said.append(
            f"{len(pixels) - len(first)} of {len(pixels)} images left out as copies of others"
        )
    if len(first) > MOST_IMAGES:
        said.append(f"{MOST_IMAGES} of {len(first)} distinct images taken at random")
        first = np.sort(rng.choice(first, MOST_IMAGES, replace=False))
    order = rng.permutation(len(first))
    first_cut, second_cut = int(0.6 * len(first)), int(0.75 * len(first))
    train, validation, test = parts = (
        order[:first_cut],
        order[first_cut:second_cut],
        order[second_cut:],
    )
    pixels, values = pixels[first], values[first]
    good = [{(*c, *s) for c, s in triples(values[p], SHOTS, QUERY)} for p in parts]
    every = triples(values[parts[0]], SHOTS, QUERY)
    chosen = split_triples(
        every.take([(*c, *s) in good[1] & good[2] for c, s in every]), MOST_TRIPLES, HELD_OUT
    )
    if chosen is None:
        raise InputError(
            f"{path}: too few images for their {values.shape[1]} attributes: fewer than 3 triples of attributes have, in each "
            f"of training, validation and test images, {SHOTS} positives and {SHOTS} negatives to show and {QUERY} of each to ask."
        )
    return Faces(pixels, values, names, train, validation, test, chosen, "; ".join(said))


def source(data: Faces, x: np.ndarray, which: int) -> SharedAttributes:
    """Tasks on the images and triples for training (0), validation (1) or test (2)."""
    rows = (data.train, data.validation, data.test)[which]
    return SharedAttributes.of(x[rows], data.values[rows], data.triples[which], SHOTS, QUERY)
