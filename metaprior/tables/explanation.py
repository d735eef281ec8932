"""`Explanation`: what a prior has learned, as frames and in words."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from metaprior.bends import Shares
from metaprior.evaluation.units import Units
from metaprior.tables import explain, pictures
from metaprior.tables.columns import Number
from metaprior.tables.meaning.notes import count
from metaprior.tables.stages import part_of
from metaprior.tables.trained import Trained

PARTS = {
    "features": "what {features} say of every group",
    "between groups": "a group is higher or lower in all its rows",
    "own effects of groups": "a group differs in some rows: slopes and curves of its own",
    "noise": "no other row of the group tells it",
}
UNRELATED = 0.2  # correlation below which two things are called unrelated
TOLD = 8  # features and groups in the text
LIKELY = 0.05  # that a group of a whole list is named though all are alike


@dataclasses.dataclass(frozen=True)
class Explanation:
    """What a prior has learned of one target; made by `Prior.explain`. `str` is the text.

    Variances, effects and rows are of a new group, of which nothing is known yet. Features take
    values as in training.

    Args:
        target: its name.
        scale: what it was modelled on, such as `"logarithm"`; `""` for as it is.
        learned: how many groups the prior has learned from.
        spread: where outcomes differ: `part`, `share` of the variance, and `std`: in the target's
            own units, or those of the scale it was modelled on; of classes in probability.
        rows: what rows are worth: after so many observed `rows` of a group this share `left` of
            the deviation of its function.
        effects: of each `feature`, the largest first, at a `value` (a number, or empty) or `name`:
            the `mean` over groups of a group's own function, and between which numbers, `low` and
            `high`, it lies in the middle 90 % of groups. In the target's own units, or the
            probability of a class, which is then the `outcome`. `own` is the deviation over groups
            of how the feature moves them.
        slopes: of each `feature` of numbers: its `slope`, for one more of it; the deviation `std`
            of that over groups; and the `correlation` over groups of slope and level.
        weights: how much each learner of the default counts, by number of observed rows; `None`
            where one learner was trained.
        groups: of each group kept aside its `rows` and `p`, the share of groups drawn from the
            prior at the same rows that are less likely. Small ones are unlike all others.
        left_out: features beyond the most that are computed.
    """

    target: str
    scale: str
    learned: int
    spread: pl.DataFrame
    rows: pl.DataFrame
    effects: pl.DataFrame
    slopes: pl.DataFrame
    weights: pl.DataFrame | None
    groups: pl.DataFrame | None
    left_out: tuple[str, ...] = ()

    @property
    def halved(self) -> float | None:
        """After how many rows the deviation of a group's function is half; `None` where not even
        the most that are tried halve it.
        """
        return explain.halved(self.rows)

    @property
    def unlike(self) -> pl.DataFrame | None:
        """The groups kept aside that look unlike all others.

        A list in which all are alike names one with a probability of 5 %.
        """
        if self.groups is None:
            return None
        return self.groups.filter(pl.col("p") <= max(LIKELY / self.groups.height, _LEAST))

    def to_json(self) -> dict[str, Any]:
        """All frames as lists of mappings."""
        found: dict[str, Any] = {"target": self.target, "scale": self.scale, "halved": self.halved}
        for name in ("spread", "rows", "effects", "slopes", "weights", "groups"):
            frame = getattr(self, name)
            found[name] = None if frame is None else frame.to_dicts()
        return found

    def plot(self) -> Any:
        """A Matplotlib figure: where outcomes differ, what rows are worth, six largest effects."""
        return pictures.of_explanation(self)

    def __str__(self) -> str:
        lines = [f"What the prior has learned of {self.target} from {count(self.learned, 'group')}"]
        lines += ["", *_spread(self), "", _rows(self)]
        lines += ["", *_effects(self)] if self.effects.height else []
        lines += ["", *_weights(self.weights)] if self.weights is not None else []
        lines += ["", *_groups(self)] if self.groups is not None else []
        return "\n".join(lines)

    __repr__ = __str__


_LEAST = 1 / (1 + explain.SIMULATED)


def explained(trained: Trained, progress: explain.Tell | None = None) -> Explanation:
    """Everything of one target."""

    tell = progress or (lambda done, what: None)
    info, units = trained.info, trained.units
    tell(0.0, "where outcomes differ")
    spread = explain.spread(trained)
    if units is not None and units.straight:
        spread = spread.with_columns(pl.col("std") * units.scale)
    tell(0.25, "what rows are worth")
    rows = explain.rows(trained)
    found = explain.effects(trained, progress=part_of(progress, 0.5, 0.75))
    columns = trained.features.columns
    return Explanation(
        target=info["target"],
        scale="" if units is None else _scale(units),
        learned=info["groups"]["train"],
        spread=spread,
        rows=rows,
        effects=effect_frame(trained, found),
        slopes=_slope_frame(trained, found),
        weights=explain.weights(trained),
        groups=explain.groups(trained, part_of(progress, 0.75, 1.0)),
        left_out=tuple(column.name for column in columns[explain.MOST :]),
    )


def _scale(units: Units) -> str:
    if units.bend is not None:
        return "log odds" if isinstance(units.bend, Shares) else "Yeo-Johnson"
    return "" if units.straight else f"logarithm{f' of {units.shift:g} more' * bool(units.shift)}"


def _outcomes(trained: Trained) -> list[str]:
    classes = trained.info["classes"]
    return [trained.info["target"]] if classes is None else [f"p_{c}" for c in classes]


def effect_frame(trained: Trained, found: Sequence[explain.Effect]) -> pl.DataFrame:
    """`Explanation.effects`."""
    frames = []
    for effect in found:
        f = effect.functions
        low, high = np.quantile(f, explain.MIDDLE, axis=0)
        own = (f - f.mean(1, keepdims=True)).std(0)
        numbers = not isinstance(effect.values[0], str)
        for j, outcome in enumerate(_outcomes(trained)):
            columns = {
                "feature": pl.Series([effect.feature] * len(effect.values), dtype=pl.String),
                "outcome": [outcome] * len(effect.values),
                "value": pl.Series(
                    effect.values if numbers else [None] * len(own), dtype=pl.Float64
                ),
                "name": pl.Series([None] * len(own) if numbers else effect.values, dtype=pl.String),
                "mean": f.mean(0)[:, j],
                "low": low[:, j],
                "high": high[:, j],
                "own": own[:, j],
            }
            frames.append(pl.DataFrame(columns))
    return pl.concat(frames) if frames else pl.DataFrame(schema=_EFFECTS)


_EFFECTS: dict[str, Any] = {
    **dict.fromkeys(("feature", "outcome"), pl.String),
    "value": pl.Float64,
    "name": pl.String,
    **dict.fromkeys(("mean", "low", "high", "own"), pl.Float64),
}
_SLOPES: dict[str, Any] = {
    **dict.fromkeys(("feature", "outcome"), pl.String),
    **dict.fromkeys(("slope", "std", "correlation"), pl.Float64),
}


def _slope_frame(trained: Trained, found: Sequence[explain.Effect]) -> pl.DataFrame:
    numbers = {c.name for c in trained.features.columns if isinstance(c, Number)}
    rows = []
    for effect in found:
        if effect.feature not in numbers:
            continue
        x = np.asarray(effect.values) - np.mean(effect.values)
        level = effect.functions.mean(1)
        slope = np.tensordot(x, effect.functions, (0, 1)) / (x**2).sum()
        for j, outcome in enumerate(_outcomes(trained)):
            s, a = slope[:, j], level[:, j]
            fixed = min(s.std(), a.std()) <= 1e-6 * max(abs(s.mean()), a.std(), 1e-30)
            r = None if fixed else float(np.corrcoef(s, a)[0, 1])
            rows.append((effect.feature, outcome, s.mean(), s.std(), r))
    return pl.DataFrame(rows, schema=_SLOPES, orient="row")


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


def _number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def _spread(e: Explanation) -> list[str]:
    on = f" (on the scale it was modelled on, {e.scale})" if e.scale else ""
    lines = [f"Where outcomes differ, in rows of groups that nothing is known of{on}:"]
    features = list(dict.fromkeys(e.effects["feature"]))
    said = ", ".join(features[:3]) + (" and others" if len(features) > 3 else "")
    for row in e.spread.iter_rows(named=True):
        if row["part"] == "features" and not features:
            continue
        words = PARTS[row["part"]].format(features=said or "features")
        lines.append(
            f"  {row['part']:<22}{_percent(row['share']):>6}   ± {_number(row['std']):<9} {words}"
        )
    return lines


def _rows(e: Explanation) -> str:
    left = dict(zip(e.rows["rows"], e.rows["left"], strict=True))
    if e.halved is None:
        return (
            f"Rows: not even {max(left)} rows halve the deviation of a new group's function; "
            f"{_percent(left[max(left)])} of it is left."
        )
    many = max(1, round(e.halved))
    return (
        f"Rows: {count(many, 'row')} {'halves' if many == 1 else 'halve'} the deviation of a new "
        f"group's function; after {max(left)} rows {_percent(left[max(left)])} of it is left."
    )


def _effects(e: Explanation) -> list[str]:
    lines = [
        "Features, the largest first: the mean over groups, and between which numbers 90 % of "
        "groups lie:"
    ]
    names = list(dict.fromkeys(e.effects["feature"]))
    for name in names[:TOLD]:
        own = e.effects.filter(pl.col("feature") == name)
        outcomes = list(dict.fromkeys(own["outcome"]))
        # Of two classes the second says it all.
        for outcome in outcomes[1:] if len(outcomes) == 2 else outcomes:
            lines.append(
                f"  {name}{'' if outcome == e.target else f', {outcome}'}: "
                + _curve(own.filter(pl.col("outcome") == outcome))
            )
            slope = e.slopes.filter((pl.col("feature") == name) & (pl.col("outcome") == outcome))
            if slope.height:
                lines.append("    " + _slope(slope.row(0, named=True)))
    if len(names) > TOLD:
        lines.append(f"  and {len(names) - TOLD} more, of which `effects` has the figures.")
    if e.left_out:
        lines.append(f"  Not computed: {count(len(e.left_out), 'further feature')}.")
    return lines


def _curve(frame: pl.DataFrame) -> str:
    """Mean and band at the first, the middle and the last value; at every name."""
    if frame["name"][0] is None:
        some = sorted({0, frame.height // 2, frame.height - 1})
        frame = frame[some]
    return "; ".join(
        f"{row['name'] or _number(row['value'])}: {_number(row['mean'])} "
        f"({_number(row['low'])} to {_number(row['high'])})"
        for row in frame.iter_rows(named=True)
    )


def _slope(row: dict[str, Any]) -> str:
    said = f"{_number(row['slope'])} for one more, ± {_number(row['std'])} from group to group"
    r = row["correlation"]
    if r is None:
        return said
    if abs(r) < UNRELATED:
        return f"{said}; a group's slope is unrelated to its level"
    more = "more" if r > 0 else "less"
    return f"{said}; groups with a higher level rise {more} (correlation {r:.2f})"


def _weights(weights: pl.DataFrame) -> list[str]:
    shots = weights.columns[1:]
    lines = ["Learners and their weights, by number of observed rows:"]
    lines.append(f"  {'':<14}" + "".join(f"{name:>7}" for name in shots))
    for row in weights.iter_rows():
        lines.append(f"  {row[0]:<14}" + "".join(f"{_percent(share):>7}" for share in row[1:]))
    return lines


def _groups(e: Explanation) -> list[str]:
    assert e.groups is not None and e.unlike is not None
    many, odd = e.groups.height, e.unlike
    if not odd.height:
        return [f"Groups: none of the {many} kept aside looks unlike all others."]
    named = ", ".join(f"{g} (p = {p:.3g})" for g, _, p in odd.head(TOLD).iter_rows())
    more = f" and {odd.height - TOLD} more" if odd.height > TOLD else ""
    verb = "looks" if odd.height == 1 else "look"
    return [
        f"Groups: {odd.height} of the {many} kept aside {verb} unlike all others: {named}{more}."
    ]
