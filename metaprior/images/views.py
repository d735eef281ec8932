"""Views of objects from several sides."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from metaprior.errors import InputError
from metaprior.images.arrays import array, arrays, as_images, sized
from metaprior.images.tree import Tree, read_all


@dataclass(frozen=True)
class Views:
    """Objects, each seen from the same sides.

    Args:
        pixels: bytes, `(m, v, h, w, c)`.
        names: of the objects.
        category: of the objects; `""` where unknown.
        azimuth: of the views, degrees, `(v,)`; evenly around where the data do not say.
        remarks: what was changed or left out.
    """

    pixels: np.ndarray
    names: tuple[str, ...]
    category: tuple[str, ...]
    azimuth: np.ndarray
    remarks: tuple[str, ...] = ()


def read_views(path: str | Path, size: int | None = None) -> Views:
    """Views of objects, from arrays or from a folder of objects.

    An .npz has `views`, `(objects, views, h, w)`, `(…, h, w, c)` or `(…, c, h, w)`, and may have
    `name`, `category` and `azimuth_deg`. An .npy, or an .npz of one array without a name, is the
    views. In a folder, each object is a folder of its views. Their order is that of the file names,
    with numbers as numbers, and the folder above an object's is its category.

    Args:
        path: of the file or folder (or a .zip of it).
        size: height and width; `None` keeps what all images share.

    Raises:
        InputError: no such file, no views, objects with different numbers of views; the message
            names the file.
    """
    path = Path(path)
    if path.suffix.lower() in (".npz", ".npy"):
        return _from_arrays(path, size)
    tree = Tree(path)
    objects: dict[str, list[str]] = {}
    for name in tree.images():
        objects.setdefault(str(PurePosixPath(name).parent), []).append(name)
    if not objects:
        raise InputError(
            f"{path}: holds no images; it should hold a folder an object, with its views in it."
        )
    if len(objects) < 2:
        raise InputError(
            f"{path}: holds one object only; views need several, each in a folder of its own."
        )

    # Every object must have as many views as most have: they become one array.
    counts = {name: len(files) for name, files in objects.items()}
    usual = max(set(counts.values()), key=list(counts.values()).count)
    other = [name for name, count in counts.items() if count != usual]
    if other:
        raise InputError(
            f"{tree.where(other[0])}: has {counts[other[0]]} views; the others have {usual}."
        )
    if usual < 2:
        raise InputError(f"{path}: its objects have one view each; at least two are needed.")

    in_order = [file for files in objects.values() for file in sorted(files, key=_natural)]
    pixels, remarks = read_all(tree, in_order, size)
    pixels = pixels.reshape(len(objects), usual, *pixels.shape[1:])
    # Nobody said from which sides: evenly around is what a turntable gives.
    category = tuple("/".join(PurePosixPath(name).parts[:-1]) for name in objects)
    return Views(pixels, tuple(objects), category, 360.0 * np.arange(usual) / usual, tuple(remarks))


def _natural(name: str) -> list[str | int]:
    """A key for sorting by which 2 comes before 10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", name)]


def _from_arrays(path: Path, size: int | None) -> Views:
    # An array without a name is called arr_0 in an .npz.
    if path.suffix.lower() == ".npy":
        held = {"views": array(path)}
    else:
        held = arrays(path, ("views", "arr_0", "name", "category", "azimuth_deg"))
        held.setdefault("views", held.get("arr_0", np.empty(0)))
    if not held["views"].size:
        raise InputError(f"{path}: holds no array views.")
    pixels = as_images(path, "views", held["views"], 2)
    if pixels.ndim != 5 or pixels.shape[-1] not in (1, 3) or pixels.shape[1] < 2:
        raise InputError(
            f"{path}: views have the shape (objects, views, h, w), with 1, 3 or 4 channels behind "
            f"or before h, w, and are two or more; got {held['views'].shape}."
        )
    m, v = pixels.shape[:2]
    for name, length in (("name", m), ("category", m), ("azimuth_deg", v)):
        if name in held and held[name].shape != (length,):
            raise InputError(
                f"{path}: {name} has shape {held[name].shape}; it should have {length} entries."
            )

    pixels, remarks = sized(path, pixels, size)
    names = tuple(map(str, held.get("name", np.arange(m))))
    category = tuple(map(str, held.get("category", np.full(m, ""))))
    azimuth = held.get("azimuth_deg", 360.0 * np.arange(v) / v)
    return Views(pixels, names, category, azimuth, remarks)
