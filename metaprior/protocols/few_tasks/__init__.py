"""How many training tasks does a prior take, and when does it overfit them?"""

from metaprior.methods import METHODS
from metaprior.protocols.few_tasks.data import FAMILIES, setting_of
from metaprior.protocols.few_tasks.judge import EXACT, run
from metaprior.protocols.few_tasks.pictures import draw, sentence
from metaprior.protocols.protocol import Anchor, Metric, Protocol, able

_RECALLED = (
    "Table of the paper as recalled, not checked against print; real-data rows left out. 20 tasks "
    "of 20 rows, 20 context rows."
)
_ORACLE = (
    "The family's exact posterior, computed elsewhere on 200 other tasks with 200 judged rows "
    "each; RMSE of all rows together."
)
# RMSE and calibration error on the Cauchy family with 20 training tasks.
_PACOH: dict[str, tuple[float, float | None]] = {
    "vanilla GP": (0.275, 0.087),
    "MAML": (0.219, None),
    "BMAML": (0.225, 0.061),
    "neural process": (0.224, 0.057),
    "PACOH-GP": (0.209, 0.056),
    "PACOH-NN": (0.195, 0.046),
}
# NLL, RMSE and calibration error of the exact posterior.
_EXACT: dict[str, tuple[float | None, float, float]] = {
    "PACOH sinusoid": (-0.425, 0.161, 0.100),
    "PACOH Cauchy": (None, 0.172, 0.045),
}


def _anchors() -> tuple[Anchor, ...]:
    """Published numbers, and what the exact posterior comes to."""
    rows = []
    for name, published in _PACOH.items():
        found = dict(zip(("rmse", "calibration"), published))
        rows.append((f"{name} (recalled)", "PACOH Cauchy", found, _RECALLED))
    for family, computed in _EXACT.items():
        found = dict(zip(("nll", "rmse", "calibration"), computed))
        rows.append(("exact, computed before", family, found, _ORACLE))
    return tuple(
        Anchor(name, setting_of(family, 20), metric, value, source)
        for name, family, found, source in rows
        for metric, value in found.items()
        if value is not None
    )


LEAD = (
    "A prior learned from a handful of tasks can fit those tasks and mislead on the next one. Each "
    "method is trained on fixed sets of 1 to 1000 tasks; larger sets hold the smaller ones. It is "
    "judged on its own training tasks and on new ones. The exact posterior knows the family: no "
    "number of tasks can beat it."
)
CHOICES = (
    "Training tasks keep their rows: 5 (PACOH sinusoid) or 20 (Cauchy; sine or line). Each draw "
    "deals a task's rows anew into support and query. The number of support rows is uniform from 0 "
    "to all but one.",
    "Train NLL and test NLL are of rows dealt in that same way, from the training tasks and from "
    "new tasks of as many rows. NLL, RMSE and calibration error are PACOH's meta-test: new tasks "
    "with 5 (sinusoid, sine or line) or 20 (Cauchy) observed rows, judged on 50 others (200 in "
    "the paper, 60 with --budget full).",
    "The sizes are trained side by side, from the same initial weights and for the same number of "
    "steps. There is no early stopping, so that overfitting shows. x and y are in units of the "
    "training rows; figures are in the family's units.",
    "RMSE and calibration error are means over tasks. The latter is the mean |share - level| over "
    "20 quantile levels from 0.05 to 0.95 in each task (PACOH's code for networks). Rows are "
    "finitely many and correlated, so even the exact posterior's error is above 0.",
    "Entropy: of p(φ | θ), divided by the number of weights, in nats. Only methods whose prior is "
    "a diagonal normal have one.",
    "Standard errors are over the tasks that are judged. Which tasks were trained on matters more "
    "where they are few, and each seed draws others: with --seeds the spread between seeds counts "
    "where it is larger.",
    "PACOH's own numbers were trained for 20 to 40 thousand steps.",
)

PAPERS = (
    'Rothfuss, Fortuin, Josifoski & Krause, "PACOH: Bayes-Optimal Meta-Learning with '
    'PAC-Guarantees", ICML 2021',
    'Yin, Tucker, Zhou, Levine & Finn, "Meta-Learning without Memorization", ICLR 2020',
)
METRICS = {
    "train_nll": Metric("train NLL", "nats a row, the tasks that were trained on", "low"),
    "test_nll": Metric("test NLL", "nats a row, new tasks of the same size", "low"),
    "nll": Metric("NLL", "nats a row, PACOH's meta-test", "low"),
    "rmse": Metric("RMSE", "units of y, PACOH's meta-test", "low"),
    "calibration": Metric(
        "calibration error", "mean gap over 20 quantile levels, PACOH's meta-test", "low"
    ),
    "entropy": Metric("entropy of the prior", "nats a weight", None),
}
BUDGETS = {
    "quick": {
        "sizes": [1, 2, 5, 10, 20, 50, 100, 1000],
        "families": ["PACOH sinusoid", "PACOH Cauchy"],
        "steps": 1_500,
        "batch": 4,
        "tasks": 80,
        "query": 50,
        "samples": 24,
    },
    "full": {
        "sizes": [1, 2, 5, 10, 20, 50, 100, 1000],
        "families": list(FAMILIES),
        "steps": 20_000,
        "batch": 4,
        "tasks": 200,
        "query": 60,
        "samples": 100,
    },
}

PROTOCOL = Protocol(
    name="few-tasks",
    title="How many tasks make a prior",
    lead=LEAD,
    papers=PAPERS,
    choices=CHOICES,
    metrics=METRICS,
    methods=("maml", "platipus", "process"),
    able=tuple(
        n for n in able("numbers", but=("ensemble", "stack", "nuts", "bnn")) if METHODS[n].trainable
    ),
    budgets=BUDGETS,
    without={
        "ensemble": "several emaml, which runs by itself",
        "nuts": "samples for minutes a task, at every number of tasks",
        "bnn": "learns nothing from other tasks",
    },
    run=run,
    draw=draw,
    references=(EXACT,),
    anchors=_anchors(),
    sentence=sentence,
)
