"""Peers on grouped tables, as a strong user of each would write them.

Each takes the rows of the training groups, encoded as for metaprior's own learners but without the
pooled prediction, and the target on the scale that metaprior chose. Each gives the predictive of
rows of new groups of which K rows were observed, without fitting anew:

    MixedLM   statsmodels: fixed effects with squares; a random intercept, or slopes too, whichever
              has the lower AIC; new groups by their best linear prediction
    GPBoost   boosted trees and a random intercept, fitted together (Sigrist 2022); new groups as
              above; classes by quadrature over the intercept
    LightGBM  trees on the columns and on features of the observed rows (mean, spread, nearest,
              count), a second model for the scale, Student-t tails

The number of trees comes from cross-validation over groups.
"""

import time
import warnings
from typing import NamedTuple

import numpy as np
from scipy.special import expit

from metaprior.tables.baselines.observed import columns_of, examples_of
from metaprior.tables.tails import log_density, scale_of
from metaprior.tables.target_scale import FREEDOMS

FOLDS = 5
ROUNDS = 300
TREES = {"learning_rate": 0.05, "num_leaves": 15, "min_data_in_leaf": 20, "lambda_l2": 1.0}
QUIET = {"verbose": -1, "num_threads": 2}
MOST_SLOPES = 3


class Rows(NamedTuple):
    """Training rows, those of a group together: `(n, d)`, `(n,)` and the group's number."""

    x: np.ndarray
    y: np.ndarray
    group: np.ndarray
    classes: int

    def folds(self) -> np.ndarray:
        """Of each row; a group is in one of them."""
        count = int(self.group.max()) + 1
        return np.random.default_rng(0).permutation(count)[self.group] % FOLDS


class Asked(NamedTuple):
    """Tasks at one K: observed rows and their mask, and rows to predict, stacked."""

    x: np.ndarray
    y: np.ndarray
    seen: np.ndarray
    new: np.ndarray


class Said(NamedTuple):
    """Location, scale and degrees of freedom, `(t, n)` each; of classes log probabilities."""

    location: np.ndarray
    scale: np.ndarray
    df: float


def mixed_lm(rows: Rows):
    """statsmodels' linear mixed model; numbers only."""
    from statsmodels.regression.mixed_linear_model import MixedLM

    def fixed(x):
        return np.concatenate([np.ones((*x.shape[:-1], 1)), x, x[..., many] ** 2], axis=-1)

    many = [j for j in range(rows.x.shape[1]) if len(np.unique(rows.x[:, j])) > 5]
    design = fixed(rows.x)
    # Columns that say nothing beside the others.
    keep: list[int] = []
    for j in range(design.shape[1]):
        if np.linalg.matrix_rank(design[:, [*keep, j]]) > len(keep):
            keep.append(j)
    centers = np.stack([np.bincount(rows.group, c) for c in rows.x.T], 1)
    centers = (centers / np.bincount(rows.group)[:, None])[rows.group]
    within = ((rows.x - centers) ** 2).mean(0)
    slopes = [j for j in many if within[j] > 0.05][:MOST_SLOPES]

    def effects(x, chosen):
        return np.concatenate([np.ones((*x.shape[:-1], 1)), x[..., chosen]], axis=-1)

    found = []
    for chosen in ([], slopes) if slopes else ([],):
        z = effects(rows.x, chosen)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                fit = MixedLM(rows.y, design[:, keep], rows.group, z).fit(reml=True)
            except np.linalg.LinAlgError:  # it gives up where a covariance becomes singular
                continue
        if np.isfinite(fit.llf):
            q = z.shape[1]
            found.append((-2 * fit.llf + q * (q + 1), chosen, fit))
    _, chosen, fit = min(found, key=lambda one: one[0])
    cov, noise = np.asarray(fit.cov_re), float(fit.scale)
    beta, unsure = np.asarray(fit.fe_params), np.asarray(fit.cov_params())[: len(keep), : len(keep)]

    def predict(asked: Asked) -> Said:
        known, new = fixed(asked.x)[..., keep], fixed(asked.new)[..., keep]
        z, z_new = effects(asked.x, chosen), effects(asked.new, chosen)

        def covariance(a, za, b, zb):
            return za @ cov @ zb.swapaxes(1, 2) + a @ unsure @ b.swapaxes(1, 2)

        both = asked.seen[:, :, None] & asked.seen[:, None]
        k = np.where(both, covariance(known, z, known, z), 0.0)
        k += np.eye(k.shape[1]) * np.where(asked.seen, noise, 1.0)[:, None]
        cross = covariance(new, z_new, known, z) * asked.seen[:, None]
        error = np.where(asked.seen, asked.y - known @ beta, 0.0)
        gain = np.linalg.solve(k, cross.swapaxes(1, 2)).swapaxes(1, 2)
        location = new @ beta + (gain @ error[..., None])[..., 0]
        own = np.einsum("tnq,qr,tnr->tn", z_new, cov, z_new)
        own += np.einsum("tnp,pr,tnr->tn", new, unsure, new)
        variance = own - (gain * cross).sum(-1) + noise
        return Said(location, np.sqrt(np.maximum(variance, 1e-8)), 1e6)

    return predict


