"""What a prior has learned, read off its functions of a new group at typical rows.

Nothing here depends on how the learner works: a method that is conditioned exactly, a network and
a mixture of both are asked the same questions. What is learned of a group that nothing is known of
is a distribution over functions; its parts are what is shared by all groups, what differs from
group to group, and noise.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import polars as pl
from jaxtyping import Array

from metaprior.errors import InputError
from metaprior.evaluation.units import Counts
from metaprior.methods.ensemble import Ensemble
from metaprior.methods.stack import Stack, shot_features
from metaprior.mixture import functions_of
from metaprior.system.programs import kept_once
from metaprior.tables import questions
from metaprior.tables.columns import Number
from metaprior.tables.gaps import DRAWS
from metaprior.tables.learn import Process
from metaprior.tables.padding import longer
from metaprior.tables.read import Rows
from metaprior.tables.trained import Trained
from metaprior.task import Data

ROWS = 8  # of a typical group, of which functions are compared
FUNCTIONS = 512  # drawn for each group
BASE, GRID = 16, 9  # typical rows in which a feature takes so many values
MOST = 32  # features whose effects are computed
MIDDLE = (0.05, 0.95)  # quantiles of a feature between which its values lie, and of bands
OBSERVED = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48)
SHOTS = (0, 1, 2, 5, 10)
SIMULATED = 399  # groups that one is compared with
LARGEST, GROUPS = 20, 256  # rows of a group that count, and groups at most
TOGETHER = 16  # groups in one program

Tell = Callable[[float, str], None]


class Typical(NamedTuple):
    """Rows of groups like those of training.

    Args:
        frame: the feature columns, the rows of a group together.
        groups: how many; each has as many rows.
    """

    frame: pl.DataFrame
    groups: int

    @staticmethod
    def of(trained: Trained, rows: int) -> "Typical":
        """Drawn from what training rows say of the features: `gaps.DRAWS` groups.

        Raises:
            InputError: the prior does not hold that.
        """
        names, gaps = trained.features.names(), trained.gaps
        if not names:
            stand_in = pl.DataFrame({trained.info["task"]: ["new"] * (DRAWS * rows)})
            return Typical(stand_in, DRAWS)
        if gaps is None:
            raise InputError(
                "explain draws typical rows from what fit keeps of the features; this prior holds "
                "none of that. It was fitted by an earlier version, or on too many columns: fit it "
                "again, with fewer features."
            )
        return Typical(gaps.typical(trained.features, rows), DRAWS)

    def encoded(self, trained: Trained) -> np.ndarray:
        """`(groups, rows, d)`."""
        x = trained.encode(Rows(self.frame, "typical rows"))
        return x.reshape(self.groups, -1, x.shape[-1])


@kept_once
def spread_of(learner, x):
    """Moments of a new group's functions at the rows of typical groups `(g, n, d)`.

    Returns:
        mean, variance and removable variance of each row, `(g, n, p)`, and of each group the
        variances and the covariances of the functions drawn, means over rows and pairs, `(g, p)`.
    """

    def one(x, number):
        post_key, key, draw_key, pick_key = jr.split(jr.fold_in(jr.key(0), number), 4)
        posterior = learner.posterior(Data.blank(0, x.shape[-1]), key=post_key)
        said = posterior.predict(x, key=key, samples=questions.SAMPLES)
        drawn = posterior.sample(x, key=draw_key, samples=FUNCTIONS)
        value = functions_of(drawn, FUNCTIONS, key=pick_key)[0]
        value = value - value.mean(0)
        n = len(x)
        each, whole = (value**2).sum(1).mean(0), (value.sum(1) ** 2).mean(0)
        pairs = (whole - each) / (n * (n - 1))
        return said.mean(), said.variance(), said.epistemic(), each / n, pairs

    return jax.vmap(one)(x, jnp.arange(len(x)))


@kept_once
def left_of(learner, x, counts):
    """How much of the removable variance is left after so many rows of a group.

    The outcomes of a group are drawn from the learner itself.

    Args:
        x: typical groups, `(g, m + ROWS, d)`: the last `ROWS` are asked about.
        counts: of observed rows, `(k,)`, at most m.

    Returns:
        means over the rows asked about, `(g, k)`.
    """

    def one(x, number):
        keys = jr.split(jr.fold_in(jr.key(1), number), 3)
        drawn = learner.posterior(Data.blank(0, x.shape[-1]), key=keys[0]).sample(
            x, key=keys[1], samples=1
        )
        y = functions_of(drawn, 1, key=keys[2])[1][0]
        seen, asked = x[:-ROWS], x[-ROWS:]

        def after(count):
            support = Data(seen, y[:-ROWS], jnp.arange(len(seen)) < count)
            posterior = learner.posterior(support, key=keys[0])
            said = posterior.predict(asked, key=keys[1], samples=questions.SAMPLES)
            return said.epistemic().sum(-1).mean()

        return jax.lax.map(after, counts)

    return jax.vmap(one)(x, jnp.arange(len(x)))


@kept_once
def oddity_of(learner, x, y, mask, curve):
    """How often a group drawn from the prior at the same rows is less likely: p of each group.

    Args:
        x, y, mask: groups, `(g, n, …)`.
        curve: of the target's units.
    """

    def one(x, y, mask, number):
        keys = jr.split(jr.fold_in(jr.key(2), number), 4)
        posterior = learner.posterior(Data.blank(0, x.shape[-1]), key=keys[0])
        drawn = posterior.sample(x, key=keys[1], samples=SIMULATED)
        other = functions_of(drawn, SIMULATED, key=keys[2])[1]
        if isinstance(curve, Counts):  # whole numbers, as the observed ones are
            other = (jnp.log1p(curve.whole(other)) - curve.center) / curve.scale

        def likely(y):
            data = Data(x, y, mask)
            return posterior.joint_log_prob(data, key=keys[3], samples=questions.SAMPLES)

        return (1 + (jax.lax.map(likely, other, batch_size=50) <= likely(y)).sum()) / (
            1 + SIMULATED
        )

    return jax.vmap(one)(x, y, mask, jnp.arange(len(x)))


def spread(trained: Trained) -> pl.DataFrame:
    """Where the variance of outcomes comes from: `part`, `share`, `std` in the model's units."""
    x = Typical.of(trained, ROWS).encoded(trained)
    mean, total, removable, each, pairs = (
        np.asarray(a, np.float64) for a in spread_of(trained.learner, x)
    )
    features = mean.reshape(-1, mean.shape[-1]).var(0).sum()
    group = removable.mean((0, 1)).sum()
    # What functions share over rows, of what they vary by; the exact variance counts.
    shared = group * np.clip(pairs.sum() / max(each.sum(), 1e-30), 0.0, 1.0)
    noise = (total - removable).mean((0, 1)).sum()
    parts = {
        "features": features,
        "between groups": shared,
        "own effects of groups": group - shared,
        "noise": noise,
    }
    values = np.array(list(parts.values()))
    shares = values / max(values.sum(), 1e-30)
    return pl.DataFrame({"part": list(parts), "share": shares, "std": np.sqrt(values)})


