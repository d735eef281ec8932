"""Images with attributes: CelebA's layout, or arrays."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from metaprior.errors import InputError
from metaprior.images.arrays import arrays, as_images, sized
from metaprior.images.tree import KINDS, Tree, read_all

TABLE, PARTITION = "list_attr_celeba", "list_eval_partition"
PARTS = ("0", "1", "2")  # of CelebA's partition: training, validation, test


@dataclass(frozen=True)
class Attributes:
    """Images, each of which has or lacks every attribute.

    Args:
        pixels: bytes, `(n, h, w, c)`.
        names: of the attributes.
        values: whether an image has one, bool, `(n, a)`.
        remarks: what was changed or left out.
        part: of each image, `(n,)`: 0 training, 1 validation, 2 test; `None` where nothing says so.
    """

    pixels: np.ndarray
    names: tuple[str, ...]
    values: np.ndarray
    remarks: tuple[str, ...] = ()
    part: np.ndarray | None = None


def read_attributes(path: str | Path, size: int | None = None) -> Attributes:
    """Images with attributes, from a folder or from arrays.

    A folder (or .zip) holds images and `list_attr_celeba.txt`. This text file has the number of
    images in its first line, the attributes' names in the second, then a line an image: its file
    name and 1 or -1 for each attribute. Or it holds `list_attr_celeba.csv`, whose first line names
    a column of files and the attributes. Where several files share a name, the line has the path,
    from the text file or from the folder. `list_eval_partition.txt` or `.csv` beside it has a line
    an image, its file name and 0, 1 or 2: for training, for validation, for the test.

    An .npz holds `images` and a bool array an attribute. The middle square of an image is taken,
    then brought to `size`.

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
            f"{path}: an .npy holds no attributes; "
            "give an .npz of images and a bool array an attribute."
        )
    tree = Tree(path)
    table, partition = (_table(tree, name) for name in (TABLE, PARTITION))
    if table is None:
        raise InputError(
            f"{path}: holds no {TABLE}.txt (number of images; names of attributes; a line an "
            f"image) and no {TABLE}.csv (a header; a line an image)."
        )
    names, rows = _rows(tree, table)
    wanted = _files(tree, table, list(rows))
    part = None if partition is None else _parts(tree, partition, list(rows))
    # Faces are in the middle, and stretching would change them: crop.
    pixels, remarks = read_all(tree, wanted, size, crop=True)
    extra = len(tree.images()) - len(rows)
    if extra:
        images = "1 image" if extra == 1 else f"{extra} images"
        remarks.append(f"{images} without a line in {PurePosixPath(table).name} left out")
    return Attributes(pixels, names, np.array(list(rows.values()), bool), tuple(remarks), part)


def _table(tree: Tree, name: str) -> str | None:
    """The first file of that name that ends in .txt or else .csv."""
    for ending in (".txt", ".csv"):
        found = [each for each in tree.names if PurePosixPath(each).name == name + ending]
        if found:
            return found[0]
    return None


def _csv(text: str) -> list[list[str]]:
    """Words of each line that is not empty."""
    lines = csv.reader(io.StringIO(text), skipinitialspace=True)
    return [[word.strip() for word in line] for line in lines if any(line)]


def _parts(tree: Tree, partition: str, names: list[str]) -> np.ndarray:
    """Which part each image is in."""
    where, text = tree.where(partition), tree.text(partition)
    if partition.endswith(".csv"):
        lines = _csv(text)[1:]
    else:
        lines = [line.rsplit(maxsplit=1) for line in text.splitlines() if line.strip()]
    wrong = next((line for line in lines if len(line) != 2 or line[1] not in PARTS), None)
    if wrong is not None:
        raise InputError(
            f"{where}: a line has an image and 0 (training), 1 (validation) or 2 (test); "
            f"got {' '.join(wrong)!r}."
        )
    part = dict(lines)
    missing = [name for name in names if name not in part]
    if missing:
        raise InputError(
            f"{where}: has no line for {missing[0]} ({len(missing)} of {len(names)} images have "
            "none)."
        )
    return np.array([int(part[name]) for name in names])


def _files(tree: Tree, table: str, names: list[str]) -> list[str]:
    """The image file of every line of the text file."""
    where, above, files = tree.where(table), PurePosixPath(table).parent, tree.images()
    of_name: dict[str, list[str]] = {}
    for file in files:
        of_name.setdefault(PurePosixPath(file).name, []).append(file)

    known, wanted, missing = set(files), [], []
    for name in names:
        # A path from the text file or from the folder; else the end of a path that only one has.
        places = [file for file in (str(above / name), name) if file in known][:1]
        if not places:
            alike = of_name.get(PurePosixPath(name).name, ())
            places = [file for file in alike if f"/{file}".endswith(f"/{name}")]
        if len(places) > 1:
            raise InputError(
                f"{where}: names {name}, which is in several folders ({places[0]}, {places[1]}); "
                "give paths."
            )
        if places:
            wanted.append(places[0])
        else:
            missing.append(name)

    if missing:
        raise InputError(
            f"{where}: names {missing[0]}, which is not in the folder "
            f"({len(missing)} of {len(names)} images are not)."
        )
    if len(set(wanted)) < len(wanted):
        raise InputError(f"{where}: several lines name {max(wanted, key=wanted.count)}.")
    return wanted


