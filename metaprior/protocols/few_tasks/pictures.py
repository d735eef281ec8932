"""Pictures of `few-tasks`: likelihoods and the prior's entropy against the number of tasks."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.ticker import NullLocator

from metaprior.protocols.few_tasks.data import EXACT
from metaprior.protocols.finished import means, methods_of
from metaprior.protocols.pictures import DASHED, DOTS, one_panel, panels, styled
from metaprior.protocols.protocol import Drawn, Picture
from metaprior.report.figures import to_svg
from metaprior.system.style import INK, METHOD, OTHERS

Curves = dict[str, tuple[np.ndarray, np.ndarray]]  # method to numbers of tasks, and values


@styled()
def draw(cells: Sequence[Drawn], options: dict[str, Any], data: Any) -> list[Picture]:
    """All pictures."""
    return [_likelihoods(cells, options), *_entropies(cells, options)]


def _curves(cells: Sequence[Drawn], family: str, metric: str) -> Curves:
    """The mean over seeds of every method on one family."""
    found: dict[str, dict[int, float]] = {}
    for (setting, name), by_method in means(cells).items():
        if name == metric and setting.startswith(f"{family}, "):
            count = int(setting.removeprefix(f"{family}, ").split()[0])
            for method, value in by_method.items():
                found.setdefault(method, {})[count] = value
    return {
        method: (np.array(list(values)), np.array(list(values.values())))
        for method, values in found.items()
    }


def _shades(cells: Sequence[Drawn]) -> dict[str, str]:
    """A colour for each method."""
    return dict(zip(methods_of(cells, but=(EXACT,)), (METHOD, *OTHERS * 4)))


def _axis(axes: Any, sizes: Sequence[int]) -> None:
    """Numbers of training tasks, each with its own tick."""
    axes.set_xscale("log")
    axes.set_xticks(list(sizes), [str(n) for n in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("training tasks")


def _likelihoods(cells: Sequence[Drawn], options: dict[str, Any]) -> Picture:
    """NLL of new tasks and of those trained on, a panel a family."""
    names = options["families"]
    canvas, grid = panels(1, len(names), (4.3 * len(names), 3.6))
    for axes, family in zip(grid[0], names):
        train, test = (_curves(cells, family, f"{part}_nll") for part in ("train", "test"))
        _panel(axes, train, test, _shades(cells))
        _axis(axes, options["sizes"])
        axes.set(title=family, ylabel="NLL, nats a row")
    axes.legend(loc="best")

    label = "NLL of training and new tasks against the number of training tasks"
    svg = to_svg(canvas, "few-nll", label)
    caption = (
        "Solid: new tasks. Dotted: the tasks that were trained on, with their rows dealt anew. The "
        "gap between the two is meta-overfitting; it closes as tasks are added. Dashed: the exact "
        "posterior on the new tasks."
    )
    return Picture("NLL against the number of training tasks", caption, svg)


def _panel(axes: Any, train: Curves, test: Curves, shades: dict[str, str]) -> None:
    """One family."""
    for method, (n, value) in test.items():
        if method == EXACT:
            axes.axhline(value[0], color=INK, label=EXACT, **DASHED)
            continue
        axes.plot(n, value, color=shades[method], label=method, **DOTS)
        axes.plot(*train[method], "o:", ms=3, lw=1.2, mfc="white", color=shades[method])

    # a few tasks can cost any number of nats: what is beyond the scale is in the table
    shown = np.concatenate([value for _, value in (*test.values(), *train.values())])
    low = shown.min()
    of_many = np.concatenate([value[n >= 5] for n, value in test.values()])
    high = min(shown.max(), of_many.max(initial=low) + 2)
    axes.set_ylim(low - 0.3, high + 0.3)


def _entropies(cells: Sequence[Drawn], options: dict[str, Any]) -> list[Picture]:
    """The entropy of priors that have one, a line a method and family."""
    names, shades = options["families"], _shades(cells)
    found = {family: _curves(cells, family, "entropy") for family in names}
    if not any(found.values()):
        return []
    canvas, axes = one_panel(4.3, 3.2)
    for line, family in zip(("-", ":", "--"), names):
        for method, (n, value) in found[family].items():
            label = f"{method}, {family}"
            axes.plot(n, value, ls=line, color=shades[method], label=label, **DOTS)
    _axis(axes, options["sizes"])
    axes.set_ylabel("H(p(φ | θ)) / weights, nats")
    axes.legend(loc="best")
    svg = to_svg(canvas, "few-entropy", "Entropy of the learned prior")
    caption = (
        "Entropy of the learned prior over weights, where the method has an explicit one. A prior "
        "that narrows claims to know."
    )
    return [Picture("Entropy of the learned prior", caption, svg, wide=False)]


def sentence(cells: Sequence[Drawn]) -> str:
    """Where the gap between old and new tasks closes, in plain words."""
    family, parts = "PACOH sinusoid", []
    test, train = (_curves(cells, family, f"{part}_nll") for part in ("test", "train"))
    for method in methods_of(cells, but=(EXACT,)):
        if method not in test or method not in train:
            continue
        sizes, value = test[method]
        gap = value - train[method][1]
        parts.append(
            f"{method} {gap[0]:.1f} with {sizes[0]} training task(s) and {gap[-1]:.2f} with "
            f"{sizes[-1]}"
        )
    if not parts:
        return ""
    return f"Nats a row lost on new tasks against those trained on ({family}): {'; '.join(parts)}."
