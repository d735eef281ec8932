"""All parts of `learned-acquisition` as one protocol: which run, and what they give together."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from metaprior.errors import InputError
from metaprior.protocols.cell import item_of
from metaprior.protocols.few_shot_images import data as images
from metaprior.protocols.learned_acquisition.boards import BOARD_PART
from metaprior.protocols.learned_acquisition.location import LOCATION
from metaprior.protocols.learned_acquisition.part import Part
from metaprior.protocols.learned_acquisition.rows import ROWS_PART
from metaprior.protocols.learned_acquisition.stream import STREAM
from metaprior.protocols.protocol import Drawn, Outcome, Picture, Tell
from metaprior.protocols.raw import joined

PARTS: dict[str, Part] = {
    "stream": STREAM,
    "location": LOCATION,
    "boards": BOARD_PART,
    "rows": ROWS_PART,
}


def chosen(options: dict[str, Any]) -> list[str]:
    """The parts that run: `parts` names them, with commas between, or says `all`."""
    names = [name.strip() for name in options["parts"].split(",")]
    if names == ["all"]:
        return list(PARTS)
    for name in names:
        if name not in PARTS:
            raise InputError(
                f"learned-acquisition has the parts {', '.join(PARTS)}, or all; got {name!r}."
            )
    return [name for name in PARTS if name in names]


def run(method: str, seed: int, options: dict[str, Any], data: Any, tell: Tell) -> Outcome:
    """Every chosen part that has this method."""
    names = chosen(options)
    found = []
    own = [n for n in names if _has(PARTS[n], method)]
    for i, name in enumerate(own):
        told = item_of(tell, i, len(own), name)
        found.append((name, PARTS[name].run(method, seed, options[name], data, told)))
    tables = [out.predictions for _, out in found if out.predictions]
    note = "; ".join(f"{name}: {out.note}" for name, out in found if out.note)
    return Outcome(
        [figure for _, out in found for figure in out.figures],
        joined(tables) if tables else {},
        {place: array for _, out in found for place, array in out.drawing.items()},
        note if found else f"runs in none of the parts {', '.join(names)}",
        {name: out.facts for name, out in found if out.facts},
    )


def _has(part: Part, method: str) -> bool:
    """Whether a part runs this method or reference."""
    known = {name for each in PARTS.values() for name in each.references}
    return method in part.references or (part.methods and method not in known)


def draw(cells: Sequence[Drawn], options: dict[str, Any], data: Any) -> list[Picture]:
    """The pictures of all parts that ran."""
    return [p for n in chosen(options) for p in PARTS[n].draw(cells, options[n], data)]


def sentence(cells: Sequence[Drawn]) -> str:
    """What came out of each part."""
    return " ".join(said for part in PARTS.values() if (said := part.sentence(cells)))


def load(path: Path | None, options: dict[str, Any] | None = None) -> Any:
    """Images for the stream; `None` where it does not run, or where there is no data."""
    if path is None or (options and "stream" not in chosen(options)):
        return None
    return images.load(path, options and options["stream"])
