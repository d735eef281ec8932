"""Whether stated probabilities come true, of numbers and of classes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from metaprior.errors import InputError
from metaprior.evaluation import calibration
from metaprior.heads import Categorical, Gaussian
from metaprior.method import AbstractLearner, Spec
from metaprior.mixture import Mixture, Part, crps
from metaprior.protocols.characters import BlobLearner, Blobs, Drawings, FewShot, read
from metaprior.protocols.protocol import (
    Anchor,
    Figure,
    Metric,
    Outcome,
    Protocol,
    Tell,
    able,
    trained,
)
from metaprior.protocols.reliability_pictures import draw
from metaprior.sources import GP, SineLine
from metaprior.sources.exact import Known

EXACT = "exact posterior"
LINES, GAUSSIAN, CHARACTERS, BLOBS = (
    "sine or line",
    "Gaussian process",
    "Omniglot",
    "normal classes",
)
WAY, SHOT, QUERY = 5, 5, 5
QUANTILES = (0.05, 0.5, 0.95)
ATOMS = 20  # quantiles of a component for the CRPS, within 1e-3 of its scale
KEPT = 256  # components of an exact mixture of thousands


def thinned(mixture: Mixture, most: int) -> Mixture:
    """The `most` heaviest components, where there are more and all parts share a head."""
    weights = jnp.concatenate([p.log_weight for p in mixture.parts])
    if len(weights) <= most:
        return mixture
    log_weight, kept = jax.lax.top_k(weights, most)
    params = jnp.concatenate([p.params for p in mixture.parts])[kept]
    return Mixture((Part(mixture.parts[0].head, params, log_weight),))


@eqx.filter_jit
def judge_numbers(
    learner: AbstractLearner, source: Any, keys, samples: int
) -> dict[str, jax.Array]:
    """Per-row figures of one task a key, `(t, q)`; quantiles `(t, 3, q)`."""

    def one(key):
        task = source(key)
        y = task.query.y
        posterior = learner.posterior(task.support, key=jr.fold_in(key, 1))
        mixture = posterior.predict(task.query.x, key=jr.fold_in(key, 2), samples=samples)
        nll, mean = -mixture.log_prob(y), mixture.mean()[:, 0]
        mixture = thinned(mixture, KEPT)
        quantiles = jax.vmap(mixture.quantile)(jnp.asarray(QUANTILES))[..., 0]
        return {
            "y": y[:, 0],
            "nll": nll,
            "mean": mean,
            "pit": mixture.cdf(y)[:, 0],
            "crps": crps(*mixture.atoms(ATOMS), y),
            "quantiles": quantiles,
        }

    return jax.lax.map(one, keys, batch_size=8)


@eqx.filter_jit
def judge_classes(
    learner: AbstractLearner, source: FewShot, keys, samples: int
) -> dict[str, jax.Array]:
    """Probabilities of query rows `(t, q, c)`, in and out of the episode, and the classes of the
    former.
    """

    def one(key):
        task, outside = source.beside(key)
        posterior = learner.posterior(task.support, key=jr.fold_in(key, 1))
        x = jnp.concatenate([task.query.x, outside])
        p = posterior.predict(x, key=jr.fold_in(key, 2), samples=samples).mean()
        n = len(task.query.x)
        return {"p": p[:n], "outside": p[n:], "y": task.query.y[:, 0]}

    return jax.lax.map(one, keys, batch_size=16)


def _pooled(
    setting: str, metric: str, figure: Callable, *arrays: np.ndarray, repeats: int = 100
) -> Figure:
    """`figure` of rows pooled over tasks; its standard error by resampling tasks. Arrays are `(t,
    q, …)`.
    """
    tasks, rng = len(arrays[0]), np.random.default_rng(0)

    def join(index):
        return [a[index].reshape(-1, *a.shape[2:]) for a in arrays]

    draws = [figure(*join(rng.integers(tasks, size=tasks))) for _ in range(repeats)]
    return Figure(
        setting, metric, float(figure(*join(np.arange(tasks)))), float(np.std(draws, ddof=1)), tasks
    )


# Figures of pooled rows in bins: never 0 on finitely many rows, even when every probability comes
# true.
BINNED: dict[str, Callable] = {
    "ece15": lambda p, y: calibration.ece(p, y, 15),
    "ece10": lambda p, y: calibration.ece(p, y, 10),
    "mce15": lambda p, y: calibration.mce(p, y, 15),
    "mce15_10": lambda p, y: calibration.mce(p, y, 15, least=10),
    "adaptive15": lambda p, y: calibration.adaptive_ece(p, y, 15),
    "class_adaptive15": lambda p, y: calibration.class_adaptive_ece(p, y, 15),
}


def if_calibrated(setting: str, metric: str, p: np.ndarray) -> Figure:
    """What `metric` is expected to be were these probabilities right."""
    expected = calibration.if_calibrated(BINNED[metric], p.reshape(-1, p.shape[-1]))
    return Figure(setting, f"{metric}_calibrated", *expected, len(p))


def number_figures(setting: str, rows: dict[str, np.ndarray]) -> list[Figure]:
    """Of one setting with numbers."""
    low, high = rows["quantiles"][:, 0], rows["quantiles"][:, -1]

    def of(metric, values):
        return Figure.of(setting, metric, values.mean(1))

    pit = rows["pit"]
    return [
        of("nll", rows["nll"]),
        _pooled(setting, "calibration", calibration.quantile_error, pit),
        _pooled(
            setting, "calibration_rms", lambda u: calibration.quantile_error(u, kind="rms"), pit
        ),
        of("coverage90", (pit >= 0.05) & (pit <= 0.95)),
        of("width90", high - low),
        of("interval90", calibration.interval_score(low, high, rows["y"], 0.9)),
        of("crps", rows["crps"]),
    ]


def class_figures(setting: str, p: np.ndarray, y: np.ndarray, outside: np.ndarray) -> list[Figure]:
    """Of one setting with classes: `p` `(t, q, c)`, `y` `(t, q)`, `outside` `(t, q, c)`."""
    inside_h, outside_h = calibration.entropy(p), calibration.entropy(outside)

    def rows(metric):
        return _pooled(setting, metric, BINNED[metric], p, y)

    came = np.take_along_axis(p, y[..., None], -1)[..., 0]
    return [
        Figure.of(setting, "nll", -np.log(np.maximum(came, 1e-300)).mean(1)),
        Figure.of(setting, "accuracy", (p.argmax(-1) == y).mean(1)),
        *(
            figure
            for metric in BINNED
            for figure in (rows(metric), if_calibrated(setting, metric, p))
        ),
        Figure.of(setting, "brier", ((p - np.eye(p.shape[-1])[y]) ** 2).sum(-1).mean(1)),
        Figure.of(setting, "entropy_in", inside_h.mean(1)),
        Figure.of(setting, "entropy_out", outside_h.mean(1)),
        _pooled(setting, "auroc", calibration.auroc, inside_h, outside_h),
    ]


def _number_columns(setting: str, rows: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    t, q = rows["y"].shape
    columns = {
        "setting": np.full(t * q, setting),
        "task": np.repeat(np.arange(t, dtype=np.int32), q),
        "row": np.tile(np.arange(q, dtype=np.int32), t),
        "inside": np.ones(t * q, bool),
    }
    columns |= {k: rows[k].ravel().astype(np.float32) for k in ("y", "nll", "mean", "pit", "crps")}
    return columns | {
        f"q{round(100 * level):02d}": rows["quantiles"][:, i].ravel().astype(np.float32)
        for i, level in enumerate(QUANTILES)
    }


def _class_columns(
    setting: str, p: np.ndarray, y: np.ndarray, inside: bool
) -> dict[str, np.ndarray]:
    t, q, c = p.shape
    columns = {
        "setting": np.full(t * q, setting),
        "task": np.repeat(np.arange(t, dtype=np.int32), q),
        "row": np.tile(np.arange(q, dtype=np.int32), t),
        "inside": np.full(t * q, inside),
    }
    columns |= {"y": y.ravel().astype(np.float32)}
    return columns | {f"p_{k}": p[..., k].ravel().astype(np.float32) for k in range(c)}


def _joined(tables: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """One table; columns that a part has not are NaN there."""
    names = list(dict.fromkeys(name for table in tables for name in table))

    def size(table):
        return len(table["y"])

    def absent(table):
        return np.full(size(table), np.nan, np.float32)

    return {
        name: np.concatenate([t[name] if name in t else absent(t) for t in tables])
        for name in names
    }


def _sources(options: dict[str, Any], data: Any) -> dict[str, tuple]:
    """Setting -> (training source, test source, validation source or `None`, spec)."""
    found: dict[str, tuple] = {
        LINES: (SineLine(support=5), SineLine(support=5, query=25), None, Spec(1, Gaussian(1))),
        GAUSSIAN: (GP(query=25), GP(query=25), None, Spec(1, Gaussian(1))),
    }

    def few(domain):
        return FewShot(domain, WAY, SHOT, QUERY)

    if data is not None:
        parts = [few(Drawings(jnp.asarray(data[k]))) for k in ("train", "test", "validation")]
        found[CHARACTERS] = (*parts, Spec(data["train"].shape[-1], Categorical(WAY)))
    if data is None or options["blobs"]:
        blobs = few(Blobs())
        found[BLOBS] = (blobs, blobs, blobs, Spec(Blobs().dim, Categorical(WAY)))
    return found


def run(method: str, seed: int, options: dict[str, Any], data: Any, tell: Tell) -> Outcome:
    """Every setting in turn."""
    figures: list[Figure] = []
    tables: list[dict[str, np.ndarray]] = []
    drawing: dict[str, np.ndarray] = {}
    facts: dict[str, Any] = {}
    settings = {
        k: v for k, v in _sources(options, data).items() if method != EXACT or k != CHARACTERS
    }
    for i, (setting, (source, test, validation, spec)) in enumerate(settings.items()):

        def share(done, what):
            return tell((i + done) / len(settings), f"{setting}: {what}")

        if method == EXACT:
            learner: Any = BlobLearner(WAY, Blobs().spread) if setting == BLOBS else Known(test)
        else:

            def training(done, what):
                return share(0.7 * done, what)

            steps = options["steps"]["classes" if spec.head.classes else "numbers"]
            learner, facts[setting] = trained(method, spec, source, 1000 + seed, steps, training)
        share(0.7, "predicting")
        keys = jr.split(jr.fold_in(jr.key(90_001), seed), options["tasks"])
        if not spec.head.classes:
            found = judge_numbers(learner, test, keys, options["samples"])
            rows = {k: np.asarray(v, np.float64) for k, v in found.items()}
            figures += number_figures(setting, rows)
            tables.append(_number_columns(setting, rows))
            drawing[f"pit {setting}"] = calibration.pit_histogram(rows["pit"].ravel(), 20)
            continue

        def look(src, keys):
            return {
                k: np.asarray(v, np.float64)
                for k, v in judge_classes(learner, src, keys, options["samples"]).items()
            }

        rows = look(test, keys)
        y = rows["y"].astype(int)
        shown = {setting: 1.0}
        if options["temperature"]:
            held = look(validation, jr.split(jr.fold_in(jr.key(90_002), seed), options["tasks"]))
            temperature = calibration.fit_temperature(held["p"].reshape(-1, WAY), held["y"].ravel())
            facts.setdefault(setting, {})["temperature"] = temperature
            shown[f"{setting}, temperature fitted on validation tasks"] = temperature
        for name, temperature in shown.items():
            p, outside = (
                rows[k] if temperature == 1.0 else calibration.tempered(rows[k], temperature)
                for k in ("p", "outside")
            )
            figures += class_figures(name, p, y, outside)
            tables += [
                _class_columns(name, p, y, True),
                _class_columns(name, outside, np.full(outside.shape[:2], -1), False),
            ]
            bins = calibration.equal_width(*calibration.top(p.reshape(-1, WAY), y.ravel()), 15)
            drawing[f"bins {name}"] = np.stack(bins).astype(np.float64)
            edges = np.linspace(0, np.log(WAY), 31)
            both = [
                np.histogram(calibration.entropy(v), edges)[0] / v[..., 0].size
                for v in (p, outside)
            ]
            drawing[f"entropy {name}"] = np.stack(both)
    return Outcome(figures, _joined(tables), drawing, facts=facts)


def load(path: Path | None) -> dict[str, np.ndarray] | None:
    """Drawn characters from a folder with omniglot28.npz or from such a file; `None` where there is
    none.
    """
    if path is None:
        return None
    if not path.exists():
        raise InputError(f"{path}: no such file or folder.")
    found = reads(path)
    return read(found[0]) if found else None


def reads(path: Path) -> list[Path]:
    """What `load` reads."""
    file = path / "omniglot28.npz" if path.is_dir() else path
    return [file] if file.exists() else []


def sentence(cells: Sequence[Any]) -> str:
    """Who predicts best, and how far its stated probabilities are off: one that knows nothing is
    calibrated, too.
    """
    found: dict[tuple[str, str, str], list[float]] = {}
    for cell in cells:
        for f in cell.figures:
            found.setdefault((f.setting, f.metric, cell.method), []).append(f.value)
    parts = []
    for setting, metric, what in (
        (LINES, "calibration", "mean gap of quantiles"),
        (CHARACTERS, "ece15", "ECE"),
        (BLOBS, "ece15", "ECE"),
    ):
        own = {
            m: float(np.mean(v)) for (s, k, m), v in found.items() if (s, k) == (setting, metric)
        }
        exact = own.pop(EXACT, None)
        if own:
            nll = {
                m: float(np.mean(v))
                for (s, k, m), v in found.items()
                if (s, k) == (setting, "nll") and m in own
            }
            best = min(nll, key=lambda m: nll[m])
            beside = "" if exact is None else f" (exact posterior {exact:.3f})"
            parts.append(f"{setting}: {what} of {best} {own[best]:.3f}{beside}")
    return "Calibration error of the best predictions. " + "; ".join(parts) + "." if parts else ""


_QUICK = {
    "steps": {"numbers": 1_500, "classes": 600},
    "tasks": 200,
    "samples": 64,
    "temperature": False,
    "blobs": False,
}
_FULL = {
    "steps": {"numbers": 20_000, "classes": 20_000},
    "tasks": 1_000,
    "samples": 128,
    "temperature": False,
    "blobs": True,
}


def _binned_metrics() -> dict[str, Metric]:
    """Each figure of bins, and beside it what is expected of right probabilities."""
    found = {}
    for kind, label, unit in (
        ("ece15", "ECE", "top class, 15 bins of equal width"),
        ("ece10", "ECE, 10 bins", "top class, equal width"),
        ("mce15", "MCE", "top class, 15 bins, all that are not empty"),
        ("mce15_10", "MCE, 10 rows or more", "top class, 15 bins, those of at least 10 rows"),
        ("adaptive15", "adaptive ECE", "top class, 15 bins of equal mass"),
        ("class_adaptive15", "adaptive ECE of every class", "15 bins of equal mass a class"),
    ):
        found[kind] = Metric(label, unit, "low")
        drawn = "expected of as many rows, labels drawn from its own probabilities"
        found[f"{kind}_calibrated"] = Metric(f"{label}, were it calibrated", drawn, None)
    return found


_NOTHING = "Exact: a fifth for each of five classes, whatever is seen; its expected calibration error on ever more rows is 0."
_UNIFORM = {
    "nll": float(np.log(WAY)),
    "accuracy": 1 / WAY,
    "brier": 1 - 1 / WAY,
    "entropy_in": float(np.log(WAY)),
    "entropy_out": float(np.log(WAY)),
    "auroc": 0.5,
}
PROTOCOL = Protocol(
    name="reliability",
    title="Do stated probabilities come true?",
    lead=(
        "Of all rows that are given 80 %, 80 % should come true, and 90 % intervals should hold 90 % of the outcomes. Where the "
        "exact posterior is known it is the standard: it is calibrated by construction, and what it shows here is the error "
        "that this many rows leave."
    ),
    papers=(
        'Guo, Pleiss, Sun & Weinberger, "On Calibration of Modern Neural Networks", ICML 2017',
        'Nixon et al., "Measuring Calibration in Deep Learning", CVPR workshops 2019',
        'Kuleshov, Fenner & Ermon, "Accurate Uncertainties for Deep Learning Using Calibrated Regression", ICML 2018',
        'Gneiting & Raftery, "Strictly Proper Scoring Rules, Prediction, and Estimation", JASA 2007',
    ),
    choices=(
        "Query rows of all tasks are pooled before binning. Confidence is the largest probability; 15 and 10 bins (a, b] of "
        "equal width. MCE is given over all bins that are not empty, and over those of 10 rows or more.",
        "Adaptive ECE: 15 bins of equal mass, of the top class, and of every class (Nixon's ACE). Brier is summed over classes.",
        "Calibration error of numbers: mean and root mean square |share - level| over 20 quantile levels 0.05 to 0.95.",
        "Probabilities are as the methods give them, the mean over draws of the weights: no temperature. With the option "
        "`temperature` one is fitted to the nll of validation tasks and its figures stand beside, under that name.",
        "Omniglot: 5-way 5-shot, Lake's background alphabets for training (a tenth of their characters for validation), his "
        "evaluation alphabets for judging; images of 14 x 14 as 48 principal components, so that every method can read them. "
        "5 query rows a class; as many of 5 classes that are not in the episode, told apart by predictive entropy.",
        "Without data (and with --budget full) the classes are normal in 8 dimensions, where the posterior is exact.",
        "Sine or line: 5 rows, noise 0.3. Gaussian process: 0 to 10 rows, noise 0.05, length 0.25. The exact posterior of "
        "the former keeps its 256 heaviest components for quantiles and CRPS.",
        "Standard errors of pooled figures: 100 resamples of the tasks.",
        "Binned errors are not 0 even of right probabilities: beside each stands what is expected were the method calibrated, the "
        "mean over 50 sets of labels drawn from its own probabilities. What is above that is miscalibration.",
        "“knows nothing” gives each class the same probability, and its figures follow from that. Omniglot has no exact posterior.",
    ),
    metrics={
        "nll": Metric("NLL", "nats a row", "low"),
        "accuracy": Metric("accuracy", "share of rows", "high"),
        **_binned_metrics(),
        "brier": Metric("Brier score", "squared, summed over classes", "low"),
        "entropy_in": Metric("entropy in the episode", "nats", None),
        "entropy_out": Metric("entropy of other classes", "nats", None),
        "auroc": Metric("AUROC of other classes", "by predictive entropy", "high"),
        "calibration": Metric("calibration error", "mean gap over 20 quantile levels", "low"),
        "calibration_rms": Metric(
            "calibration error, rms", "root mean square gap over 20 quantile levels", "low"
        ),
        "coverage90": Metric("coverage of 90 % intervals", "share of rows", 0.9),
        "width90": Metric("width of 90 % intervals", "units of y", None),
        "interval90": Metric("interval score, 90 %", "units of y", "low"),
        "crps": Metric("CRPS", "units of y", "low"),
    },
    methods=("versa", "platipus", "np"),
    able=able("numbers", "classes", but=("ensemble", "stack", "nuts", "bnn")),
    budgets={"quick": _QUICK, "full": _FULL},
    without={
        **dict.fromkeys(("protonet", "matching"), "predict classes alone, and both are judged"),
        "alpaca": "predicts numbers alone, and both are judged",
        "ensemble": "several emaml, which runs by itself",
        **dict.fromkeys(
            ("nuts", "bnn"), "fit weights for each task, of which there are many hundreds"
        ),
    },
    run=run,
    draw=draw,
    references=(EXACT,),
    anchors=tuple(
        Anchor("knows nothing", setting, metric, value, _NOTHING)
        for setting in (CHARACTERS, BLOBS)
        for metric, value in _UNIFORM.items()
    ),
    load=load,
    reads=reads,
    sentence=sentence,
)
