"""How far from the exact posterior does each method stay?"""

from metaprior.protocols.oracles.judge import EXACT, run
from metaprior.protocols.oracles.pictures import draw, sentence
from metaprior.protocols.oracles.pointwise import BY_POINT
from metaprior.protocols.protocol import Anchor, Metric, Protocol, able

_TOY = "Closed form, variances 1; NLL of a query row (Gordon et al. 2019, the toy problem)."

_G9 = (
    "Computed before on other tasks (Harrison et al. 2018's sinusoid); ALPaCA trained for 10,000 "
    "iterations."
)

LEAD = (
    "On these sources Bayes' rule can be carried out exactly. So a method's distance from the best "
    "possible prediction is known: a KL divergence in nats a query row, for each row by itself and "
    "for all query rows together."
)
CHOICES = (
    "Every method has its default settings. Tasks have from none to all support rows, and the "
    "held-out tasks are the same for all methods.",
    "`drawn`: as many support rows as in training.",
    "A posterior that is known only through draws has its joint density estimated from a finite "
    "number of them, which overstates the gap.",
    "“exact, by point”: one normal at each point, with the mean and the variance that the exact "
    "posterior has there. No prediction of that form, as of cnp or maml, comes nearer on average.",
    "A gap below zero by more than two standard errors would mean a leak or a wrong metric.",
)

PAPERS = (
    'Harrison, Sharma & Pavone, "Meta-Learning Priors for Efficient Online Bayesian '
    'Regression", WAFR 2018',
    'Gordon et al., "Meta-Learning Probabilistic Inference for Prediction", ICLR 2019',
    'Bruinsma et al., "Autoregressive Conditional Neural Processes", ICLR 2023',
    'Finn, Xu & Levine, "Probabilistic Model-Agnostic Meta-Learning", NeurIPS 2018',
)
METRICS = {
    "gap": Metric("marginal NLL above the exact posterior's", "nats a row", "low"),
    "joint_gap": Metric("joint NLL above the exact posterior's", "nats a row", "low"),
    "nll": Metric("marginal NLL", "nats a row", "low"),
    "mse": Metric("MSE of the mean", "squared units of y", "low"),
}
BUDGETS = {
    "quick": {
        "sources": ["linear", "gp", "mean", "sinusoid"],
        "steps_share": 0.4,
        "tasks": 100,
        "samples": 64,
        "minutes": 0.2,
    },
    "full": {
        "sources": ["linear", "gp", "mean", "sinusoid", "sineline"],
        "steps_share": 4.0,
        "tasks": 300,
        "samples": 256,
        "minutes": 2.0,
    },
}

PROTOCOL = Protocol(
    name="oracles",
    title="How far from the exact posterior",
    lead=LEAD,
    papers=PAPERS,
    choices=CHOICES,
    metrics=METRICS,
    methods=("np", "dkt", "platipus"),
    able=able("numbers", but=("ensemble", "stack"), inputs=1),
    budgets=BUDGETS,
    without={"ensemble": "several emaml, which runs by itself"},
    run=run,
    draw=draw,
    references=(EXACT, BY_POINT),
    anchors=(
        Anchor("closed form", "mean: K = 5", "nll", 1.49601, _TOY),
        Anchor("closed form", "mean: K = 10", "nll", 1.46244, _TOY),
        *(
            Anchor("exact, computed before", f"sinusoid: K = {k}", "nll", v, _G9)
            for k, v in ((0, 1.912), (1, 1.119), (2, 0.095), (5, -0.326), (10, -0.442))
        ),
        *(
            Anchor("ALPaCA, computed before", f"sinusoid: K = {k}", "nll", v, _G9)
            for k, v in ((0, 1.943), (1, 1.337), (2, 0.409), (5, -0.108), (10, -0.284))
        ),
    ),
    sentence=sentence,
)
