"""Images with attributes: CelebA's layout, or arrays."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from metaprior.errors import InputError
from metaprior.images.tree import KINDS, TABLES, Tree, arrays, as_images, read_all, resize

TABLE = TABLES[3]


@dataclass(frozen=True)
class Attributes:
    """Images, each of which has or lacks every attribute.

    Args:
        pixels: bytes, `(n, h, w, c)`.
        names: of the attributes.
        values: whether an image has one, bool, `(n, a)`.
        remarks: what was changed or left out.
    """

    pixels: np.ndarray
    names: tuple[str, ...]
    values: np.ndarray
    remarks: tuple[str, ...] = ()


def read_attributes(path: str | Path, size: int | None = None) -> Attributes:
    """A folder (or .zip) of images with `list_attr_celeba.txt`, or an .npz of `images` and a bool
    array an attribute.

    The text file has the number of images in its first line, the attributes' names in the second,
    then a line an image: its file name (its path from the text file or the folder where several
    share a name) and 1 or -1 for each attribute. The middle square of an image is taken, then
    brought to `size`.

    Args:
        path: of the folder or file.
        size: height and width; `None` keeps what all images share.

    Raises:
        InputError: no such file, no attribute file, one that does not match itself or the folder;
            the message names it.
    """
    path = Path(path)
    if path.suffix.lower() == ".npz":
        return _from_arrays(path, size)
    if path.suffix.lower() == ".npy":
        raise InputError(
            f"{path}: an .npy holds no attributes; give an .npz of images and a bool array an attribute."
        )
    tree = Tree(path)
    tables = [name for name in tree.names if PurePosixPath(name).name == TABLE]
    if not tables:
        raise InputError(
            f"{path}: holds no {TABLE} (number of images; names of attributes; a line an image)."
        )
    where, names, rows = tree.where(tables[0]), *_rows(tree, tables[0])
    files, above = tree.images(), PurePosixPath(tables[0]).parent
    named: dict[str, list[str]] = {}
    for file in files:
        named.setdefault(PurePosixPath(file).name, []).append(file)
    known, wanted, missing = set(files), [], []
    for name in rows:
        whole = next((file for file in (str(above / name), name) if file in known), None)
        places = (
            [whole]
            if whole
            else [
                f for f in named.get(PurePosixPath(name).name, ()) if f"/{f}".endswith(f"/{name}")
            ]
        )
        if len(places) > 1:
            raise InputError(
                f"{where}: names {name}, which is in several folders ({places[0]}, {places[1]}); give paths."
            )
        (wanted if places else missing).append(places[0] if places else name)
    if missing:
        raise InputError(
            f"{where}: names {missing[0]}, which is not in the folder ({len(missing)} of {len(rows)} images are not)."
        )
    if len(set(wanted)) < len(wanted):
        raise InputError(f"{where}: several lines name {max(wanted, key=wanted.count)}.")
    pixels, remarks = read_all(tree, wanted, size, crop=True)
    extra = len(files) - len(rows)
    if extra:
        remarks.append(f"{extra} image{'s' * (extra > 1)} without a line in {TABLE} left out")
    return Attributes(pixels, names, np.array(list(rows.values()), bool), tuple(remarks))


def _rows(tree: Tree, table: str) -> tuple[tuple[str, ...], dict[str, list[bool]]]:
    where = tree.where(table)
    lines = [line for line in tree.text(table).splitlines() if line.strip()]
    if len(lines) < 3 or not lines[0].strip().isdigit():
        raise InputError(
            f"{where}: the first line is the number of images, the second the attributes' names; then a line an image."
        )
    count, names = int(lines[0]), tuple(lines[1].split())
    if len(set(names)) != len(names):
        raise InputError(f"{where}: line 2 names an attribute twice.")
    if count != len(lines) - 2:
        raise InputError(
            f"{where}: line 1 says {count} images; there are {len(lines) - 2} lines of them."
        )
    rows = {}
    for number, line in enumerate(lines[2:], start=3):
        name, *values = line.strip().rsplit(maxsplit=len(names))  # a name may hold spaces
        if PurePosixPath(name).suffix.lower() not in KINDS:
            name, *values = line.split()
        if len(values) != len(names):
            raise InputError(
                f"{where}: line {number} has {len(values)} values; there are {len(names)} attributes."
            )
        if not set(values) <= {"1", "-1"}:
            raise InputError(
                f"{where}: line {number}: a value is 1 or -1; got {(set(values) - {'1', '-1'}).pop()!r}."
            )
        if name in rows:
            raise InputError(f"{where}: line {number} names {name} again.")
        rows[name] = [value == "1" for value in values]
    return names, rows


def _from_arrays(path: Path, size: int | None) -> Attributes:
    if not path.is_file():
        raise InputError(f"{path}: no such file or folder.")
    held = arrays(path)
    if "images" not in held:
        raise InputError(f"{path}: holds no array images.")
    pixels = as_images(path, "images", held.pop("images"), 1)
    if pixels.ndim != 4 or pixels.shape[-1] not in (1, 3):
        raise InputError(
            f"{path}: images have the shape (n, h, w) or (n, h, w, 1, 3 or 4); got {pixels.shape}."
        )
    flags = {k: v for k, v in held.items() if v.dtype == bool and v.shape == (len(pixels),)}
    if "attributes" in held and held["attributes"].dtype == bool and held["attributes"].ndim == 2:
        values = held["attributes"]
        called = held.get(
            "names", held.get("attribute_names", np.arange(values.shape[1]).astype(str))
        )
        if len(values) != len(pixels) or len(called) != values.shape[1]:
            raise InputError(
                f"{path}: attributes has shape {values.shape}; there are {len(pixels)} images, {len(called)} names."
            )
        flags = {str(name): values[:, i] for i, name in enumerate(called)}
    if not flags:
        raise InputError(
            f"{path}: holds no attributes: bool arrays of {len(pixels)} values, one an attribute."
        )
    remarks = ()
    if size is not None and pixels.shape[1:3] != (size, size):
        remarks = (f"images of {pixels.shape[1]} x {pixels.shape[2]} were made {size} x {size}",)
        pixels = np.stack([resize(image, size, crop=True) for image in pixels])
    return Attributes(pixels, tuple(flags), np.stack(list(flags.values()), axis=1), remarks)
