"""What `few-shot-images` reads: Omniglot with Lake's one-shot runs, or folders of classes."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from metaprior.errors import InputError
from metaprior.images.classes import Images, read_classes, without_split
from metaprior.images.tree import Tree, resize

# Lake's small sets of background alphabets.
MINIMAL = {
    "small1": ("Balinese", "Early_Aramaic", "Greek", "Korean", "Latin"),
    "small2": ("Greek", "Japanese_(katakana)", "Latin", "Sanskrit", "Tagalog"),
}
QUERY = 1  # fewest images of a class that a task asks about
SPLIT, RUNS, PACKED = "omniglot_split_vinyals.json", "all_runs.zip", "omniglot28.npz"
# Names that Omniglot's two halves go by, as folders or archives.
FOLDERS = tuple(
    tuple(f"{lead}images_{kind}{end}" for lead in ("", "omniglot_") for end in ("", ".zip"))
    for kind in ("background", "evaluation")
)
PARTS = ("train", "val", "test")
LEAST, GREY, MOST = 16, 28, 84  # pixels a side: of any image, and at most unless asked for
LOOKED = 101  # images whose kind and size say what the others are like


@dataclass(frozen=True)
class Runs:
    """Lake's one-shot classification runs.

    Args:
        support: the drawing of each class, `(runs, 20, h, w)`, ink white.
        query: the drawings to classify, `(runs, 20, h, w)`.
        answer: class of each, `(runs, 20)`.
        full: support and query in their own size, bool, ink true.
    """

    support: np.ndarray
    query: np.ndarray
    answer: np.ndarray
    full: tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Pictures:
    """Images, which classes are for what, and what can be run on them.

    Args:
        name: in the report.
        images: all of them.
        parts: indices of classes: `train`, `val`, `test`, and with runs the backgrounds `original`,
            `small1`, `small2`.
        settings: `(way, shot)` of the episodes.
        rotations: whether turned classes are further classes, as is usual for Omniglot.
        runs: Lake's, or `None`.
        remarks: for the report.
        free: classes that the data do not split: each seed splits them anew.
    """

    name: str
    images: Images
    parts: dict[str, np.ndarray]
    settings: tuple[tuple[int, int], ...]
    rotations: bool
    runs: Runs | None = None
    remarks: tuple[str, ...] = field(default=())
    free: np.ndarray | None = None

    def of_seed(self, seed: int) -> "Pictures":
        """With another split of the classes for each seed, where the data give none.

        What can be said of few classes depends on which of them are judged.
        """
        if self.free is None or seed == 0:
            return self
        parts = _anew(self.free, seed)
        if not len(parts["val"]):
            parts["val"] = parts["train"]
        count = np.bincount(self.images.label, minlength=len(self.images.names))
        able = _settings({part: count[rows] for part, rows in parts.items()})
        kept = tuple(setting for setting in self.settings if setting in able)
        lost = [f"{way}-way {shot}-shot" for way, shot in self.settings if (way, shot) not in kept]
        said = f"this seed's classes have too few images for {', '.join(lost)}"
        remarks = (*self.remarks, said) if lost else self.remarks
        return replace(self, parts=parts, settings=kept, remarks=remarks)


def load(path: Path | None, options: dict[str, Any] | None = None) -> Pictures:
    """Omniglot where the folder (or file) holds it, else class folders.

    Args:
        path: of the folder or file.
        options: of the budget; `size` is read, of class folders alone.
    """
    size = (options or {}).get("size", 0)
    if path is None:
        raise InputError(
            "few-shot-images reads images: give --data FOLDER, of Omniglot or of class folders of "
            "your own."
        )
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder.")
    folder, places = _places(path)
    if places and size:
        raise InputError("--set size is for class folders of your own; Omniglot's are 28 x 28.")
    if len(places) == 2:
        return _omniglot(folder, _joined([read_classes(p, 28) for p in places]))
    return _omniglot(folder, read_classes(places[0], 28)) if places else _own(path, size)


def _places(path: Path) -> tuple[Path, list[Path]]:
    """Omniglot's folder, and its file or its two halves; none where it is something else."""
    packed = path if path.name == PACKED else path / PACKED
    if packed.is_file():
        return packed.parent, [packed]
    found = []
    for names in FOLDERS:
        found += [path / name for name in names if (path / name).exists()][:1]
    return path, found if len(found) == 2 and path.is_dir() else []


def reads(path: Path) -> list[Path]:
    """What `load` reads."""
    folder, places = _places(path)
    if not places:
        return [path]
    return [*places, *(folder / name for name in (SPLIT, RUNS) if (folder / name).is_file())]


