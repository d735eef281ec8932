"""The settings of `reliability`: where tasks come from, and what is read."""

from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from metaprior.errors import InputError
from metaprior.heads import Categorical, Gaussian
from metaprior.method import Spec
from metaprior.protocols.characters import FILE, Blobs, Drawings, FewShot, read
from metaprior.sources import GP, SineLine

LINES, GAUSSIAN = "sine or line", "Gaussian process"
CHARACTERS, BLOBS = "Omniglot", "normal classes"
SETTINGS = (LINES, GAUSSIAN, CHARACTERS, BLOBS)
WAY, SHOT, QUERY = 5, 5, 5


class Setting(NamedTuple):
    """Where the tasks of a setting come from.

    Args:
        train, test: sources.
        validation: source of the tasks that fit a temperature; `None` for numbers.
        spec: of the method.
    """

    train: Any
    test: Any
    validation: Any
    spec: Spec


def settings_of(options: dict[str, Any], data: Any) -> dict[str, Setting]:
    """The settings that these data allow, by name."""
    numbers = Spec(1, Gaussian(1))
    lines = Setting(SineLine(support=5), SineLine(support=5, query=25), None, numbers)
    gaussian = Setting(GP(query=25), GP(query=25), None, numbers)
    found = {LINES: lines, GAUSSIAN: gaussian}

    if data is not None:
        train, test, validation = (
            FewShot(Drawings(jnp.asarray(data[part])), WAY, SHOT, QUERY)
            for part in ("train", "test", "validation")
        )
        spec = Spec(data["train"].shape[-1], Categorical(WAY))
        found[CHARACTERS] = Setting(train, test, validation, spec)
    if data is None or options["blobs"]:
        blobs = FewShot(Blobs(), WAY, SHOT, QUERY)
        found[BLOBS] = Setting(blobs, blobs, blobs, Spec(Blobs().dim, Categorical(WAY)))
    return found


def load(path: Path | None, options: dict[str, Any] | None = None) -> dict[str, np.ndarray] | None:
    """Drawn characters from a file such as omniglot28.npz or a folder that holds it.

    `None` where there is none; then normal classes stand in.
    """
    if path is None:
        return None
    if not path.exists():
        raise InputError(f"{path}: no such file or folder.")
    found = reads(path)
    return read(found[0]) if found else None


def reads(path: Path) -> list[Path]:
    """What `load` reads."""
    file = path / FILE if path.is_dir() else path
    return [file] if file.exists() else []
