"""Finished cells, read for a picture or a sentence: means over seeds, the first cell of each."""

from collections.abc import Sequence

import numpy as np

from metaprior.protocols.protocol import Drawn


def means(
    cells: Sequence[Drawn], but: Sequence[str] = ()
) -> dict[tuple[str, str], dict[str, float]]:
    """`(setting, metric)` to the mean over seeds of each method.

    Args:
        cells: finished cells.
        but: methods that are left out, such as references.
    """
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    for cell in cells:
        if cell.method in but:
            continue
        for figure in cell.figures:
            by_method = found.setdefault((figure.setting, figure.metric), {})
            by_method.setdefault(cell.method, []).append(figure.value)
    return {
        place: {method: float(np.mean(values)) for method, values in by_method.items()}
        for place, by_method in found.items()
    }


def over_settings(cells: Sequence[Drawn], metric: str, but: Sequence[str] = ()) -> dict[str, float]:
    """Each method's mean of a metric over all settings and seeds."""
    found: dict[str, list[float]] = {}
    for cell in cells:
        if cell.method not in but:
            values = [figure.value for figure in cell.figures if figure.metric == metric]
            found.setdefault(cell.method, []).extend(values)
    return {method: float(np.mean(values)) for method, values in found.items() if values}


def lowest(values: dict[str, float]) -> str:
    """The name with the lowest value."""
    return min(values, key=lambda name: values[name])


def highest(values: dict[str, float]) -> str:
    """The name with the highest value."""
    return max(values, key=lambda name: values[name])


def methods_of(cells: Sequence[Drawn], but: Sequence[str] = ()) -> list[str]:
    """Names of the methods, each once, in the order of the cells."""
    return [name for name in dict.fromkeys(cell.method for cell in cells) if name not in but]


def first_of_each(cells: Sequence[Drawn]) -> dict[str, Drawn]:
    """The first cell of each method."""
    first: dict[str, Drawn] = {}
    for cell in cells:
        first.setdefault(cell.method, cell)
    return first


def first_seed(cells: Sequence[Drawn]) -> list[Drawn]:
    """The cells of the lowest seed."""
    lowest_seed = min(cell.seed for cell in cells)
    return [cell for cell in cells if cell.seed == lowest_seed]


def arrays_of(
    cells: Sequence[Drawn], kind: str, settings: Sequence[str]
) -> dict[tuple[str, str], list[np.ndarray]]:
    """`(setting, method)` to the drawing arrays named `"kind setting"`, one a seed.

    Settings come in the order given, so that pictures have their rows in that order.
    """
    found: dict[tuple[str, str], list[np.ndarray]] = {}
    for setting in settings:
        for cell in cells:
            name = f"{kind} {setting}"
            if name in cell.drawing:
                found.setdefault((setting, cell.method), []).append(cell.drawing[name])
    return found
