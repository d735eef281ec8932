"""Classes from one or a few images: Omniglot's episodes, Lake's one-shot runs, or a user's own
folders.
"""

import functools
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np

from metaprior.evaluation import calibration
from metaprior.heads import Categorical
from metaprior.images.tree import resize
from metaprior.method import Spec
from metaprior.methods import METHODS
from metaprior.methods.embedded import Embedded
from metaprior.nets.conv import Conv4
from metaprior.protocols.few_shot_data import MINIMAL, Pictures, Runs, load, reads
from metaprior.protocols.few_shot_pictures import GUESSING, draw, sentence
from metaprior.protocols.protocol import Anchor, Figure, Metric, Outcome, Protocol, able
from metaprior.sources.episodes import Episodes
from metaprior.tables.baselines.hausdorff import distances
from metaprior.task import Data, Task
from metaprior.training import fit

HAUSDORFF = "hausdorff"
TEST_KEY, VALIDATION_KEY = 90210, 555  # tasks that are judged on, and those that choose the step
CHUNK = 20  # tasks in one call
BLACK = (
    "recurrent",
    "snail",
    "cnp",
    "acnp",
    "np",
    "anp",
    "flow_np",
)  # see images through `Embedded`
TUNED: dict[str, dict[str, Any]] = {
    "protonet": {"embedding": 64, "pseudo_count": 0.0},
    "matching": {"embedding": 64, "pseudo_count": 0.0},
    "versa": {"features": 64, "samples": 10},
}
# Steps of a method relative to those of the budget: a step with an inner loop costs more.
SHARE = {
    "maml": 0.4,
    "emaml": 0.1,
    "llama": 0.2,
    "abml": 0.1,
    "vampire": 0.1,
    "bmaml": 0.1,
    "platipus": 0.1,
}


def title(way: int, shot: int) -> str:
    """A setting's name."""
    return f"{way}-way {shot}-shot"


@eqx.filter_jit
def fresh(
    key: Any,
    method: str,
    size: int,
    channels: int,
    way: int,
    filters: tuple[int, ...],
    pooled: bool,
) -> Any:
    """An untrained method with an image network."""
    net = functools.partial(
        Conv4.init, size=size, channels=channels, filters=filters, pooled=pooled
    )
    spec = Spec(size * size * channels, Categorical(way), net=net)
    row = METHODS[method]
    if method in BLACK:
        return Embedded.init(spec, key=key, base=row.method, **row.options)  # ty: ignore[invalid-argument-type]
    hyper = dict(TUNED.get(method, {}))
    if method == "maml":  # Finn et al.'s rates for 5 and 20 classes, from which it learns its own
        hyper = {"inner_lr": jnp.asarray(0.4 if way <= 5 else 0.1)}
    return row.init(spec, key=key, **hyper)


def sized(data: Pictures, side: int) -> Pictures:
    """Images no larger than the budget has time for."""
    if data.images.pixels.shape[1] <= side:
        return data
    pixels = np.stack([resize(image, side) for image in data.images.pixels])
    return replace(data, images=replace(data.images, pixels=pixels))