def rows(trained: Trained) -> pl.DataFrame:
    """What a new group's rows are worth: `rows`, and the share `left` of the deviation of its
    function.
    """
    x = Typical.of(trained, max(OBSERVED) + ROWS).encoded(trained)
    counts = np.asarray(OBSERVED, np.int32)
    left = np.asarray(left_of(trained.learner, x, counts), np.float64).mean(0)
    return pl.DataFrame({"rows": OBSERVED, "left": np.sqrt(left / max(left[0], 1e-30))})


def halved(left: pl.DataFrame) -> float | None:
    """How many rows halve the deviation of a new group's function; `None` beyond the last."""
    k, share = left["rows"].to_numpy(), left["left"].to_numpy()
    below = np.flatnonzero(share <= 0.5)
    if not len(below):
        return None
    i = int(below[0])
    return float(np.interp(-0.5, -share[i - 1 : i + 1], k[i - 1 : i + 1]))


class Effect(NamedTuple):
    """How a feature moves a new group's function, over typical rows.

    Args:
        feature: its name.
        values: that it takes: numbers, or names.
        functions: in the target's own units, or probabilities of classes: `(s, values, p)`.
    """

    feature: str
    values: list
    functions: np.ndarray

    @property
    def size(self) -> float:
        """How far the mean over groups moves: its deviation over the values."""
        return float(np.sqrt(self.functions.mean(0).var(0).sum()))


def effects(
    trained: Trained, support: Data | None = None, progress: Tell | None = None
) -> list[Effect]:
    """Of each feature, the largest first: Friedman's partial dependence of each function.

    Friedman, "Greedy Function Approximation: A Gradient Boosting Machine", Annals of Statistics
    2001, section 8.2: the mean over typical rows in which the feature takes a value. Here of every
    function that a group may have.

    Args:
        trained: of a prior.
        support: the observed rows of the group; none of a new one.
        progress: called with the share done and what is being done.
    """
    if support is None:
        support = Data.blank(0, trained.width())
    some, found = Typical.of(trained, 1), []
    columns = trained.features.columns
    base = some.frame.head(BASE)
    for i, column in enumerate(columns[:MOST]):
        values = _values(column, some.frame[column.name])
        if len(values) > 1:
            kind = pl.Float64 if isinstance(column, Number) else pl.String
            varied = pl.concat(
                [base.with_columns(pl.lit(v, kind).alias(column.name)) for v in values]
            )
            functions = _partial(trained, support, varied, len(values))
            found.append(Effect(column.name, values, functions))
        if progress is not None:
            progress((i + 1) / min(len(columns), MOST), f"effect of {column.name}")
    return sorted(found, key=lambda e: -e.size)


