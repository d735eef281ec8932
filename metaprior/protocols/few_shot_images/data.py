"""What `few-shot-images` reads: Omniglot with Lake's one-shot runs, or a user's own folders of
classes.
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np

from metaprior.errors import InputError
from metaprior.images.classes import Images, read_classes, without_split
from metaprior.images.tree import Tree, resize

MINIMAL = {
    "small1": ("Balinese", "Early_Aramaic", "Greek", "Korean", "Latin"),
    "small2": ("Greek", "Japanese_(katakana)", "Latin", "Sanskrit", "Tagalog"),
}


QUERY = 1  # fewest images of a class that a task asks about


SPLIT, RUNS, PACKED = "omniglot_split_vinyals.json", "all_runs.zip", "omniglot28.npz"


FOLDERS = tuple(
    tuple(f"{lead}images_{kind}{end}" for lead in ("", "omniglot_") for end in ("", ".zip"))
    for kind in ("background", "evaluation")
)


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
    """

    name: str
    images: Images
    parts: dict[str, np.ndarray]
    settings: tuple[tuple[int, int], ...]
    rotations: bool
    runs: Runs | None = None
    remarks: tuple[str, ...] = field(default=())


def load(path: Path | None) -> Pictures:
    """Omniglot where the folder (or file) holds it, else class folders."""
    if path is None:
        raise InputError(
            "few-shot-images reads images: give --data FOLDER, of Omniglot or of class folders of your own."
        )
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder.")
    folder, places = _places(path)
    if len(places) == 2:
        return _omniglot(folder, _joined([read_classes(p, 28) for p in places]))
    return _omniglot(folder, read_classes(places[0], 28)) if places else _own(path)


def _places(path: Path) -> tuple[Path, list[Path]]:
    """Omniglot's folder, and its file or its two halves; none where it is something else."""
    packed = path if path.name == PACKED else path / PACKED
    if packed.is_file():
        return packed.parent, [packed]
    halves = [next((path / n for n in names if (path / n).exists()), None) for names in FOLDERS]
    found = [half for half in halves if half is not None]
    return path, found if len(found) == 2 and path.is_dir() else []


def reads(path: Path) -> list[Path]:
    """What `load` reads."""
    folder, places = _places(path)
    return (
        [*places, *(folder / n for n in (SPLIT, RUNS) if (folder / n).is_file())]
        if places
        else [path]
    )


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
    remarks = []
    names = {name: i for i, name in enumerate(images.names)}
    background = np.array([i for i, s in enumerate(images.split) if s == "train"], int)
    if (folder / SPLIT).is_file():
        parts = _split(folder / SPLIT, names)
    else:
        parts = {"train": background, "test": np.setdiff1d(np.arange(len(names)), background)}
        parts |= {
            "val": parts["train"][::10],
            "train": np.setdiff1d(parts["train"], parts["train"][::10]),
        }
        remarks.append(
            f"without {SPLIT}: trained on the background alphabets, judged on the evaluation alphabets"
        )
    runs = None
    if (folder / RUNS).is_file():
        runs = read_runs(folder / RUNS)
        alphabet = [PurePosixPath(g).name for g in images.group]
        held = {
            k: np.array([i for i in background if alphabet[i] in v], int)
            for k, v in MINIMAL.items()
        }
        parts |= {"original": background} | {k: v for k, v in held.items() if len(v) >= 20}
    else:
        remarks.append(f"without {RUNS}: Lake's one-shot runs are left out")
    settings = ((5, 1), (5, 5), (20, 1), (20, 5))
    return Pictures("Omniglot", images, parts, settings, True, runs, tuple(remarks))


def _split(path: Path, names: dict[str, int]) -> dict[str, np.ndarray]:
    try:
        listed = json.loads(path.read_text("utf-8"))
        parts = {k: [str(name) for name in listed[k]] for k in ("train", "val", "test")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: should hold lists train, val and test of characters ({type(error).__name__})."
        ) from None
    for part in parts.values():
        unknown = [name for name in part if name not in names]
        if unknown:
            raise InputError(f"{path}: names {unknown[0]!r}, which is not among the images.")
    return {k: np.array([names[name] for name in part], int) for k, part in parts.items()}


