"""Pictures of `few-tasks`: likelihoods and the prior's entropy against the number of training
tasks.
"""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import NullLocator

from metaprior.protocols.protocol import Drawn, Picture
from metaprior.report.figures import INK, METHOD, OTHERS, STYLE, to_svg

EXACT = "exact posterior"


def _curves(
    cells: Sequence[Drawn], name: str, metric: str
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Method -> numbers of tasks and the mean over seeds."""
    found: dict[str, dict[int, list[float]]] = {}
    for cell in cells:
        for f in cell.figures:
            if f.metric == metric and f.setting.startswith(f"{name}, "):
                count = int(f.setting.removeprefix(f"{name}, ").split()[0])
                found.setdefault(cell.method, {}).setdefault(count, []).append(f.value)
    return {
        m: (np.array(list(v)), np.array([np.mean(a) for a in v.values()])) for m, v in found.items()
    }


def _shades(cells: Sequence[Drawn]) -> dict[str, str]:
    names = [n for n in dict.fromkeys(c.method for c in cells) if n != EXACT]
    return {EXACT: INK} | dict(zip(names, (METHOD, *OTHERS * 4)))


def _axis(axes: Any, sizes: Sequence[int]) -> None:
    axes.set_xscale("log")
    axes.set_xticks(list(sizes), [str(n) for n in sizes])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("training tasks")


def _likelihoods(cells: Sequence[Drawn], options: dict[str, Any]) -> Picture:
    shades, names = _shades(cells), options["families"]
    with matplotlib.rc_context(STYLE):
        canvas = Canvas(figsize=(4.3 * len(names), 3.6), layout="constrained")
        for axes, name in zip(canvas.subplots(1, len(names), squeeze=False)[0], names):
            train, test = _curves(cells, name, "train_nll"), _curves(cells, name, "test_nll")
            for method, (n, value) in test.items():
                if method == EXACT:
                    axes.axhline(value[0], color=INK, lw=1.0, ls=(0, (4, 3)), label=EXACT)
                    continue
                axes.plot(
                    n, value, "o-", ms=4, mec="white", mew=0.6, color=shades[method], label=method
                )
                axes.plot(*train[method], "o:", ms=3, lw=1.2, mfc="white", color=shades[method])
            shown = np.concatenate(
                [v for m, (n, v) in test.items()] + [v for _, v in train.values()]
            )
            high = np.concatenate([v[n >= 5] for m, (n, v) in test.items()])
            # a few tasks can cost any number of nats: what is beyond the scale is in the table
            axes.set_ylim(
                np.min(shown) - 0.3,
                min(np.max(shown), np.max(high, initial=np.min(shown)) + 2) + 0.3,
            )
            _axis(axes, options["sizes"])
            axes.set_title(name)
            axes.set_ylabel("NLL, nats a row")
        axes.legend(loc="best")
        svg = to_svg(
            canvas, "few-nll", "NLL of training and new tasks against the number of training tasks"
        )
    caption = (
        "Solid: new tasks. Dotted: the tasks that were trained on, their rows dealt anew. The gap between the two is "
        "meta-overfitting; it closes as tasks are added. Dashed: the exact posterior on the new tasks."
    )
    return Picture("NLL against the number of training tasks", caption, svg)


def _entropies(cells: Sequence[Drawn], options: dict[str, Any]) -> list[Picture]:
    shades, names = _shades(cells), options["families"]
    found = {name: _curves(cells, name, "entropy") for name in names}
    if not any(found.values()):
        return []
    with matplotlib.rc_context(STYLE):
        canvas = Canvas(figsize=(4.3, 3.2))
        axes = canvas.add_subplot()
        for line, name in zip(("-", ":", "--"), names):
            for method, (n, value) in found[name].items():
                axes.plot(
                    n,
                    value,
                    "o",
                    ls=line,
                    ms=4,
                    mec="white",
                    mew=0.6,
                    color=shades[method],
                    label=f"{method}, {name}",
                )
        _axis(axes, options["sizes"])
        axes.set_ylabel("H(p(φ | θ)) / weights, nats")
        axes.legend(loc="best")
        svg = to_svg(canvas, "few-entropy", "Entropy of the learned prior")
    caption = "Entropy of the learned prior over weights, where the method has an explicit one. A prior that narrows claims to know."
    return [Picture("Entropy of the learned prior", caption, svg, wide=False)]


def draw(cells: Sequence[Drawn], options: dict[str, Any], data: Any) -> list[Picture]:
    """All pictures."""
    return [_likelihoods(cells, options), *_entropies(cells, options)]


def sentence(cells: Sequence[Drawn]) -> str:
    """Where the gap between old and new tasks closes, in plain words."""
    parts = []
    for method in dict.fromkeys(c.method for c in cells if c.method != EXACT):
        name = "PACOH sinusoid"
        test, train = (_curves(cells, name, k).get(method) for k in ("test_nll", "train_nll"))
        if test is None or train is None:
            continue
        gap = test[1] - train[1]
        parts.append(
            f"{method} {gap[0]:.1f} with {test[0][0]} training task(s) and {gap[-1]:.2f} with {test[0][-1]}"
        )
    return (
        f"Nats a row lost on new tasks against those trained on ({name}): {'; '.join(parts)}."
        if parts
        else ""
    )