def _values(column: Any, series: pl.Series) -> list:
    """Those that a feature takes: evenly over the middle of its range, or its commonest names."""
    if not isinstance(column, Number):
        common = series.drop_nulls().value_counts(sort=True).head(GRID)
        return sorted(common[series.name].to_list())
    numbers = series.cast(pl.Float64).drop_nulls().to_numpy()
    low, high = np.quantile(numbers, MIDDLE)
    distinct = np.unique(numbers[(numbers >= low) & (numbers <= high)])
    return (distinct if len(distinct) <= GRID else np.linspace(low, high, GRID)).tolist()


def _partial(trained: Trained, support: Data, frame: pl.DataFrame, values: int) -> np.ndarray:
    """Means over the base rows of every function, `(s, values, p)`, as `Effect` has them."""
    x = trained.encode(Rows(frame, "typical rows"))
    padded = jax.device_put(longer(x, BASE * GRID))
    curve, parts = trained.curve(), []
    for number in range(FUNCTIONS // questions.CURVES):
        which = np.asarray([0, number], np.uint32)
        value = questions.curves(trained.learner, support, padded, curve, which)[0]
        parts.append(np.asarray(value, np.float64)[:, : len(x)])
    each = np.concatenate(parts)
    each += _means(trained, support, padded)[: len(x)] - each.mean(0)  # exact, but for what bends
    mean = each.reshape(len(each), values, -1, each.shape[-1]).mean(2)
    return mean if trained.units is None else trained.units.smooth(mean)


@kept_once
def _expected(learner, support, x):
    said, _ = questions.believed(learner, support, x, jr.key(0))
    return said.mean()


def _means(trained: Trained, support: Data, x: Array) -> np.ndarray:
    """Expected outcomes of rows, in the model's units, `(n, p)`."""
    return np.asarray(_expected(trained.learner, support, x), np.float64)


def weights(trained: Trained) -> pl.DataFrame | None:
    """How much each learner of a stack counts: a column for each number of observed rows."""
    stack = trained.learner
    if not isinstance(stack, Stack):
        return None
    share = jax.nn.softmax(stack.coefficients @ shot_features(np.asarray(SHOTS, np.float32)).T, 0)
    names = [_name(trained, learner) for learner in stack.learners]
    frame = pl.DataFrame({"learner": names})
    each = [pl.Series(f"K={K}", np.asarray(share, np.float64)[:, i]) for i, K in enumerate(SHOTS)]
    whole = frame.with_columns(each).group_by("learner", maintain_order=True).sum()
    return whole.sort(f"K={SHOTS[2]}", descending=True)


def _name(trained: Trained, learner: Any) -> str:
    """Of a stacked learner: the baseline that it is, or what it is made of."""
    for name, baseline in trained.baselines.items():
        if bool(eqx.tree_equal(learner, baseline)):
            return name
    if isinstance(learner, Ensemble) and isinstance(learner.members, Process):
        return "processes"
    return type(learner).__name__


def groups(trained: Trained, progress: Tell | None = None) -> pl.DataFrame | None:
    """How unlike all others each group kept aside is: `group`, `rows` and `p`, the least first.

    `p` is the share of groups drawn from the prior at the same rows that are less likely, the group
    itself included. Nothing without such groups.
    """
    held = trained.held
    if held is None:
        return None
    some = np.arange(len(held.count))
    if len(some) > GROUPS:
        some = np.sort(np.random.default_rng(0).permutation(some)[:GROUPS])
    rng, taken = np.random.default_rng(1), []
    for g in some:
        own = held.start[g] + rng.permutation(int(held.count[g]))[:LARGEST]
        taken.append(np.pad(own, (0, LARGEST - len(own)), constant_values=-1))
    at = np.array(taken)
    p = []
    for first in range(0, len(some), TOGETHER):
        block = at[first : first + TOGETHER]
        block = np.pad(block, [(0, TOGETHER - len(block)), (0, 0)], constant_values=-1)
        mask = block >= 0
        x, y = (np.where(mask[..., None], values[block], 0) for values in (held.x, held.y))
        out = oddity_of(trained.learner, x, y.astype(np.float32), mask, trained.curve())
        p.append(np.asarray(out, np.float64))
        if progress is not None:
            progress(min(1.0, (first + TOGETHER) / len(some)), "groups unlike all others")
    names = [str(g + 1) for g in some] if held.names is None else [held.names[g] for g in some]
    frame = {"group": names, "rows": held.count[some], "p": np.concatenate(p)[: len(some)]}
    return pl.DataFrame(frame).sort("p", maintain_order=True)