def read_runs(path: Path, size: int = 28) -> Runs:
    """Lake's `all_runs.zip` (or its folder): runNN/training, runNN/test and runNN/class_labels.txt."""
    tree = Tree(path)
    labels = [name for name in tree.names if PurePosixPath(name).name == "class_labels.txt"]
    if not labels:
        raise InputError(
            f"{path}: holds no class_labels.txt; Lake's runs are folders with training, test and class_labels.txt."
        )
    sides: dict[str, list[np.ndarray]] = {"support": [], "query": []}
    answers = []
    for name in labels:
        root = PurePosixPath(name).parent.parent
        pairs = [line.split() for line in tree.text(name).splitlines() if line.strip()]
        if any(len(pair) != 2 for pair in pairs):
            raise InputError(
                f"{tree.where(name)}: a line has the test image and the training image of its class."
            )
        classes = sorted({pair[1] for pair in pairs})
        for side, files in (("support", classes), ("query", [pair[0] for pair in pairs])):
            images = [tree.pixels(str(root / file)) for file in files]
            if any(image.ndim != 2 or image.shape != images[0].shape for image in images):
                raise InputError(
                    f"{tree.where(name)}: the {side} drawings are not grey images of one size."
                )
            sides[side].append(255 - np.stack(images))
        answers.append([classes.index(pair[1]) for pair in pairs])
    full = {k: np.stack(v) for k, v in sides.items()}
    small = {k: np.stack([[resize(i, size) for i in run] for run in v]) for k, v in full.items()}
    return Runs(
        small["support"],
        small["query"],
        np.array(answers),
        (full["support"] > 127, full["query"] > 127),
    )


def _own(path: Path) -> Pictures:
    """Class folders: splits as the data say, else 60 % of the classes for training, 20 % each for
    validation and test.
    """
    images = merged(read_classes(path, _size(path)))
    h, w = images.pixels.shape[1:3]
    side = max(16, min(84, h, w))
    if (h, w) != (side, side):  # arrays come as they are
        pixels = np.stack([resize(image, side) for image in images.pixels])
        remark = f"images of {h} x {w} were made {side} x {side}"
        images = replace(images, pixels=pixels, remarks=(*images.remarks, remark))
    count = np.bincount(images.label, minlength=len(images.names))
    rich = np.flatnonzero(count >= 1 + QUERY)
    remarks = list(images.remarks)
    if len(rich) < len(count):
        few = len(count) - len(rich)
        remarks.append(f"{few} class{'es' * (few > 1)} with a single image left out")
    split = np.array(images.split)
    said = {part: rich[split[rich] == part] for part in ("train", "val", "test")}
    given = bool(len(said["train"]) and len(said["test"]))
    if given:
        parts = said
        outside = len(rich) - sum(map(len, said.values()))
        if outside:
            remarks.append(
                f"{outside} class{'es' * (outside > 1)} outside of train, val and test left out"
            )
    else:
        order = np.random.default_rng(0).permutation(rich)
        tests = max(2, round(0.2 * len(order)))
        vals = round(0.2 * len(order)) if len(order) >= 25 else 0
        parts = {
            "test": order[:tests],
            "val": order[tests : tests + vals],
            "train": order[tests + vals :],
        }
        parts = {k: np.sort(v) for k, v in parts.items()}
        remarks.append(
            f"no split given: {len(parts['train'])} classes train, {vals} choose the step, {tests} are judged on"
        )
    if not len(parts["val"]):
        parts["val"] = parts["train"]
        remarks.append("no classes for validation: the training classes choose the step")
    settings = []
    for shot in (1, 5):
        able = [int((count[parts[k]] >= shot + QUERY).sum()) for k in ("train", "val", "test")]
        for way in (5, 20):
            if min(able) >= way:
                settings.append((way, shot))
        if shot == 1 and not settings and 2 <= min(able):
            settings.append((min(able), 1))
    if not settings and given:
        short = [k for k, v in parts.items() if len(v) < 2]
        raise InputError(
            f"{path}: {' and '.join(short)}: fewer than 2 classes with {1 + QUERY} images or more; each of train, val and test needs 2."
        )
    if not settings:
        raise InputError(
            f"{path}: {len(rich)} of {len(count)} classes have {1 + QUERY} images or more; too few to train on some and judge on others (at least 4 are needed)."
        )
    return Pictures(path.name, images, parts, tuple(settings), False, None, tuple(remarks))


def merged(images: Images) -> Images:
    """Classes of one name in several of train, val and test are one class, or one concept would be
    judged as two.

    Where test shares names, or there is none, the split is not one of classes and is forgotten;
    else those train.
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
    split = tuple(
        "" if mixed else "train" if len(parts[name]) > 1 else images.split[i]
        for name, i in zip(found, first)
    )
    count = "1 class is" if len(shared) == 1 else f"{len(shared)} classes are"
    remark = (
        f"{count} in more than one of train, val and test: images of one name were put together"
    )
    remark += ", and classes split anew" if mixed else ", for training"
    group = tuple(images.group[i] for i in first)
    return replace(
        images,
        label=label,
        names=tuple(found),
        group=group,
        split=split,
        remarks=(*images.remarks, remark),
    )


def _size(path: Path) -> int | None:
    """28 for grey images, 84 for others, or what they are if that is less; arrays stay as they are."""
    if path.suffix.lower() == ".npz":
        return None
    tree = Tree(path)
    names = tree.images()
    if not names:
        return None
    first = tree.pixels(names[0])
    return max(16, min(28 if first.ndim == 2 else 84, *first.shape[:2]))
