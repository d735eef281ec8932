"""Pictures of `navigation`: returns by episode, paths, and the map of the goal."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from metaprior.protocols.finished import first_of_each, means
from metaprior.protocols.navigation.judge import (
    EPISODES,
    KNOWN,
    MEAN,
    POLICY,
    RANDOM,
    REFERENCES,
    SAMPLES,
    SWEEP,
)
from metaprior.protocols.pictures import DASHED, DOTS, MOST, bare, legend_below, panels, styled
from metaprior.protocols.protocol import Drawn, Picture
from metaprior.report.figures import to_svg
from metaprior.system.style import INK, METHOD, MUTED, OTHERS, POINT

STYLES: dict[str, dict[str, Any]] = {
    KNOWN: {"color": MUTED, **DASHED},
    RANDOM: {"color": MUTED, **DASHED},
    SAMPLES: {"color": INK, "lw": 2},
    MEAN: {"color": MUTED, "lw": 1},
    SWEEP: {"color": POINT, "lw": 2},
    POLICY: {"color": POINT, "lw": 1.6, "ls": (0, (2, 2))},
}
WALKED = (1, 2, 3, 5, 10)  # episodes whose paths are drawn
TAKES = 4  # episodes until the goal is found, in the task that is drawn
BINS = 18  # of the map, ten degrees each


@styled()
def draw(cells: Sequence[Drawn], options: dict[str, Any], data: Any) -> list[Picture]:
    """Curves, paths and maps."""
    first = first_of_each(cells)
    task = _task(first)
    found = [_curves(cells), _paths(first, task, options["radius"])]
    mapped = {
        name: cell for name, cell in first.items() if np.isfinite(cell.drawing["drawn"]).all()
    }
    return [*found, _maps(mapped, task)] if mapped else found


def _task(first: dict[str, Drawn]) -> int:
    """The task that is drawn: one that takes exact posterior sampling about `TAKES` episodes."""
    held = first.get(SAMPLES)
    if held is None:
        return 0
    drawn = held.drawing["drawn"]  # all in one place once the goal is found
    before = (np.ptp(drawn, axis=-1) > 0.3).sum(1)
    return int(np.argmin(np.abs(before - TAKES)))


def _curves(cells: Sequence[Drawn]) -> Picture:
    """Mean return, and share of tasks found, by episode."""
    canvas, grid = panels(1, 2, (8.4, 3.9))
    episodes, own = np.arange(1, EPISODES + 1), iter([METHOD, *OTHERS] * 5)
    for name in dict.fromkeys(cell.method for cell in cells):
        style = STYLES.get(name) or {"color": next(own), **DOTS}
        for axes, what in zip(grid[0], ("return", "found")):
            curve = np.mean([c.drawing[what] for c in cells if c.method == name], axis=0)
            axes.plot(episodes, curve, label=name, **style)
    for axes, title in zip(grid[0], ("mean return", "share of tasks found")):
        axes.set(title=title, xlabel="episode", xticks=episodes, ylim=(0, None))
    legend_below(canvas, grid[0, 0], 5)
    caption = (
        "Left: the mean return of each episode. Right: the share of tasks in which some episode up "
        "to this one saw a reward. Black: one goal drawn from the exact posterior as an episode "
        "begins. Sweep: the half circle is searched inside an episode."
    )
    svg = to_svg(canvas, "navigation-curves", "Mean return and share of tasks found by episode")
    return Picture("Returns by episode", caption, svg)


def _paths(first: dict[str, Drawn], task: int, radius: float) -> Picture:
    """Where each agent walks in one task; paths of the episodes before are faint."""
    names = [name for name in (SAMPLES, SWEEP, POLICY, RANDOM) if name in first]
    names += [name for name in first if name not in REFERENCES][:MOST]
    canvas, grid = panels(len(names), len(WALKED), (9.6, 1.1 * len(names) + 0.3))
    arc = np.linspace(0, np.pi, 100)
    for line, name in zip(grid, names):
        held = first[name].drawing
        path = np.pad(held["path"][task], ((0, 0), (1, 0), (0, 0)))
        for axes, episode in zip(line, WALKED):
            axes.plot(np.cos(arc), np.sin(arc), color=MUTED, lw=0.6)
            for x, y in held["goal"][task]:
                ring = np.linspace(0, 2 * np.pi, 60)
                axes.fill(
                    x + radius * np.cos(ring),
                    y + radius * np.sin(ring),
                    color=METHOD,
                    alpha=0.3,
                    lw=0,
                )
            for before in path[: episode - 1]:
                axes.plot(*before.T, color=MUTED, lw=0.6, alpha=0.6)
            axes.plot(*path[episode - 1].T, color=INK, lw=1.6)
            drawn = held["drawn"][task][episode - 1]
            axes.plot(1.14 * np.cos(drawn), 1.14 * np.sin(drawn), ".", color=POINT, ms=3, alpha=0.6)
            axes.set(xlim=(-1.3, 1.3), ylim=(-0.25, 1.3), aspect="equal", xticks=[], yticks=[])
            bare(axes)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    for axes, episode in zip(grid[0], WALKED):
        axes.set_title(f"episode {episode}")
    caption = (
        "One task, chosen so that exact posterior sampling takes about four episodes. Black: the "
        "path of the episode; grey: of all before it. The disc is where the goal pays. Dots "
        "outside the half circle: goals drawn from p(goal | rows) as the episode begins; places "
        "that were walked past without a reward should have none."
    )
    svg = to_svg(canvas, "navigation-paths", "Paths of agents in one task by episode")
    return Picture("Paths", caption, svg)


def _maps(mapped: dict[str, Drawn], task: int) -> Picture:
    """The map of the goal in one task, before each episode."""
    names = [name for name in mapped if name not in (MEAN, SWEEP)][:MOST]
    canvas, grid = panels(1, len(names), (2.2 * len(names) + 0.6, 3.2), sharey=True)
    for axes, name in zip(grid[0], names):
        held = mapped[name].drawing
        share = np.stack(
            [np.histogram(d, BINS, (0, np.pi))[0] / len(d) for d in held["drawn"][task]]
        )
        axes.imshow(
            share, aspect="auto", cmap="Greys", vmin=0, vmax=0.5, origin="upper",
            extent=(0, 180, EPISODES + 0.5, 0.5),
        )  # fmt: skip
        for x, y in held["goal"][task]:
            axes.axvline(np.degrees(np.arctan2(y, x)), color=METHOD, lw=1.2)
        axes.set(title=name, xlabel="angle, degrees", xticks=(0, 90, 180))
        bare(axes, framed=True)
    grid[0, 0].set_ylabel("before episode")
    caption = (
        "The same task. Each line is the map p(goal | rows) before an episode, from drawn goals: "
        "the darker, the more of them; white where there are none. Vertical: the goal. Each method "
        "has the rows of its own walks."
    )
    svg = to_svg(canvas, "navigation-maps", "Map of the goal by episode")
    return Picture("The map of the goal", caption, svg)


def sentence(cells: Sequence[Drawn]) -> str:
    """Returns in episodes 1, 3, 5 and 10, and who is behind what."""
    found = means(cells)
    shown = [found.get((f"episode {e}", "return"), {}) for e in (1, 3, 5, 10)]
    own = [name for name in shown[0] if name not in REFERENCES]
    beside = [name for name in (SAMPLES, SWEEP, POLICY, KNOWN) if name in shown[0]]

    def of(name: str) -> str:
        return f"{name} " + " ".join(f"{each[name]:.1f}" for each in shown)

    if not own:
        return ""
    listed = "; ".join(map(of, [*own, *beside]))
    said = f"Mean return in episodes 1, 3, 5, 10: {listed}."
    total = {
        n: sum(found[f"episode {e + 1}", "return"][n] for e in range(EPISODES))
        for n in [*own, *beside]
    }
    if SAMPLES in total:
        better = [name for name in own if total[name] > total[SAMPLES]]
        said += (
            f" Over all ten episodes more than posterior sampling: {', '.join(better) or 'none'}."
        )
    return said
