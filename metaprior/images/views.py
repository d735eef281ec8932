"""Views of objects from several sides."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from metaprior.errors import InputError
from metaprior.images.tree import Tree, arrays, as_bytes, read_all, resize


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
    """An .npz of `views` `(objects, views, h, w)` or `(…, h, w, c)`, or a folder of objects, each a folder of its views.

    The .npz may have `name`, `category` and `azimuth_deg`. In a folder, views are in the order of their file names,
    and the folder above an object's is its category.

    Args:
        path: of the file or folder (or a .zip of it).
        size: height and width; `None` keeps what all images share.

    Raises:
        InputError: no such file, no views, objects with different numbers of views; the message names the file.
    """
    path = Path(path)
    if path.suffix.lower() == ".npz":
        return _from_arrays(path, size)
    tree = Tree(path)
    objects: dict[str, list[str]] = {}
    for name in tree.images():
        objects.setdefault(str(PurePosixPath(name).parent), []).append(name)
    if not objects:
        raise InputError(f"{path}: holds no images; it should hold a folder an object, with its views in it.")
    if len(objects) < 2:
        raise InputError(f"{path}: holds one object only; views need several, each in a folder of its own.")
    counts = {name: len(files) for name, files in objects.items()}
    usual = max(set(counts.values()), key=list(counts.values()).count)
    other = [name for name, count in counts.items() if count != usual]
    if other:
        raise InputError(f"{tree.where(other[0])}: has {counts[other[0]]} views; the others have {usual}.")
    if usual < 2:
        raise InputError(f"{path}: its objects have one view each; at least two are needed.")
    pixels, remarks = read_all(tree, [file for files in objects.values() for file in files], size)
    pixels = pixels.reshape(len(objects), usual, *pixels.shape[1:])
    category = tuple("/".join(PurePosixPath(name).parts[:-1]) for name in objects)
    return Views(pixels, tuple(objects), category, 360.0 * np.arange(usual) / usual, tuple(remarks))


def _from_arrays(path: Path, size: int | None) -> Views:
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder.")
    held = arrays(path, ("views", "name", "category", "azimuth_deg"))
    if "views" not in held:
        raise InputError(f"{path}: holds no array views.")
    pixels = as_bytes(path, "views", held["views"])
    pixels = pixels[..., None] if pixels.ndim == 4 else pixels
    if pixels.ndim != 5 or pixels.shape[-1] not in (1, 3) or pixels.shape[1] < 2:
        raise InputError(
            f"{path}: views have the shape (objects, views, h, w), two views or more; got {held['views'].shape}."
        )
    m, v = pixels.shape[:2]
    for name, length in (("name", m), ("category", m), ("azimuth_deg", v)):
        if name in held and held[name].shape != (length,):
            raise InputError(f"{path}: {name} has shape {held[name].shape}; it should have {length} entries.")
    remarks = ()
    if size is not None and pixels.shape[2:4] != (size, size):
        remarks = (f"images of {pixels.shape[2]} x {pixels.shape[3]} were made {size} x {size}",)
        flat = pixels.reshape(m * v, *pixels.shape[2:])
        pixels = np.stack([resize(image, size) for image in flat]).reshape(m, v, size, size, -1)
    names = tuple(map(str, held.get("name", np.arange(m))))
    category = tuple(map(str, held.get("category", np.full(m, ""))))
    return Views(pixels, names, category, held.get("azimuth_deg", 360.0 * np.arange(v) / v), remarks)