def _joined(halves: list[Images]) -> Images:
    """Background and evaluation as one set with the names of its archives, ink white."""
    folders = ("images_background", "images_evaluation")
    names, groups, splits = [], [], []
    for half, folder, split in zip(halves, folders, ("train", "test")):
        plain = [PurePosixPath(name).parts[-2:] for name in half.names]
        names += ["/".join((folder, *parts)) for parts in plain]
        groups += ["/".join((folder, parts[0])) for parts in plain]
        splits += [split] * len(plain)
    label = np.concatenate([halves[0].label, halves[1].label + len(halves[0].names)])
    pixels = 255 - np.concatenate([half.pixels for half in halves])
    return Images(pixels, label, tuple(names), tuple(groups), tuple(splits))


def _omniglot(folder: Path, images: Images) -> Pictures:
    """Omniglot, split as the files beside it say."""
    remarks = []
    background = np.array([i for i, split in enumerate(images.split) if split == "train"], int)
    if (folder / SPLIT).is_file():
        names = {name: i for i, name in enumerate(images.names)}
        parts = _split(folder / SPLIT, names)
    else:
        held = background[::10]
        parts = {
            "train": np.setdiff1d(background, held),
            "val": held,
            "test": np.setdiff1d(np.arange(len(images.names)), background),
        }
        remarks.append(
            f"without {SPLIT}: trained on the background alphabets, judged on the evaluation "
            "alphabets"
        )

    runs = None
    if (folder / RUNS).is_file():
        runs = read_runs(folder / RUNS)
        alphabet = [PurePosixPath(group).name for group in images.group]
        parts["original"] = background
        for name, alphabets in MINIMAL.items():
            some = np.array([i for i in background if alphabet[i] in alphabets], int)
            if len(some) >= 20:  # a run has 20 classes
                parts[name] = some
    else:
        remarks.append(f"without {RUNS}: Lake's one-shot runs are left out")
    settings = ((5, 1), (5, 5), (20, 1), (20, 5))
    return Pictures("Omniglot", images, parts, settings, True, runs, tuple(remarks))


def _split(path: Path, names: dict[str, int]) -> dict[str, np.ndarray]:
    """Vinyals' split: indices of classes by part."""
    try:
        listed = json.loads(path.read_text("utf-8"))
        parts = {part: [str(name) for name in listed[part]] for part in PARTS}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: should hold lists train, val and test of characters ({type(error).__name__})."
        ) from None
    for listed in parts.values():
        unknown = [name for name in listed if name not in names]
        if unknown:
            raise InputError(f"{path}: names {unknown[0]!r}, which is not among the images.")
    return {part: np.array([names[name] for name in own], int) for part, own in parts.items()}


def read_runs(path: Path, size: int = 28) -> Runs:
    """Lake's `all_runs.zip` or its folder: runNN with training, test and class_labels.txt."""
    tree = Tree(path)
    labels = [name for name in tree.names if PurePosixPath(name).name == "class_labels.txt"]
    if not labels:
        raise InputError(
            f"{path}: holds no class_labels.txt; Lake's runs are folders with training, test and "
            "class_labels.txt."
        )
    runs = [_run(tree, name) for name in labels]
    support, query, answer = (np.stack(each) for each in zip(*runs))

    def small(drawings: np.ndarray) -> np.ndarray:
        return np.stack([[resize(image, size) for image in run] for run in drawings])

    return Runs(small(support), small(query), answer, (support > 127, query > 127))


