"""data of reliability."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from metaprior.errors import InputError
from metaprior.heads import Categorical, Gaussian
from metaprior.method import Spec
from metaprior.protocols.characters import Blobs, Drawings, FewShot, read
from metaprior.sources import GP, SineLine

LINES, GAUSSIAN, CHARACTERS, BLOBS = (
    "sine or line",
    "Gaussian process",
    "Omniglot",
    "normal classes",
)


WAY, SHOT, QUERY = 5, 5, 5


def _sources(options: dict[str, Any], data: Any) -> dict[str, tuple]:
    """Setting -> (training source, test source, validation source or `None`, spec)."""
    found: dict[str, tuple] = {
        LINES: (SineLine(support=5), SineLine(support=5, query=25), None, Spec(1, Gaussian(1))),
        GAUSSIAN: (GP(query=25), GP(query=25), None, Spec(1, Gaussian(1))),
    }

    def few(domain):
        return FewShot(domain, WAY, SHOT, QUERY)

    if data is not None:
        parts = [few(Drawings(jnp.asarray(data[k]))) for k in ("train", "test", "validation")]
        found[CHARACTERS] = (*parts, Spec(data["train"].shape[-1], Categorical(WAY)))
    if data is None or options["blobs"]:
        blobs = few(Blobs())
        found[BLOBS] = (blobs, blobs, blobs, Spec(Blobs().dim, Categorical(WAY)))
    return found


def load(path: Path | None) -> dict[str, np.ndarray] | None:
    """Drawn characters from a folder with omniglot28.npz or from such a file; `None` where there is
    none.
    """
    if path is None:
        return None
    if not path.exists():
        raise InputError(f"{path}: no such file or folder.")
    found = reads(path)
    return read(found[0]) if found else None


def reads(path: Path) -> list[Path]:
    """What `load` reads."""
    file = path / "omniglot28.npz" if path.is_dir() else path
    return [file] if file.exists() else []