def episodes(
    data: Pictures, part: np.ndarray, way: int, shot: int, query: int, **more: Any
) -> Episodes:
    """Tasks of some classes; as many query images as every class of them has, at most `query`."""
    images = data.images
    label = np.where(np.isin(images.label, part), images.label, -1)
    groups = np.unique(images.group, return_inverse=True)[1]
    count = np.bincount(images.label, minlength=len(images.names))[part]
    query = int(min(query, max(1, np.sort(count)[::-1][: max(way, len(part) // 2)].min() - shot)))
    source = functools.partial(
        Episodes.of,
        images.pixels,
        label,
        way=way,
        shot=shot,
        query=query,
        group=groups[images.label],
    )
    return source(rotations=data.rotations, **more)


def train(
    method: str,
    seed: int,
    data: Pictures,
    parts,
    way: int,
    options: dict[str, Any],
    tell,
    lake: bool,
):
    """One network for tasks of `way` classes and one image each, its step chosen on held-out
    classes.
    """
    keys = jr.split(jr.key(seed), 2)
    steps = max(20, round(options["lake_steps" if lake else "steps"] * SHARE.get(method, 1.0)))
    learn, hold = parts
    more: dict[str, Any] = {"padded": len(data.images.names)}
    if data.runs is not None:  # arrays, so that all trainings are one program
        more |= {
            "affine": jnp.asarray(1.0 if lake else options["affine"]),
            "within": jnp.asarray(0.5 if lake else 0.0),
        }
    source = episodes(data, learn, way, 1, options["train_query"], **more)
    held = episodes(data, hold, min(way, len(hold) * (4 if data.rotations else 1)), 1, 2, slots=way)
    validation = draw_tasks(held, jr.key(VALIDATION_KEY), options["validation"])
    shape = data.images.pixels.shape
    learner = fresh(
        keys[0], method, shape[1], shape[3], way, tuple(options["filters"]), options["pooled"]
    )

    def progress(done, of, loss):
        return tell(done / of, f"training, loss {loss:.3f}")

    batch = options["batch"] * (4 if way <= 5 else 1)
    fitted = fit(
        learner,
        source,
        key=keys[1],
        steps=steps,
        batch=batch,
        at_once=1,
        every=max(1, steps // 10),
        validation=validation,
        learning_rate=options["learning_rate"],
        progress=progress,
    )
    facts = {
        "steps": fitted.steps,
        "step chosen": int(fitted.state.best_step),
        "seconds": round(fitted.seconds, 1),
    }
    return fitted.method, facts | {"training": fitted.outcome}


@eqx.filter_jit
def _judge(learner, tasks: Task, key, samples: int, slots: int):
    def one(pair):
        task, k = pair
        keys = jr.split(k)
        posterior = learner.posterior(task.support, key=keys[0])
        p = posterior.predict(task.query.x, key=keys[1], samples=samples).mean()
        shown = (
            jax.nn.one_hot(task.support.y[:, 0].astype(int), slots) * task.support.mask[:, None]
        ).sum(0) > 0
        p = jnp.where(shown, p, 0.0)
        return p / jnp.maximum(p.sum(-1, keepdims=True), 1e-30)

    return jax.lax.map(one, (tasks, jr.split(key, tasks.support.x.shape[0])))


def judge(
    learner, tasks: Task, seed: int, samples: int, slots: int, rows: tuple[int, int]
) -> np.ndarray:
    """Probabilities of the classes that the support shows, renormalised, `(t, n, slots)`.

    Support and query are padded to `rows` and tasks to multiples of `CHUNK`: one program for all
    settings.
    """
    count, n = tasks.query.mask.shape

    def longer(data, size):
        def more(a):
            return np.pad(
                a, [(0, -count % CHUNK), (0, size - a.shape[1])] + [(0, 0)] * (a.ndim - 2)
            )

        return jax.tree.map(more, jax.device_get(data))

    tasks = Task(longer(tasks.support, rows[0]), longer(tasks.query, rows[1]))
    found = []
    for start in range(0, count, CHUNK):
        part = jax.tree.map(lambda a: jnp.asarray(a[start : start + CHUNK]), tasks)
        found.append(np.asarray(_judge(learner, part, jr.key(seed + start), samples, slots)))
    return np.concatenate(found)[:count, :n]


@eqx.filter_jit
def draw_tasks(source: Episodes, key, count: int) -> Task:
    """`count` tasks on a leading axis."""
    return jax.vmap(source)(jr.split(key, count))


def run_tasks(runs: Runs) -> Task:
    """Lake's runs as tasks."""
    count, way = runs.answer.shape

    def row(images):
        return jnp.asarray(images.reshape(count, way, -1), jnp.float32) / 255

    def y(classes):
        return jnp.asarray(classes, jnp.float32)[..., None]

    mask = jnp.ones((count, way), bool)
    names = np.broadcast_to(np.arange(way), (count, way))
    return Task(
        Data(row(runs.support), y(names), mask), Data(row(runs.query), y(runs.answer), mask)
    )


def measure(
    setting: str, p: np.ndarray, y: np.ndarray
) -> tuple[list[Figure], dict[str, np.ndarray]]:
    """Figures and rows of one setting, from probabilities `(t, n, c)` and classes `(t, n)`."""
    t, n, c = p.shape
    true = np.take_along_axis(p, y[..., None], 2)[..., 0]
    hit = p.argmax(-1) == y
    nll = -np.log(np.maximum(true, 1e-12))
    pooled = calibration.ece(p.reshape(-1, c), y.ravel())
    rng = np.random.default_rng(0)
    again = [rng.integers(0, t, t) for _ in range(100)]
    spread = (
        np.std([calibration.ece(p[i].reshape(-1, c), y[i].ravel()) for i in again], ddof=1)
        if t > 1
        else None
    )
    figures = [
        Figure.of(setting, "accuracy", hit.mean(1)),
        Figure.of(setting, "nll", nll.mean(1)),
        Figure(setting, "ece", pooled, None if spread is None else float(spread), t),
        Figure(
            setting,
            "ece_calibrated",
            *calibration.if_calibrated(calibration.ece, p.reshape(-1, c)),
            t,
        ),
    ]

    def row(v):
        return np.broadcast_to(v, (t, n)).ravel()

    columns = {
        "setting": np.full(t * n, setting),
        "task": row(np.arange(t)[:, None]),
        "row": row(np.arange(n)),
        "y": y.ravel(),
        "predicted": p.argmax(-1).ravel(),
        "nll": nll.ravel(),
    }
    return figures, columns | {f"p_{k}": p[..., k].ravel().astype(np.float32) for k in range(c)}


def runs_figures(name: str, wrong: np.ndarray) -> list[Figure]:
    """Share of wrong answers, with the standard error over runs."""
    return [Figure.of(f"20 runs, {name}", "error", wrong.mean(1))]


def guess(options: dict[str, Any], data: Pictures) -> Outcome:
    """What giving every class the same probability comes to, in every setting."""
    figures = []
    for way, shot in data.settings:
        setting = f"{data.name}, {title(way, shot)}"
        figures += [
            Figure(setting, "accuracy", 1 / way),
            Figure(setting, "nll", float(np.log(way))),
        ]
    if data.runs is not None:
        for name in (b for b in options["backgrounds"] if b in data.parts):
            figures += [
                Figure(f"20 runs, {name}", "error", 0.95),
                Figure(f"20 runs, {name}", "nll", float(np.log(20))),
            ]
    return Outcome(figures, {})


def run(method: str, seed: int, options: dict[str, Any], data: Pictures, tell) -> Outcome:
    """Train and judge one method."""
    if method == HAUSDORFF:
        return hausdorff(data, tell)
    if method == GUESSING:
        return guess(options, data)
    data = sized(data, options["side"])
    data = replace(data, rotations=data.rotations or options.get("rotate_own", False))
    found: dict[str, dict[str, np.ndarray]] = {}
    figures, facts, drawing = [], {}, {}
    ways = sorted({way for way, _ in data.settings})
    ways = ways if options["every_way"] else ways[-1:]
    runs = data.runs
    backgrounds = [b for b in options["backgrounds"] if b in data.parts] if runs is not None else []
    share, done = 1 / (len(ways) + len(backgrounds)), 0
    most = max(w for w, _ in data.settings)
    rows = (max(w * k for w, k in data.settings), max(20, options["query"] * most))

    def part(x, what):
        return tell((done + x) * share, what)

    remarks = list(data.remarks)
    for at in ways:
        parts = (data.parts["train"], data.parts["val"])
        learner, facts[f"{at}-way"] = train(method, seed, data, parts, at, options, part, False)
        done += 1
        for way, shot in data.settings:
            if at != min(w for w in ways if w >= way):
                continue
            setting = f"{data.name}, {title(way, shot)}"
            tell(done * share, f"judging {setting}")
            source = episodes(data, data.parts["test"], way, shot, options["query"], slots=at)
            few = len(data.parts["test"]) - len(source.count)
            if few:
                remarks.append(
                    f"{setting}: {few} class{'es' * (few > 1)} with fewer than {shot + source.query} images left out"
                )
            tasks = draw_tasks(source, jr.key(TEST_KEY + 10 * way + shot), options["tasks"])
            p = judge(learner, tasks, TEST_KEY, options["samples"], at, rows)
            y = np.asarray(tasks.query.y[..., 0]).astype(int)
            p, y, names = compact(p, y, np.asarray(tasks.support.y[..., 0]).astype(int))
            new, found[setting] = measure(setting, p, y)
            figures += new
            drawing |= reliability(setting, p, y)
            if not any(k.startswith("example") for k in drawing):
                drawing |= example(tasks, p, y, names, data)
    minimal = []
    for name in backgrounds:
        classes = data.parts[name]
        held = classes[
            np.random.default_rng(seed).permutation(len(classes))[: max(6, len(classes) // 8)]
        ]
        parts = (np.setdiff1d(classes, held), held)
        learner, facts[name] = train(method, seed, data, parts, 20, options, part, True)
        done += 1
        tasks = run_tasks(runs)  # ty: ignore[invalid-argument-type]
        p = judge(learner, tasks, TEST_KEY, options["samples"], 20, rows)
        y = np.asarray(tasks.query.y[..., 0]).astype(int)
        new, found[name] = measure(f"20 runs, {name}", p, y)
        wrong = (p.argmax(-1) != y).astype(float)
        figures += [*runs_figures(name, wrong), *new[1:]]
        drawing |= {f"wrong {name}": wrong.mean(1)} | reliability(f"20 runs, {name}", p, y)
        minimal += [wrong] if name in MINIMAL else []
    if len(minimal) == len(MINIMAL):
        figures += runs_figures("mean of small1 and small2", np.mean(minimal, axis=0))
    columns = {k for rows in found.values() for k in rows}

    def filled(rows, k):
        return rows[k] if k in rows else np.full(len(rows["y"]), np.nan, np.float32)

    predictions = {
        k: np.concatenate([filled(rows, k) for rows in found.values()]) for k in sorted(columns)
    }
    note = "; ".join(remarks)
    return Outcome(figures, predictions, drawing, note, facts)


def compact(p: np.ndarray, y: np.ndarray, names: np.ndarray):
    """Classes 0 … way - 1 in the order of the support, where labels were some of more slots."""
    order = np.stack(
        [row[np.sort(np.unique(row, return_index=True)[1])] for row in names]
    )  # (t, way)
    p = np.take_along_axis(p, order[:, None, :], axis=2)
    return p, (y[..., None] == order[:, None, :]).argmax(-1), order


def reliability(setting: str, p: np.ndarray, y: np.ndarray) -> dict[str, np.ndarray]:
    """Bins of the most probable class: rows, stated, came true."""
    confidence, hit = calibration.top(p.reshape(-1, p.shape[-1]), y.ravel())
    return {f"bins {setting}": np.stack(calibration.equal_width(confidence, hit))}


def example(tasks: Task, p, y, names, data: Pictures) -> dict[str, np.ndarray]:
    """One task: an image of each class, and the query images whose prediction is least certain."""
    t = int(np.argmin(p.max(-1).mean(1)))  # of the tasks the hardest
    shape = data.images.pixels.shape[1:]
    support = np.asarray(tasks.support.x[t]).reshape(-1, *shape)
    first = [
        int(np.flatnonzero(np.asarray(tasks.support.y[t, :, 0]).astype(int) == name)[0])
        for name in names[t]
    ][:5]
    shown = np.flatnonzero(y[t] < 5)
    shown = shown[np.argsort(p[t][shown].max(-1))][:6]
    query = np.asarray(tasks.query.x[t]).reshape(-1, *shape)
    return {
        "example support": support[first],
        "example query": query[shown],
        "example p": p[t][shown][:, :5],
        "example y": y[t][shown],
    }


def hausdorff(data: Pictures, tell) -> Outcome:
    """No learning: the class whose drawing is nearest in the modified Hausdorff distance."""
    if data.runs is None:
        return Outcome([], {}, note="needs Lake's runs, which are not among these images")
    guesses = []
    for i, (support, query) in enumerate(zip(*data.runs.full)):
        tell(i / len(data.runs.answer), "comparing drawings")
        guesses.append(distances(query, support).argmin(1))
    guess, answer = np.array(guesses), data.runs.answer
    wrong = (guess != answer).astype(float)
    rows = np.indices(answer.shape)
    columns = {
        "setting": np.full(answer.size, "20 runs, no background"),
        "task": rows[0].ravel(),
        "row": rows[1].ravel(),
        "y": answer.ravel(),
        "predicted": guess.ravel(),
    }
    return Outcome(
        runs_figures("no background", wrong), columns, {"wrong no background": wrong.mean(1)}
    )


_LAKE = "Lake, Salakhutdinov & Tenenbaum, Science 2015"
_SNELL = "Snell et al. 2017, table 1: 60-way training, 1200 characters; here the later split of 1028, 172 and 423"
_RUNS = {
    ("people", "original"): 0.045,
    ("Bayesian program learning", "original"): 0.033,
    ("convolutional network", "original"): 0.135,
    ("hierarchical deep model", "original"): 0.348,
    ("Bayesian program learning", "small1"): 0.043,
    ("Bayesian program learning", "small2"): 0.040,
    ("convolutional network", "small1"): 0.240,
    ("convolutional network", "small2"): 0.223,
    ("modified Hausdorff distance", "no background"): 0.388,
    ("Bayesian program learning", "mean of small1 and small2"): 0.042,
    ("convolutional network", "mean of small1 and small2"): 0.232,
}
_ROWS = {
    "ProtoNet (Snell et al. 2017)": ((0.988, 0.997, 0.960, 0.989), _SNELL),
    "Matching Nets (Vinyals et al. 2016)": (
        (0.981, 0.989, 0.938, 0.985),
        "Vinyals et al. 2016, table 1, no fine-tuning",
    ),
    "MAML (Finn et al. 2017)": (
        (0.987, 0.999, 0.958, 0.989),
        "recalled: Finn et al. 2017, table 1",
    ),
}
PROTOCOL = Protocol(
    name="few-shot-images",
    title="A class from one image",
    lead=(
        "A task shows one or five images of each of a few classes that were never seen in training, and asks which class "
        "further images are of. Episodes of Omniglot characters are nearly solved; Lake's twenty runs, one alphabet and "
        "two drawers each, are not, least of all after training on five alphabets. With --data the same is done "
        "for your own folders of images, one folder a class."
    ),
    papers=(
        'Vinyals, Blundell, Lillicrap, Kavukcuoglu & Wierstra, "Matching Networks for One Shot Learning", NeurIPS 2016',
        'Snell, Swersky & Zemel, "Prototypical Networks for Few-shot Learning", NeurIPS 2017',
        'Lake, Salakhutdinov & Tenenbaum, "Human-Level Concept Learning through Probabilistic Program Induction", Science 2015',
        'Lake, Salakhutdinov & Tenenbaum, "The Omniglot Challenge: a 3-Year Progress Report", 2019',
    ),
    choices=(
        "Episodes of Omniglot: characters of all alphabets together, split 1028, 172 and 423 (Vinyals), turned by 90, 180 and 270 "
        "degrees as further classes, in training and in the test; 28 x 28 pixels by averages over boxes. Of your own folders: "
        "classes split as the notes say, never turned unless rotate_own=true is set, which makes turned classes further classes "
        "there as well.",
        "Network: Conv4 with 32, 64, 64 and 64 filters and group normalisation over each image by itself: no statistics of a batch, so that query "
        "images do not see one another. quick halves images by strides, full by max-pools.",
        "quick trains one network on 20-way 1-shot tasks and uses it for every setting, full one for each number of classes; five shots "
        "are given to the network that was trained with one. Labels are then some of the network's classes, and "
        "probabilities those of the classes that the support shows, renormalised.",
        "The step is chosen on held-out classes: those for validation, where there are any; for Lake's runs an eighth of the background "
        "characters, which are left out of the training. The runs are judged once, at the end.",
        "For Lake's runs half of the training tasks are within one alphabet, and images are turned, sheared, scaled and "
        "moved a little at random (Koch et al. 2015). No ensemble, nothing at test time; each of a run's 20 drawings is "
        "classified by itself.",
        "ECE: most probable class, 15 equal bins, rows of all tasks pooled, no temperature; its standard error is a bootstrap over tasks. "
        "Beside it what is expected were the method calibrated: labels drawn from its own probabilities, 50 times.",
        "“guessing” gives every class the same probability: exact, with any images.",
        "A network with an inner loop trains for fewer steps (MAML 40 %, others 10 to 20 %), as its steps cost more.",
    ),
    metrics={
        "accuracy": Metric("accuracy", "share of query images", "high"),
        "error": Metric("error", "share of the 400 drawings of the runs", "low"),
        "nll": Metric("NLL", "nats an image", "low"),
        "ece": Metric("ECE", "mean |stated - came true|", "low"),
        "ece_calibrated": Metric(
            "ECE, were it calibrated",
            "expected of as many images, labels drawn from its own probabilities",
            None,
        ),
    },
    methods=("protonet", "maml", "versa"),
    able=able("classes", but=("ar_cnp", "ensemble", "stack", "process", "nuts", "bnn")),
    budgets={
        "quick": {
            "steps": 500,
            "affine": 0.0,
            "lake_steps": 250,
            "every_way": False,
            "rotate_own": False,
            "backgrounds": ["small1", "small2"],
            "filters": [32, 64, 64, 64],
            "pooled": False,
            "side": 32,
            "batch": 1,
            "learning_rate": 2e-3,
            "train_query": 3,
            "validation": 10,
            "tasks": 100,
            "query": 2,
            "samples": 10,
        },
        "full": {
            "steps": 10_000,
            "affine": 0.0,
            "lake_steps": 4000,
            "every_way": True,
            "rotate_own": False,
            "backgrounds": ["original", "small1", "small2"],
            "filters": [32, 64, 64, 64],
            "pooled": True,
            "side": 84,
            "batch": 1,
            "learning_rate": 2e-3,
            "train_query": 4,
            "validation": 40,
            "tasks": 600,
            "query": 5,
            "samples": 32,
        },
    },
    without={
        "ar_cnp": "a pass of the network an image",
        "ensemble": "several emaml, which runs by itself",
        "process": "reads columns of a table by kernels, without a network for images",
        **dict.fromkeys(
            ("nuts", "bnn"), "fit all weights of a convolutional network for each task"
        ),
    },
    run=run,
    draw=draw,
    references=(GUESSING, HAUSDORFF),
    anchors=(
        *(
            Anchor(f"{name} (Lake et al. 2015)", f"20 runs, {where}", "error", value, _LAKE)
            for (name, where), value in _RUNS.items()
        ),
        Anchor(
            "ProtoNet (Lake et al. 2019)",
            "20 runs, original",
            "error",
            0.137,
            "recalled: Lake et al. 2019, table 1",
        ),
        *(
            Anchor(name, f"Omniglot, {title(*at)}", "accuracy", value, source)
            for name, (values, source) in _ROWS.items()
            for at, value in zip(((5, 1), (5, 5), (20, 1), (20, 5)), values)
        ),
    ),
    load=load,
    reads=reads,
    sentence=sentence,
)