def _run(tree: Tree, labels: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One run: support and query `(20, h, w)`, ink white, and the class of each query drawing."""
    root = PurePosixPath(labels).parent.parent
    pairs = [line.split() for line in tree.text(labels).splitlines() if line.strip()]
    if any(len(pair) != 2 for pair in pairs):
        raise InputError(
            f"{tree.where(labels)}: a line has the test image and the training image of its class."
        )
    classes = sorted({training for _, training in pairs})
    sides = {"support": classes, "query": [test for test, _ in pairs]}
    drawings = []
    for side, files in sides.items():
        images = [tree.pixels(str(root / file)) for file in files]
        if any(image.ndim != 2 or image.shape != images[0].shape for image in images):
            raise InputError(
                f"{tree.where(labels)}: the {side} drawings are not grey images of one size."
            )
        drawings.append(255 - np.stack(images))
    answer = np.array([classes.index(training) for _, training in pairs])
    support, query = drawings
    return support, query, answer


def _own(path: Path, size: int) -> Pictures:
    """Class folders.

    They are split as the data say, else 60 % of the classes are for training and 20 % each for
    validation and the test.

    Args:
        path: of the folder or file.
        size: pixels a side, 0 for what suits most of the images.
    """
    if size and size < LEAST:
        raise InputError(f"--set size takes {LEAST} or more pixels a side; got {size}.")
    images = _square(merged(read_classes(path, size or _size(path))), size)
    count = np.bincount(images.label, minlength=len(images.names))
    rich = np.flatnonzero(count >= 1 + QUERY)
    remarks = list(images.remarks)
    if len(rich) < len(count):
        remarks.append(f"{_classes(len(count) - len(rich))} with a single image left out")

    split = np.array(images.split)
    said = {part: rich[split[rich] == part] for part in PARTS}
    given = bool(len(said["train"]) and len(said["test"]))
    if given:
        parts = said
        outside = len(rich) - sum(map(len, said.values()))
        if outside:
            remarks.append(f"{_classes(outside)} outside of train, val and test left out")
    else:
        parts = _anew(rich)
        remarks.append(
            f"no split given: {len(parts['train'])} classes train, {len(parts['val'])} choose the "
            f"step, {len(parts['test'])} are judged on"
        )
    if not len(parts["val"]):
        parts["val"] = parts["train"]
        remarks.append("no classes for validation: the training classes choose the step")

    settings = _settings({part: count[rows] for part, rows in parts.items()})
    if not settings and given:
        short = [part for part, rows in parts.items() if len(rows) < 2]
        raise InputError(
            f"{path}: {' and '.join(short)}: fewer than 2 classes with {1 + QUERY} images or more; "
            "each of train, val and test needs 2."
        )
    if not settings:
        raise InputError(
            f"{path}: {len(rich)} of {len(count)} classes have {1 + QUERY} images or more; too few "
            "to train on some and judge on others (at least 4 are needed)."
        )
    return Pictures(
        path.name, images, parts, settings, False, None, tuple(remarks), None if given else rich
    )


def _classes(count: int) -> str:
    """The number in words: `1 class`, `2 classes`."""
    return f"{count} class{'es' * (count > 1)}"


def _square(images: Images, size: int) -> Images:
    """Images as squares of `size` or else 16 to 84 pixels a side; arrays come in any size."""
    h, w = images.pixels.shape[1:3]
    side = size or max(LEAST, min(MOST, h, w))
    if (h, w) == (side, side):
        return images
    pixels = np.stack([resize(image, side) for image in images.pixels])
    remark = f"images of {h} x {w} were made {side} x {side}"
    return replace(images, pixels=pixels, remarks=(*images.remarks, remark))


def _anew(classes: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """A split at random; few classes have none for validation."""
    order = np.random.default_rng(seed).permutation(classes)
    tests = max(2, round(0.2 * len(order)))
    vals = round(0.2 * len(order)) if len(order) >= 25 else 0
    test, val, train = np.split(order, [tests, tests + vals])
    return {"test": np.sort(test), "val": np.sort(val), "train": np.sort(train)}


def _settings(count: dict[str, np.ndarray]) -> tuple[tuple[int, int], ...]:
    """The `(way, shot)` that every part has enough classes for.

    Args:
        count: images of each class, by part.
    """
    found: list[tuple[int, int]] = []
    for shot in (1, 5):
        most = min(int((count[part] >= shot + QUERY).sum()) for part in PARTS)
        found += [(way, shot) for way in (5, 20) if most >= way]
        if shot == 1 and not found and most >= 2:  # few classes make one smaller setting
            found.append((most, 1))
    return tuple(found)


def merged(images: Images) -> Images:
    """Classes of one name in several of train, val and test are one class.

    Otherwise one concept would be judged as two. Where test shares names with another part, or
    there is no test, the split is not one of classes and is forgotten. Else the shared classes
    train.
    """
    plain = [
        without_split(name) if part else name for name, part in zip(images.names, images.split)
    ]
    parts: dict[str, set[str]] = {}
    for name, part in zip(plain, images.split):
        parts.setdefault(name, set()).add(part)
    shared = [sides for sides in parts.values() if len(sides) > 1]
    if not shared:
        return images
    mixed = "test" not in images.split or any("test" in sides for sides in shared)

    found = list(parts)
    first = [plain.index(name) for name in found]
    index = {name: i for i, name in enumerate(found)}
    label = np.array([index[name] for name in plain], images.label.dtype)[images.label]

    def part_of(name: str, place: int) -> str:
        if mixed:
            return ""
        return "train" if len(parts[name]) > 1 else images.split[place]

    count = "1 class is" if len(shared) == 1 else f"{len(shared)} classes are"
    remark = (
        f"{count} in more than one of train, val and test: images of one name were put together"
    )
    remark += ", and classes split anew" if mixed else ", for training"
    return replace(
        images,
        label=label,
        names=tuple(found),
        group=tuple(images.group[i] for i in first),
        split=tuple(part_of(name, i) for name, i in zip(found, first)),
        remarks=(*images.remarks, remark),
    )


def _size(path: Path) -> int | None:
    """Pixels a side that suit most of the images: 28 where these are grey, 84 where they are not,
    or what half of them have if that is less.

    `None` leaves arrays as they are.
    """
    if path.suffix.lower() == ".npz":
        return None
    tree = Tree(path)
    names = tree.images()
    if not names:
        return None
    some = [names[i] for i in np.linspace(0, len(names) - 1, min(len(names), LOOKED)).astype(int)]
    shapes = [tree.picture(name).values.shape for name in some]
    grey = 2 * sum(len(shape) == 2 for shape in shapes) > len(shapes)
    usual = int(np.median([min(shape[:2]) for shape in shapes]))
    return max(LEAST, min(GREY if grey else MOST, usual))
