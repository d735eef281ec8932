"""Images in folders, one folder a class, in the layouts that few-shot data sets have."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from metaprior.errors import InputError
from metaprior.images.arrays import arrays, as_images, sized
from metaprior.images.tree import OF_CLASSES, Tree, read_all

SPLITS = {
    "train": "train",
    "training": "train",
    "images_background": "train",
    "background": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
    "images_evaluation": "test",
    "evaluation": "test",
}


ARRAYS = ("images", "label", "names", "alphabet", "alphabet_names", "character", "evaluation")


@dataclass(frozen=True)
class Images:
    """Labelled images.

    Args:
        pixels: bytes, `(n, h, w, c)`, one or three channels.
        label: class of every image, `(n,)`, an index into `names`.
        names: of the classes: their folders below the data's own.
        group: of every class: the folder above its own, such as an alphabet; `""` where there is
            none.
        split: of every class: `"train"`, `"val"`, `"test"`, or `""` where the data do not say.
        remarks: what was changed or left out.
    """

    pixels: np.ndarray
    label: np.ndarray
    names: tuple[str, ...]
    group: tuple[str, ...]
    split: tuple[str, ...]
    remarks: tuple[str, ...] = ()


def read_classes(path: str | Path, size: int | None = None) -> Images:
    """Labelled images, from class folders, from tables of file names, or from arrays.

    A folder or a .zip may hold

    - class folders: every folder that holds images is a class, however deep it lies;
    - splits (`train`, `val`, `test`, or Omniglot's `images_background` and `images_evaluation`) of
      class folders, also with groups such as alphabets between them;
    - miniImageNet's `images` with `train.csv`, `val.csv` and `test.csv` (columns `filename` and
      `label`).

    An .npz holds `images` and `label`, or Omniglot's `images`, `alphabet`, `alphabet_names`,
    `character` and `evaluation`.

    Args:
        path: of the folder or file.
        size: height and width that images are brought to, by averages over areas; `None` keeps what
            all share.

    Raises:
        InputError: nothing there, no images, images outside of any class folder, one class only, an
            image that cannot be read, an archive that names files outside of itself; each names the
            file.
    """
    path = Path(path)
    if path.suffix.lower() == ".npz":
        return _from_arrays(path, size)
    if path.suffix.lower() == ".npy":
        raise InputError(f"{path}: an .npy holds no classes; give an .npz of images and label.")
    tree = Tree(path)
    tables = [n for n in tree.names if PurePosixPath(n).name in OF_CLASSES]
    names, classes, of_split = _tables(tree, tables) if tables else _folders(tree)
    found = sorted(set(classes))
    if len(found) < 2:
        raise InputError(
            f"{path}: holds one class only ({found[0]}); episodes need several, "
            "each in a folder of its own."
        )
    pixels, remarks = read_all(tree, names, size)
    # Classes in the order of their names: labels do not depend on the order of the files.
    index = {name: i for i, name in enumerate(found)}
    label = np.array([index[c] for c in classes], np.int32)
    if tables:
        group, split = ("",) * len(found), tuple(of_split[name] for name in found)
    else:
        group, split = zip(*(_place(name, found) for name in found))
    return Images(pixels, label, tuple(found), group, split, tuple(remarks))


def _folders(tree: Tree) -> tuple[list[str], list[str], dict[str, str]]:
    """Image files and their classes by folder; splits are told from the folders' names later."""
    names = tree.images()
    if not names:
        unread = tree.unread()
        raise InputError(
            f"{tree.path}: holds no images; it should hold folders of them, one folder a class."
            + (f" {unread}: save them as PNG." if unread else "")
        )
    classes = [str(PurePosixPath(name).parent) for name in names]
    loose = [name for name, c in zip(names, classes) if c == "."]
    if loose:
        raise InputError(
            f"{tree.where(loose[0])}: lies in no class folder; "
            "images lie in folders, one folder a class."
        )
    return names, classes, {}


def _place(name: str, all_names: list[str]) -> tuple[str, str]:
    """Group and split of a class, from its folders."""
    parts = PurePosixPath(name).parts
    at = _split_at(parts)
    split = "" if at is None else SPLITS[parts[at].lower()]
    inner = parts[:-1] if at is None else parts[at + 1 : -1]
    if not inner:
        return "", split
    above = "/".join(parts[:-1])
    # one folder around everything is a wrapper, not a group
    alone = at is None and all(other.startswith(f"{above}/") for other in all_names)
    return ("" if alone else above), split


def _split_at(parts: tuple[str, ...]) -> int | None:
    """Which of a class's folders says its split."""
    return next((i for i, part in enumerate(parts[:-1]) if part.lower() in SPLITS), None)


