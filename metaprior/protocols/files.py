"""The files of one finished cell: figures, raw predictions, and what pictures need."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from metaprior.protocols.protocol import Drawn, Figure, Outcome
from metaprior.system.folder import write_atomic, write_parquet

EACH = "each"  # the values a task of a figure, among the arrays of a cell


class Cell:
    """One method and seed in a folder of cells.

    Args:
        folder: of all cells.
        method, seed: whose files these are.
    """

    def __init__(self, folder: Path, method: str, seed: int):
        self.method, self.seed = method, seed
        self.path = folder / f"{method.replace(' ', '_')}-{seed}.json"

    @property
    def finished(self) -> bool:
        """Whether all its files are there; the one asked for is written last."""
        return self.path.exists()

    @property
    def predictions(self) -> Path:
        """The file of its raw predictions."""
        return self.path.with_suffix(".parquet")

    def write(self, outcome: Outcome, seconds: float) -> None:
        """Write its three files."""
        import polars as pl

        frame = pl.DataFrame({name: column(v) for name, v in outcome.predictions.items()})
        lead = [pl.lit(self.method).alias("method"), pl.lit(self.seed, pl.Int32).alias("seed")]
        write_parquet(self.predictions, frame.select(*lead, pl.all()))

        drawing = {name: np.asarray(array) for name, array in outcome.drawing.items()}
        for i, figure in enumerate(outcome.figures):
            if figure.each is not None:
                drawing[f"{EACH} {i}"] = figure.each
        write_atomic(self.path.with_suffix(".npz"), lambda part: _savez(part, drawing))

        entry = {
            "method": self.method,
            "seed": self.seed,
            "seconds": seconds,
            "note": outcome.note,
            "facts": outcome.facts,
            "figures": [list(figure._replace(each=None)) for figure in outcome.figures],
        }
        text = json.dumps(entry) + "\n"
        write_atomic(self.path, lambda part: part.write_text(text, "utf-8"))

    def drawn(self, figures: list[Figure]) -> Drawn:
        """The cell as pictures get it; its arrays are read when first asked for."""
        return Drawn(self.method, self.seed, figures, _Lazy(self.path.with_suffix(".npz")))


def read_entry(path: Path) -> dict[str, Any]:
    """What the file of a finished cell says."""
    entry = json.loads(path.read_text("utf-8"))
    arrays = _arrays(path.with_suffix(".npz"), EACH)
    figures = [Figure(*figure) for figure in entry["figures"]]
    entry["figures"] = [
        figure._replace(each=arrays.get(f"{EACH} {i}")) for i, figure in enumerate(figures)
    ]
    return entry


def fault(path: Path) -> str:
    """Which file of the finished cell at `path` is damaged, and how; `""` where all can be read."""
    import polars as pl

    readers: dict[str, Callable[[Path], Any]] = {
        ".npz": _arrays,
        ".json": read_entry,
        ".parquet": pl.read_parquet,
    }
    for ending, read in readers.items():
        try:
            read(path.with_suffix(ending))
        except Exception as error:  # each kind of file is broken in its own ways
            return f"{path.with_suffix(ending)}: cannot be read ({type(error).__name__})"
    return ""


class _Lazy(dict):
    """Arrays of a cell, read when first asked for."""

    def __init__(self, path: Path):
        self._path = path

    def _read(self) -> None:
        if not dict.__len__(self) and self._path.exists():
            self.update(_arrays(self._path))

    def __getitem__(self, key):
        self._read()
        return dict.__getitem__(self, key)

    def __contains__(self, key):
        self._read()
        return dict.__contains__(self, key)

    def get(self, key, default=None):
        return self[key] if key in self else default


def _arrays(path: Path, first: str = "") -> dict[str, np.ndarray]:
    """The arrays of a file whose names begin so; others are not read."""
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files if name.startswith(first)}


def column(values: Any) -> Any:
    """A column of numbers or names as it is; arrays and `None` as one of lists."""
    import polars as pl

    values = np.asarray(values)
    if values.dtype != object:
        return values
    kind = next((v.dtype for v in values if v is not None), np.dtype(np.float32))
    inner = pl.UInt8 if kind == np.uint8 else pl.Float32
    return pl.Series([None if v is None else v.tolist() for v in values], dtype=pl.List(inner))


def _savez(part: Path, arrays: dict[str, np.ndarray]) -> None:
    with part.open("wb") as file:
        np.savez_compressed(file, **arrays)  # ty: ignore[invalid-argument-type]
