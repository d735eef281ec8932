"""Pictures of `shift`: what each change costs, what bands still hold, and one task of each kind."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from metaprior.protocols.finished import first_of_each, means, methods_of
from metaprior.protocols.pictures import DASHED, MOST, legend_below, panels, shades_of, styled
from metaprior.protocols.protocol import Drawn, Picture
from metaprior.protocols.shift.data import UNSHIFTED
from metaprior.protocols.shift.judge import (
    EXACT,
    LEVEL,
    PRIOR,
    REFERENCES,
    SEEN,
    WRONG,
    every_setting,
)
from metaprior.protocols.shift.labels import LABELS
from metaprior.report.figures import to_svg
from metaprior.system.style import INK, MUTED, POINT

MARKS = {EXACT: "|", WRONG: "D", PRIOR: "x"}
ENOUGH = 0.8  # of the rows, that a band of nine tenths should hold wherever it is


@styled()
def draw(cells: Sequence[Drawn], options: dict[str, Any], data: Any) -> list[Picture]:
    """All pictures."""
    return [_costs(cells), *_bands(cells)]


def _shades(cells: Sequence[Drawn]) -> dict[str, str]:
    """A colour for each method; references are grey and black."""
    shades = shades_of(methods_of(cells, but=REFERENCES))
    return {EXACT: INK, WRONG: MUTED, PRIOR: MUTED} | shades


def _costs(cells: Sequence[Drawn]) -> Picture:
    """A line a setting: nats above exact, and the share of rows in the band."""
    found, shades = means(cells), _shades(cells)
    names = [name for name in every_setting() if (name, "gap") in found]
    canvas, grid = panels(1, 2, (9.6, 0.42 * len(names) + 1.5), sharey=True)
    for axes, metric in zip(grid[0], ("gap", "coverage90")):
        for method in methods_of(cells):
            values = [found.get((name, metric), {}).get(method, np.nan) for name in names]
            if metric == "gap" and method == EXACT:
                continue  # 0 everywhere
            style: dict[str, Any] = {"marker": MARKS.get(method, "o"), "ls": "", "ms": 6}
            if method not in MARKS:
                style |= {"mec": "white", "mew": 0.6}
            axes.plot(values, range(len(names)), color=shades[method], label=method, **style)
        for own in (names.index(name) for name in (UNSHIFTED, LABELS) if name in names):
            axes.axhspan(own - 0.5, own + 0.5, color=MUTED, alpha=0.08, lw=0)
    costs, held = grid[0]
    costs.set_xscale("symlog", linthresh=0.1, linscale=0.6)
    costs.set_xticks([0, 0.1, 1, 10, 100], ["0", "0.1", "1", "10", "100"])
    costs.axvline(0, color=INK, lw=1)
    costs.set(xlabel="nats a row above exact", ylim=(len(names) - 0.5, -0.5))
    costs.set_yticks(range(len(names)), names)
    held.axvline(LEVEL, color=INK, lw=1)
    held.axvline(ENOUGH, color=MUTED, **DASHED)
    held.set(xlabel="rows in the 90 % band", xlim=(0.3, 1.02))
    legend_below(canvas, held, 7)
    caption = (
        "One line a kind of tasks; shaded, those of training. Left, on a logarithmic scale: how "
        "far the likelihood is from that of whoever knows the kind. Right: what bands of nine "
        "tenths hold; dashed, eight tenths. Diamonds: the exact prior of training, conditioned on "
        "the rows. Crosses: the same, without a look at them."
    )
    svg = to_svg(canvas, "shift-costs", "Nats above exact and coverage by kind of tasks")
    return Picture("What a change costs", caption, svg)


def _bands(cells: Sequence[Drawn]) -> list[Picture]:
    """The bands of each method and of the exact answer on one task of some kinds."""
    name = f"band {SEEN[0]}"
    first = {method: cell for method, cell in first_of_each(cells).items() if name in cell.drawing}
    own = [method for method in first if method not in REFERENCES][:MOST]
    if not own or EXACT not in first:
        return []
    shades = _shades(cells)
    canvas, grid = panels(len(own), len(SEEN), (2.5 * len(SEEN), 1.7 * len(own) + 0.6))
    for line, method in zip(grid, own):
        for axes, setting in zip(line, SEEN):
            x, low, high = first[method].drawing[f"band {setting}"]
            axes.fill_between(x, low, high, color=shades[method], alpha=0.3, lw=0, label=method)
            _, first_low, first_high = first[EXACT].drawing[f"band {setting}"]
            for end in (first_low, first_high):
                axes.plot(x, end, color=INK, lw=0.9)
            shown_x, shown_y = first[EXACT].drawing[f"rows {setting}"]
            axes.plot(shown_x, shown_y, "o", ms=3.5, color=POINT, mec="white", mew=0.5)
            axes.plot(*first[EXACT].drawing[f"asked {setting}"], ".", ms=3, color=MUTED)
            axes.set(ylim=(-4, 4), xlim=(x[0], x[-1]))
        line[0].set_ylabel(method)
    for axes, setting in zip(grid[0], SEEN):
        axes.set_title(setting)
    caption = (
        "The first judged task of some kinds. Colour: the method's 90 % band. Black: that of the "
        "exact answer, which knows the kind. Red: the rows shown (a row that was moved may lie "
        "outside of the picture). Grey: the rows asked for."
    )
    svg = to_svg(canvas, "shift-bands", "Bands of each method on one task of some kinds")
    return [Picture("One task of each kind", caption, svg)]


def sentence(cells: Sequence[Drawn]) -> str:
    """What each change adds, and whether bands still hold."""
    found = means(cells)
    own = methods_of(cells, but=REFERENCES)
    names = [name for name in every_setting() if name != UNSHIFTED and (name, "added") in found]
    if not own or not names:
        return ""
    said = []
    for method in own:
        added = {n: found[n, "added"][method] for n in names if method in found[n, "added"]}
        worst = max(added, key=lambda name: added[name])
        short = [n for n in added if found.get((n, "coverage90"), {}).get(method, 1.0) < ENOUGH]
        where = f"; bands hold less than {ENOUGH:.0%} at {', '.join(short)}" if short else ""
        gap = found[UNSHIFTED, "gap"][method]
        said.append(
            f"{method}: {gap:.2f} nats above exact unshifted, up to {added[worst]:.2f} more "
            f"({worst}){where}"
        )
    return f"{'. '.join(said)}."