def gp_boost(rows: Rows):
    """GPBoost's trees with a random intercept."""
    import gpboost as gpb

    if rows.classes > 2:
        return None
    likelihood = "bernoulli_logit" if rows.classes else "gaussian"

    def model():
        return gpb.GPModel(group_data=rows.group, likelihood=likelihood)

    data = gpb.Dataset(rows.x, rows.y)
    fold = rows.folds()
    parts = [(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(FOLDS)]
    options = {**TREES, **QUIET}
    history = gpb.cv(
        options,
        data,
        gp_model=model(),
        num_boost_round=ROUNDS,
        early_stopping_rounds=20,
        folds=parts,
        verbose_eval=False,
    )
    best = len(next(iter(history.values())))
    effects = model()
    trees = gpb.train(options, gpb.Dataset(rows.x, rows.y), best, gp_model=effects)
    numbers = np.asarray(effects.get_cov_pars(format_pandas=False), float).ravel()
    noise, between = (0.0, numbers[0]) if rows.classes else (numbers[0], numbers[1])

    def of(x):
        flat = x.reshape(-1, x.shape[-1])
        # A group that training does not have: the fixed effect is what the trees say.
        found = trees.predict(
            data=flat, group_data_pred=np.full(len(flat), -1), pred_latent=True, predict_var=False
        )
        return np.asarray(found["fixed_effect"]).reshape(x.shape[:-1])

    def predict(asked: Asked) -> Said:
        known, new = of(asked.x), of(asked.new)
        if rows.classes:
            at, weight = np.polynomial.hermite_e.hermegauss(31)
            at = np.sqrt(between) * at
            p = expit(known[..., None] + at)
            log_p = np.where(asked.y[..., None] > 0, np.log(p), np.log1p(-p))
            log_w = np.log(weight) + np.where(asked.seen[..., None], log_p, 0.0).sum(1)
            w = np.exp(log_w - log_w.max(1, keepdims=True))
            one = (expit(new[..., None] + at) * w[:, None]).sum(-1) / w.sum(1)[:, None]
            return Said(np.log(np.stack([1 - one, one], -1)), np.zeros(0), 0.0)
        count = asked.seen.sum(1)
        total = np.where(asked.seen, asked.y - known, 0.0).sum(1)
        precision = 1 / between + count / noise
        location = new + (total / noise / precision)[:, None]
        return Said(
            location, np.broadcast_to(np.sqrt(1 / precision + noise)[:, None], new.shape), 1e6
        )

    return predict


def light_gbm(rows: Rows):
    """LightGBM on features of the observed rows, with a model of the scale and t tails."""
    import lightgbm as lgb

    start = np.flatnonzero(np.diff(rows.group, prepend=-1))
    fold_of_group = rows.folds()[start]
    # Our features, of the outcomes themselves: what is taken off them is 0.
    plain = np.concatenate([rows.x, np.zeros((len(rows.x), 1))], axis=1)
    examples = examples_of(plain, rows.y, start, rows.group, fold_of_group, 1.0)
    # There the shrunken mean is taken off the outcome; here it stays.
    offset = examples.columns[:, rows.x.shape[1] + 3]
    y = examples.left + offset
    columns = examples.columns
    parts = [
        (np.flatnonzero(examples.fold != k), np.flatnonzero(examples.fold == k))
        for k in range(FOLDS)
    ]

    def fit(target, options):
        options = {**TREES, **QUIET, **options}
        history = lgb.cv(
            options,
            lgb.Dataset(columns, target),
            ROUNDS,
            folds=parts,
            return_cvbooster=True,
            callbacks=[lgb.early_stopping(20, verbose=False)],
        )
        folds = history["cvbooster"]
        best = max(folds.best_iteration, 1)
        out = np.zeros((len(target), options.get("num_class", 1)))
        for booster, (_, outside) in zip(folds.boosters, parts, strict=True):
            found = booster.predict(columns[outside], num_iteration=best, raw_score=True)
            out[outside] = found.reshape(len(outside), -1)
        return lgb.train(options, lgb.Dataset(columns, target), best), out

    def seen_by(asked: Asked):
        found = []
        for x, y, seen, new in zip(*asked, strict=True):  # a few hundred tasks
            distance = np.sqrt(((new[:, None] - x[None]) ** 2).sum(-1))
            wide = (len(new), len(y))
            more = np.concatenate([new, np.zeros((len(new), 1))], axis=1)
            some = (np.broadcast_to(y, wide), distance, np.broadcast_to(seen, wide))
            found.append(columns_of(more, *some, 1.0)[0])
        return np.stack(found)

    if rows.classes:
        two = rows.classes == 2
        kind = {"objective": "binary"} if two else {"objective": "multiclass"}
        model, _ = fit(y, kind if two else kind | {"num_class": rows.classes})

        def classify(asked: Asked) -> Said:
            features = seen_by(asked)
            p = model.predict(features.reshape(-1, features.shape[-1]))
            p = np.stack([1 - p, p], -1) if two else p
            log_p = np.log(np.maximum(p, 1e-6)).reshape(*features.shape[:2], -1)
            return Said(log_p, np.zeros(0), 0.0)

        return classify

    location, held = fit(y, {"objective": "regression"})
    error = y - held[:, 0]
    size = np.log(np.maximum(error**2, 1e-6 * error.var()))
    spread, log_size = fit(size, {"objective": "regression"})
    z = error * np.exp(-0.5 * log_size[:, 0])
    df = max(FREEDOMS, key=lambda df: log_density(z, df).mean())
    scale = scale_of(z, df)

    def predict(asked: Asked) -> Said:
        features = seen_by(asked)
        flat = features.reshape(-1, features.shape[-1])
        found = [
            np.asarray(m.predict(flat)).reshape(features.shape[:2]) for m in (location, spread)
        ]
        return Said(found[0], scale * np.exp(0.5 * found[1]), df)

    return predict


PEERS = {"MixedLM": mixed_lm, "GPBoost": gp_boost, "LightGBM": light_gbm}


def judged(prior, path, tasks: dict, seed: int, units, grouped) -> tuple[dict, dict]:
    """Statistics of every peer on the tasks, `[K][name]`, and the seconds of each fit."""
    import equinox as eqx
    import jax
    import jax.random as jr

    from metaprior.evaluation.evaluate import evaluate
    from metaprior.heads import Categorical, StudentT
    from metaprior.tables.baselines import Fixed
    from metaprior.tables.groups import sorted_groups

    trained = prior.trained
    table = prior.rows(path, "table")
    group, order = sorted_groups(table.frame, trained.info["task"], table.where)
    x, y = trained.encode(table)[order].astype(float), trained.outcomes(table)[order, 0]
    pooled = max(trained.classes, 1)
    here = ~np.isin(group, trained.held.group)
    _, number = np.unique(group[here], return_inverse=True)
    rows = Rows(x[here, :-pooled], y[here].astype(float), number, trained.classes)

    statistics: dict = {K: {} for K in tasks}
    seconds = {}
    for name, fit in PEERS.items():
        if name == "MixedLM" and rows.classes:
            continue
        began = time.monotonic()
        predict = fit(rows)
        seconds[name] = time.monotonic() - began
        if predict is None:
            continue
        head = Categorical(rows.classes) if rows.classes else StudentT(1, 1e-6, 2.01)
        changed = {}
        for K, some in tasks.items():
            arrays = (some.support.x, some.support.y, some.support.mask, some.query.x)
            sx, sy, seen, new = (np.asarray(a) for a in arrays)
            asked = Asked(sx[..., :-pooled], sy[..., 0], seen, new[..., :-pooled])
            said = predict(Asked(*(a.astype(float) for a in asked[:2]), *asked[2:]))
            raw = np.asarray(said.location if rows.classes else head.raw(*_above(said, head)))
            # The answer itself stands in the query's columns, from where `Fixed` reads it.
            width = jax.device_put(np.zeros((*sx.shape[:2], raw.shape[-1]), np.float32))
            task = eqx.tree_at(lambda t: t.query.x, some, jax.device_put(raw.astype(np.float32)))
            changed[K] = eqx.tree_at(lambda t: t.support.x, task, width)
        zero = np.zeros(rows.classes or 3, np.float32)
        learner = Fixed(jax.device_put(zero), head, len(zero))
        found = evaluate(
            {"method": learner},
            changed,
            units=units,
            key=jr.key(seed),
            classes=rows.classes,
            grouped=grouped,
        )
        for K, some in found.statistics.items():
            statistics[K][name] = some["method"]
    return statistics, seconds


def _above(said: Said, head) -> tuple[np.ndarray, ...]:
    """Location, scale and degrees of freedom within what the head can say, `(t, n, 1)` each."""
    scale = np.maximum(said.scale, 2 * head.floor)
    df = np.full_like(scale, min(said.df, 1e4))
    return said.location[..., None], scale[..., None], df[..., None]
