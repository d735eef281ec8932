"""Matplotlib figures of a prior, a posterior and what was learned. They compose: `ax` may be given.

Nothing here asks for a window: a figure is given back, which a notebook shows and
`figure.savefig("name.png")` writes.
"""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from metaprior.errors import InputError
from metaprior.system.style import METHOD, MUTED, OTHERS, POINT, STYLE
from metaprior.tables.columns import Number, as_numbers
from metaprior.tables.read import Rows

if TYPE_CHECKING:
    from metaprior.tables.explanation import Explanation
    from metaprior.tables.posterior import Posterior
    from metaprior.tables.trained import Trained

PLACES, EVERY = 80, 5  # along x, and those of a group drawn
PANELS = 6  # features at most
SHADES = (METHOD, *OTHERS)
GROUPS = 12  # real ones beside drawn ones, at most


@contextmanager
def canvas(size: tuple[float, float]) -> Generator[Any]:
    """A white figure in the package's style."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    white: Any = {**STYLE, "figure.facecolor": "white", "savefig.facecolor": "white"}
    with mpl.rc_context(white):
        yield Figure(figsize=size, layout="constrained")


def of_explanation(e: "Explanation") -> Any:
    """Where outcomes differ, what rows are worth, and the effect of each feature."""
    names = list(dict.fromkeys(e.effects["feature"]))[:PANELS]
    lines = 1 + -(-len(names) // 3)
    with canvas((9.0, 2.7 * lines)) as figure:
        grid = figure.add_gridspec(lines, 3)
        _parts(figure.add_subplot(grid[0, :2]), e)
        _left(figure.add_subplot(grid[0, 2]), e)
        for i, name in enumerate(names):
            ax = figure.add_subplot(grid[1 + i // 3, i % 3])
            _effect(ax, e.effects.filter(pl.col("feature") == name), e.target)
        return figure


def _parts(ax: Any, e: "Explanation") -> None:
    start = 0.0
    for i, (part, share) in enumerate(zip(e.spread["part"], e.spread["share"], strict=True)):
        ax.barh([0], [share], left=start, color=SHADES[i], height=0.5)
        if share > 0.06:
            middle = (start + share / 2, 0)
            ax.annotate(f"{100 * share:.0f} %", middle, color="white", ha="center", va="center")
        ax.barh([0], [0], color=SHADES[i], label=part)
        start += share
    ax.set_xlim(0, 1)
    ax.set_ylim(-0.9, 0.3)
    ax.set_axis_off()
    ax.set_title(f"where {e.target} differs, share of the variance")
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, 0.48), ncols=2)


def _left(ax: Any, e: "Explanation") -> None:
    ax.plot(e.rows["rows"], 100 * e.rows["left"], "o-", color=METHOD, ms=3.5)
    ax.axhline(50, color=MUTED, lw=0.9, ls=(0, (4, 3)))
    ax.set_ylim(0, 104)
    ax.set_xlabel("observed rows of a new group")
    ax.set_ylabel("% of the deviation left")
    ax.set_title("what rows are worth")


def _effect(ax: Any, frame: pl.DataFrame, target: str) -> None:
    """Mean and band; of several classes a line each."""
    outcomes = list(dict.fromkeys(frame["outcome"]))
    shown = outcomes[1:] if len(outcomes) == 2 else outcomes
    for shade, outcome in zip(SHADES, shown, strict=False):
        own = frame.filter(pl.col("outcome") == outcome)
        mean, low, high = (own[name].to_numpy() for name in ("mean", "low", "high"))
        if own["name"][0] is None:
            x = own["value"].to_numpy()
            ax.fill_between(x, low, high, color=shade, alpha=0.16, linewidth=0)
            ax.plot(x, mean, color=shade, label=outcome)
        else:
            at = np.arange(len(mean)) + 0.12 * shown.index(outcome)
            ax.vlines(at, low, high, color=shade, alpha=0.35, lw=5)
            ax.plot(at, mean, "o", color=shade, ms=5, label=outcome)
            ax.set_xticks(np.arange(len(mean)), [_short(name) for name in own["name"]])
            ax.set_xlim(-0.6, len(mean) - 0.4)
    ax.set_title(frame["feature"][0])
    ax.set_ylabel(target if outcomes == [target] else "probability")
    if len(shown) > 1:
        ax.legend()


def _short(name: str, most: int = 12) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def number_of(trained: "Trained", x: str | None, what: str) -> Number:
    """The feature of numbers that a picture has along its axis: the first unless it is named."""
    numbers = [c for c in trained.features.columns if isinstance(c, Number)]
    if x is None:
        if not numbers:
            raise InputError(
                f"{what}: there is no feature of numbers to draw along; predict gives the figures."
            )
        return numbers[0]
    for column in trained.features.columns:
        if column.name == x and isinstance(column, Number):
            return column
    names = ", ".join(c.name for c in numbers) or "none"
    raise InputError(f"{what}: x is a feature of numbers ({names}); got {x!r}.")


def _fixed(trained: "Trained", known: pl.DataFrame | None) -> dict[str, Any]:
    """The other features: the middle or commonest value of the observed rows, or of training."""
    frame = known
    if frame is None or not frame.height:
        if trained.gaps is None:
            return {}
        frame = trained.gaps.typical(trained.features, 1)
    found = {}
    for column in trained.features.columns:
        if isinstance(column, Number):
            values = as_numbers(frame[column.name], "support")
            values = values[np.isfinite(values)]
            found[column.name] = float(np.median(values)) if len(values) else None
        else:
            modes = frame[column.name].cast(pl.String).drop_nulls().mode().sort()
            found[column.name] = modes[0] if len(modes) else None
    return found


def _along(trained: "Trained", x: Number, known: pl.DataFrame | None, fixed: dict) -> Rows:
    """Rows over the range of x in training, and of the observed rows."""
    ends = [x.mean - 2 * x.std, x.mean + 2 * x.std]
    if trained.gaps is not None:
        i = [c.name for c in trained.features.columns].index(x.name)
        ends = [float(trained.gaps.low[i]), float(trained.gaps.high[i])]
    if known is not None and known.height:
        values = as_numbers(known[x.name], "support")
        ends = [*ends, *values[np.isfinite(values)].tolist()]
    columns = {
        name: pl.Series([value] * PLACES, dtype=pl.Float64 if isinstance(value, float) else None)
        for name, value in fixed.items()
    }
    columns[x.name] = pl.Series(np.linspace(min(ends), max(ends), PLACES))
    return Rows(pl.DataFrame(columns), "the rows of a picture")


def of_posterior(
    posterior: "Posterior",
    x: str | None,
    by: str | None,
    ax: Any,
    curves: int,
    at: dict[str, Any] | None,
) -> Any:
    """See `Posterior.plot`."""
    trained = posterior.trained
    posterior.need_numbers("plot")
    axis = number_of(trained, x, "plot")
    fixed = _fixed(trained, posterior.known) | (at or {})
    levels: Sequence[Any] = [None]
    if by is not None:
        names = {c.name: c.levels for c in trained.features.columns if not isinstance(c, Number)}
        if by not in names:
            there = ", ".join(names) or "none"
            raise InputError(f"plot: by is a feature of names ({there}); got {by!r}.")
        levels = names[by][: len(SHADES)]
    if ax is not None:
        _posterior_on(ax, posterior, axis, by, levels, fixed, curves)
        return ax.figure
    with canvas((5.6, 3.6)) as figure:
        _posterior_on(figure.add_subplot(), posterior, axis, by, levels, fixed, curves)
        return figure


def _posterior_on(ax, posterior, axis, by, levels, fixed, curves) -> None:
    trained, target = posterior.trained, posterior.trained.info["target"]
    for shade, level in zip(SHADES, levels, strict=False):
        rows = _along(trained, axis, posterior.known, fixed | ({} if by is None else {by: level}))
        x = rows.frame[axis.name].to_numpy()
        said = posterior.predict(rows)
        label = "median and 90 % band" if level is None else str(level)
        ax.fill_between(x, said["q05"], said["q95"], color=shade, alpha=0.16, linewidth=0)
        ax.plot(x, said["q50"], color=shade, label=label)
        if curves and by is None:
            drawn = posterior.sample(rows, curves, functions=True, noise=False)
            for i, (_, one) in enumerate(drawn.group_by("draw", maintain_order=True)):
                name = "functions drawn" if i == 0 else None
                ax.plot(x, one[target], color=shade, lw=0.7, alpha=0.45, label=name)
        if by is None:
            best = posterior.suggest(rows)[axis.name][0]
            ax.axvline(best, color=POINT, lw=1.0, ls=(0, (4, 3)), label="observe next")
    if posterior.known is not None and len(posterior.y):
        own = as_numbers(posterior.known[axis.name], "support")
        y = posterior.to_column(posterior.y[:, 0])
        ax.plot(own, y, "o", ms=6, mfc=POINT, mec="white", mew=1.1, label="observed", ls="")
    ax.set_xlabel(axis.name)
    ax.set_ylabel(target)
    ax.legend()


def of_prior(trained: "Trained", x: str | None, ax: Any, seed: int) -> Any:
    """See `Prior.plot`."""
    from metaprior.tables.answers import adapt

    axis = number_of(trained, x, "plot")
    if trained.units is None:
        raise InputError("plot is for numbers; explain says what was learned of classes.")
    if ax is not None:
        _prior_on(ax, trained, adapt([trained], None, None), axis, seed)
        return ax.figure
    with canvas((5.6, 3.6)) as figure:
        _prior_on(figure.add_subplot(), trained, adapt([trained], None, None), axis, seed)
        return figure


def _prior_on(ax: Any, trained: "Trained", posterior: Any, axis: Number, seed: int) -> None:
    target, held = trained.info["target"], trained.held
    rows = _along(trained, axis, None, _fixed(trained, None))
    x = rows.frame[axis.name].to_numpy()
    said = posterior.predict(rows)
    ax.fill_between(x, said["q05"], said["q95"], color=METHOD, alpha=0.12, linewidth=0)
    drawn = posterior.sample(rows, GROUPS, seed, functions=True)
    some = slice(None, None, EVERY)
    for i, (_, one) in enumerate(drawn.group_by("draw", maintain_order=True)):
        name = "groups drawn from the prior" if i == 0 else None
        y = one[target].to_numpy()[some]
        ax.plot(x[some], y, lw=0.9, color=METHOD, alpha=0.6, label=name)
    times = {} if held is None else held.times or {}
    if held is not None and axis.name in times:
        real = np.random.default_rng(seed).permutation(len(held.count))[:GROUPS]
        for i, g in enumerate(real):
            own = slice(held.start[g], held.start[g] + held.count[g])
            at = times[axis.name][own]
            order = np.argsort(at, kind="stable")
            y = posterior.to_column(held.y[own, 0])
            name = "groups kept aside" if i == 0 else None
            ax.plot(at[order], y[order], lw=0.9, color=POINT, alpha=0.6, label=name)
    ax.set_xlabel(axis.name)
    ax.set_ylabel(target)
    ax.legend()