def without_split(name: str) -> str:
    """A class's folders without the folder of its split: `train/cat` is `cat`."""
    parts = PurePosixPath(name).parts
    at = _split_at(parts)
    return name if at is None else "/".join((*parts[:at], *parts[at + 1 :]))


def _tables(tree: Tree, tables: list[str]) -> tuple[list[str], list[str], dict[str, str]]:
    """miniImageNet's layout: files, their classes, and splits by class, from three tables."""
    known, names, classes, of_split = set(tree.names), [], [], {}
    for table in tables:
        folder, split = PurePosixPath(table).parent, PurePosixPath(table).stem
        reader = csv.DictReader(io.StringIO(tree.text(table)))
        if not {"filename", "label"} <= set(reader.fieldnames or ()):
            columns = ", ".join(reader.fieldnames or ["none"])
            raise InputError(
                f"{tree.where(table)}: has the columns {columns}; it needs filename and label."
            )
        for row, entry in enumerate(reader, start=2):  # the header is row 1
            file, label = entry["filename"] or "", entry["label"] or ""
            # Copies of the data set differ in where its images lie.
            options = (folder / "images" / file, folder / file, folder / "images" / label / file)
            place = next((str(option) for option in options if str(option) in known), None)
            if place is None or not label:
                raise InputError(
                    f"{tree.where(table)}: row {row} names {file!r}, "
                    "which is not in images/ beside it."
                )
            if of_split.setdefault(label, split) != split:
                raise InputError(
                    f"{tree.where(table)}: row {row}: class {label} is also in "
                    f"{of_split[label]}.csv; a class belongs to one split."
                )
            names.append(place)
            classes.append(label)
    if not names:
        raise InputError(f"{tree.where(tables[0])}: has no rows.")
    return names, classes, of_split


def _from_arrays(path: Path, size: int | None) -> Images:
    held = arrays(path, ARRAYS)
    if "images" not in held or not ("label" in held or {"alphabet", "character"} <= set(held)):
        raise InputError(
            f"{path}: should hold the arrays images and label (or alphabet and character)."
        )
    pixels = as_images(path, "images", held["images"], 1)
    if pixels.ndim != 4 or pixels.shape[-1] not in (1, 3):
        raise InputError(
            f"{path}: images have the shape (n, h, w) or (n, h, w, 1, 3 or 4); "
            f"got {held['images'].shape}."
        )
    n = len(pixels)
    for name, array in held.items():
        if name in ("label", "alphabet", "character", "evaluation") and array.shape != (n,):
            raise InputError(f"{path}: {name} has shape {array.shape}; there are {n} images.")
    if "label" in held:
        names, label = _labels(path, held["label"], held.get("names"))
        group = split = ("",) * len(names)
    else:
        names, group, split, label = _characters(path, held)
    if len(names) < 2:
        raise InputError(
            f"{path}: holds one class only ({names[0] if names else 'none'}); "
            "episodes need several."
        )
    pixels, remarks = sized(path, pixels, size)
    return Images(pixels, label.astype(np.int32), names, group, split, remarks)


def _labels(
    path: Path, label: np.ndarray, called: np.ndarray | None
) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the classes that occur, and each image's class as an index into them.

    Whole numbers are places in `called`, where that is given; all other labels are names.
    """
    values, index = np.unique(label, return_inverse=True)
    if called is None or values.dtype.kind not in "iu":
        return tuple(map(str, values)), index
    if values.min() < 0 or values.max() >= len(called):
        raise InputError(f"{path}: label goes to {values.max()}; there are {len(called)} names.")
    return tuple(str(called[value]) for value in values), index


def _characters(path: Path, held: dict[str, np.ndarray]):
    """Omniglot's arrays: classes by the names that they have in its folders."""
    alphabet, character = held["alphabet"].astype(int), held["character"].astype(int)
    # Characters are numbered within an alphabet, so that a class needs all three numbers.
    evaluation = held.get("evaluation", np.zeros(len(alphabet), bool)).astype(int)
    called = held.get("alphabet_names", np.arange(alphabet.max(initial=0) + 1).astype(str))
    if len(alphabet) and (alphabet.min() < 0 or alphabet.max() >= len(called)):
        raise InputError(
            f"{path}: alphabet goes to {alphabet.max()}; there are {len(called)} alphabet_names."
        )
    each = np.stack([evaluation, alphabet, character], 1)
    keys, label = np.unique(each, axis=0, return_inverse=True)
    folders, splits = ("images_background", "images_evaluation"), ("train", "test")
    group = tuple(f"{folders[e]}/{called[a]}" for e, a, _ in keys)
    names = tuple(f"{above}/character{c:02d}" for above, (_, _, c) in zip(group, keys))
    return names, group, tuple(splits[e] for e, _, _ in keys), label.ravel()
