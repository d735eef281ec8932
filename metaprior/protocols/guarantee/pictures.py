"""Pictures of `guarantee`: what rules hold of new groups, and how wide priors' intervals are."""

from collections.abc import Sequence
from typing import Any

from metaprior.protocols.finished import means, methods_of
from metaprior.protocols.guarantee.judge import REFERENCES
from metaprior.protocols.guarantee.simulated import EXACT, RULES, SHARE
from metaprior.protocols.pictures import DASHED, DOTS, legend_below, panels, shades_of, styled
from metaprior.protocols.protocol import Drawn, Picture
from metaprior.report.figures import to_svg
from metaprior.system.style import MUTED


@styled()
def draw(cells: Sequence[Drawn], options: dict[str, Any], data: Any) -> list[Picture]:
    """All pictures."""
    found = means(cells)
    own = methods_of(cells, but=REFERENCES)
    return [*_rules(found, options["sizes"]), *(p for m in own for p in _tables(found, m))]


def _rules(found: dict, sizes: Sequence[int]) -> list[Picture]:
    """Coverage and width of each rule against the number of groups."""
    names = list(found.get((f"simulated: T = {sizes[0]}", "coverage"), {}))
    if not names:
        return []
    shades = shades_of(list(RULES)) | {EXACT: MUTED}
    canvas, grid = panels(1, 2, (7.6, 3.4))
    for axes, metric in zip(grid[0], ("coverage", "width")):
        for name in names:
            values = [found[f"simulated: T = {T}", metric][name] for T in sizes]
            style: dict[str, Any] = DASHED if name == EXACT else DOTS
            axes.plot(range(len(sizes)), values, color=shades[name], label=name, **style)
        axes.set_xticks(range(len(sizes)), [str(T) for T in sizes])
        axes.set_xlabel("groups to calibrate with")
    grid[0, 0].set(title="rows of new groups that are held", ylabel="share")
    grid[0, 1].set(title="width of the interval", ylabel="units of y")
    legend_below(canvas, grid[0, 0], 3)
    caption = (
        "Groups of which everything is known: three in four have two rows and are noisy, the "
        "others have sixty. Rows taken as exchangeable hold too little at any number of groups. "
        "The hierarchical rule holds at least nine tenths from nine groups on. Grey: whoever knows "
        "the law."
    )
    svg = to_svg(canvas, "guarantee-rules", "Coverage and width of each rule")
    return [Picture("Rules on simulated groups", caption, svg)]


def _tables(found: dict, method: str) -> list[Picture]:
    """Coverage against width on each table: own interval, guaranteed one, and the controls."""
    settings = [
        setting for (setting, metric), by in found.items() if metric == "short" and method in by
    ]
    if not settings:
        return []
    names = list(dict.fromkeys(setting.split(": ")[1] for setting in settings))
    shots = list(dict.fromkeys(setting.split(": ")[0] for setting in settings))
    canvas, grid = panels(2, len(names), (2.1 * len(names) + 1.2, 4.6), sharex=True, sharey="row")
    shades = shades_of(["guaranteed", "own", "pooled", "marginal"])
    lines = {
        "guaranteed": ("coverage", "width"),
        "own": ("own_coverage", "own_width"),
        "pooled": ("pooled_coverage", None),
        "marginal": (None, "marginal_width"),
    }
    labels = {
        "guaranteed": "guaranteed",
        "own": "the posterior's own",
        "pooled": "rows as if exchangeable",
        "marginal": "guaranteed without a model",
    }
    for column, name in enumerate(names):
        here = [shot for shot in shots if f"{shot}: {name}" in settings]
        place = [shots.index(shot) for shot in here]
        for who, metrics in lines.items():
            for axes, metric in zip(grid[:, column], metrics):
                if metric is None:
                    continue
                values = [found[f"{shot}: {name}", metric][method] for shot in here]
                if axes is grid[1, column]:  # as a share of that without a model
                    free = [found[f"{shot}: {name}", "marginal_width"][method] for shot in here]
                    values = [value / of for value, of in zip(values, free)]
                axes.plot(place, values, color=shades[who], label=labels[who], **DOTS)
        grid[0, column].axhline(SHARE, color=MUTED, **DASHED)
        grid[0, column].set_title(name)
        grid[1, column].set_xticks(range(len(shots)), [shot.removeprefix("K = ") for shot in shots])
        grid[1, column].set_xlabel("observed rows")
    grid[1, 0].set_yscale("log")  # on a logarithm a few rows may be very wide
    grid[0, 0].set_ylabel("rows held, share")
    grid[1, 0].set_ylabel("width, of that without a model")
    handles = {
        label: line for axes in grid[:, 0] for line, label in zip(*axes.get_legend_handles_labels())
    }
    canvas.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4)
    caption = (
        "Above, the share of the rows of new groups that 90 % intervals hold. Below, how wide they "
        "are, as a share of the guaranteed interval that knows no features and no rows of the "
        "group. A guarantee costs width where the posterior's own interval holds too little."
    )
    svg = to_svg(canvas, f"guarantee-{method}", f"Coverage and width on tables, {method}")
    return [Picture(f"Tables, {method}", caption, svg)]


def sentence(cells: Sequence[Drawn]) -> str:
    """What rules hold, and what the guarantee costs on tables."""
    found, said = means(cells), []
    first = next((s for s, metric in found if metric == "coverage" and "T = " in s), None)
    if first is not None:
        by = found[first, "coverage"]
        listed = ", ".join(f"{name} {by[name]:.3f}" for name in by if name != EXACT)
        said.append(f"Rows held with {first.split(' = ')[1]} groups: {listed}.")
    for method in methods_of(cells, but=REFERENCES):
        places = [s for (s, metric), by in found.items() if metric == "short" and method in by]
        if not places:
            continue

        def spread(metric: str, method: str = method, places: list[str] = places) -> str:
            values = [found[place, metric][method] for place in places]
            return f"{min(values):.2f} to {max(values):.2f}"

        wider = [
            found[place, "width"][method] / found[place, "own_width"][method] for place in places
        ]
        lost = [
            place
            for place in places
            if found[place, "marginal_width"][method] <= found[place, "width"][method]
        ]
        said.append(
            f"{method} on tables: guaranteed intervals hold {spread('coverage')}, its own "
            f"{spread('own_coverage')}; guaranteed ones are {min(wider):.2f} to {max(wider):.2f} "
            "times as wide."
        )
        if lost:
            said.append(f"No narrower than without a model: {', '.join(lost)}.")
    return " ".join(said)