def _rows(tree: Tree, table: str) -> tuple[tuple[str, ...], dict[str, list[bool]]]:
    """The attributes' names, and their values for every file that the text file names."""
    where = tree.where(table)
    if table.endswith(".csv"):
        return _rows_of_csv(where, _csv(tree.text(table)))
    lines = [line for line in tree.text(table).splitlines() if line.strip()]
    if len(lines) < 3 or not lines[0].strip().isdigit():
        raise InputError(
            f"{where}: the first line is the number of images, the second the attributes' names; "
            "then a line an image."
        )
    count, names = int(lines[0]), tuple(lines[1].split())
    if len(set(names)) != len(names):
        raise InputError(f"{where}: line 2 names an attribute twice.")
    if count != len(lines) - 2:
        raise InputError(
            f"{where}: line 1 says {count} images; there are {len(lines) - 2} lines of them."
        )
    told = []
    for line in lines[2:]:
        # From the right, as a file name may hold spaces. With a value too many, the name that is
        # left has one in it; then count all words, to say how many values there are.
        name, *values = line.strip().rsplit(maxsplit=len(names))
        if PurePosixPath(name).suffix.lower() not in KINDS:
            name, *values = line.split()
        told.append((name, values))
    return names, _flags_of(where, names, told, 3)


def _rows_of_csv(
    where: str, lines: list[list[str]]
) -> tuple[tuple[str, ...], dict[str, list[bool]]]:
    """The same of a .csv: a header, then a line an image."""
    if len(lines) < 2:
        raise InputError(f"{where}: a header and a line an image are needed.")
    names = tuple(lines[0][1:])
    if len(set(names)) != len(names):
        raise InputError(f"{where}: line 1 names an attribute twice.")
    return names, _flags_of(where, names, [(line[0], line[1:]) for line in lines[1:]], 2)


def _flags_of(
    where: str, names: tuple[str, ...], told: list[tuple[str, list[str]]], first: int
) -> dict[str, list[bool]]:
    """Attributes of each image, from words that are 1 or -1; `first` is the first one's line."""
    rows = {}
    for number, (name, values) in enumerate(told, start=first):
        if len(values) != len(names):
            raise InputError(
                f"{where}: line {number} has {len(values)} values; "
                f"there are {len(names)} attributes."
            )
        if not set(values) <= {"1", "-1"}:
            wrong = (set(values) - {"1", "-1"}).pop()
            raise InputError(f"{where}: line {number}: a value is 1 or -1; got {wrong!r}.")
        if name in rows:
            raise InputError(f"{where}: line {number} names {name} again.")
        rows[name] = [value == "1" for value in values]
    return rows


def _from_arrays(path: Path, size: int | None) -> Attributes:
    held = arrays(path)
    if "images" not in held:
        raise InputError(f"{path}: holds no array images.")
    pixels = as_images(path, "images", held.pop("images"), 1)
    if pixels.ndim != 4 or pixels.shape[-1] not in (1, 3):
        raise InputError(
            f"{path}: images have the shape (n, h, w) or (n, h, w, 1, 3 or 4); got {pixels.shape}."
        )
    flags = _flags(path, held, len(pixels))
    if not flags:
        raise InputError(
            f"{path}: holds no attributes: bool arrays of {len(pixels)} values, one an attribute."
        )
    pixels, remarks = sized(path, pixels, size, crop=True)
    return Attributes(pixels, tuple(flags), np.stack(list(flags.values()), axis=1), remarks)


def _flags(path: Path, held: dict[str, np.ndarray], images: int) -> dict[str, np.ndarray]:
    """Attributes by name: the columns of `attributes`, else all bool arrays of the right length."""
    values = held.get("attributes")
    if values is None or values.dtype != bool or values.ndim != 2:
        return {k: v for k, v in held.items() if v.dtype == bool and v.shape == (images,)}
    numbers = np.arange(values.shape[1]).astype(str)
    names = held.get("names", held.get("attribute_names", numbers))
    if values.shape != (images, len(names)):
        raise InputError(
            f"{path}: attributes has shape {values.shape}; "
            f"there are {images} images, {len(names)} names."
        )
    return {str(name): values[:, i] for i, name in enumerate(names)}
